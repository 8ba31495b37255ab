//! Makes a run's databases: clones of the template, and the one shared clone.
//!
//! A crash in the middle leaves a database that carries the run's id, and perhaps no entry for it: the teardown and the sweep go
//! by the names on the server, not by the entries.

use std::time::{Duration, Instant};

use crate::name::{DbName, Kind};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::{Patience, Retry, connect_once};
use crate::pg::error::code;
use crate::pg::lock::LockKey;
use crate::run_dir::{Claimant, Entries, Folder, RunDir, RunFile};

use super::{RunError, kept};

/// How long to wait for another process that makes the shared clone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A new name for a database of the run.
pub fn new_name(file: &RunFile, kind: Kind) -> DbName {
    DbName::for_run(
        &file.namespace,
        kind,
        file.template.fingerprint(),
        &file.run,
    )
}

/// An administrative session that holds the run lock and the template's lock shared.
///
/// # Errors
/// No connection.
pub async fn admin(file: &RunFile, purpose: &str, patience: Patience) -> Result<Admin, PgError> {
    let locks = [
        LockKey::run(&file.namespace, &file.run),
        LockKey::template(&file.template),
    ];
    let mut retry = Retry::within(patience.busy);
    loop {
        let mut admin = connect(file, purpose, patience).await?;
        match admin.lock_shared(&locks).await {
            Err(error) if error.is_passing() => retry.pause(error).await?,
            result => return result.map(|()| admin),
        }
    }
}

/// An administrative session without locks.
///
/// # Errors
/// No connection.
pub async fn connect(file: &RunFile, purpose: &str, patience: Patience) -> Result<Admin, PgError> {
    let address = file.admin_address();
    Admin::connect(address, &file.maintenance_database, purpose, patience).await
}

/// Makes a clone of that name.
///
/// # Errors
/// A failed statement.
pub async fn create(admin: &mut Admin, file: &RunFile, name: &DbName) -> Result<(), PgError> {
    let source = file.template.to_string();
    admin.create_database(name, &source, file.strategy).await?;
    admin.apply_settings(name, &file.settings).await
}

/// Makes a clone under a new name.
///
/// # Errors
/// A failed statement.
pub async fn create_new(admin: &mut Admin, file: &RunFile, kind: Kind) -> Result<DbName, PgError> {
    loop {
        let name = new_name(file, kind);
        match create(admin, file, &name).await {
            Err(error) if error.is(code::DUPLICATE_DATABASE) => {}
            result => return result.map(|()| name),
        }
    }
}

/// Connects once to a new clone: the first session of a database writes its catalog cache file, which takes longer than a later
/// connect, and no test should pay for it.
///
/// # Errors
/// No connection.
pub async fn warm(file: &RunFile, name: &DbName) -> Result<(), PgError> {
    let address = file.admin_address();
    connect_once(address, &name.to_string()).await
}

/// The run's shared clone, made by whoever needs it first. `lost` is the name of one that turned out to be gone.
///
/// # Errors
/// A failed statement, or the run directory is gone.
pub async fn ensure_shared(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    lost: Option<&DbName>,
) -> Result<DbName, RunError> {
    let begun = Instant::now();
    let lock = loop {
        match dir.try_lock_shared_clone()? {
            Some(lock) => break lock,
            None if begun.elapsed() > PATIENCE => return Err(RunError::SharedClone(PATIENCE)),
            None => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    };
    if let Some(name) = dir.shared().filter(|name| Some(name) != lost) {
        return Ok(name);
    }
    let name = create_new(admin, file, Kind::Shared).await?;
    dir.set_shared(Some(&name))?;
    drop(lock);
    Ok(name)
}

/// Gives the next round of tests a shared clone of its own: the old one is dropped by the keeper, the new one is made by whoever
/// needs it first, the keeper as a rule.
///
/// # Errors
/// The run directory is gone.
pub async fn refresh_shared(dir: &RunDir) -> Result<(), RunError> {
    if let Some(old) = dir.shared() {
        dir.set_shared(None)?;
        dir.offer_for_drop(&old)?;
    }
    Ok(())
}

/// Drops a database of the run that was given back, and forgets its entry. One that a retry gave back takes with it what the test's
/// earlier attempts left: the caller knows that the retry is over, and that they are.
///
/// # Errors
/// A failed statement; the entry stays.
pub async fn drop_released(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
) -> Result<(), PgError> {
    let entries = dir.entries();
    let claimant = entries.claimant(Folder::Released, name);
    if let Some(passed) = claimant.filter(|c| c.is_retry() && file.keep.failed) {
        for name in earlier_attempts(entries, &passed) {
            admin.drop_database(&name, false, true).await?;
            dir.forget(Folder::Released, &name);
        }
        kept::drop_earlier_attempts(admin, entries, name, &passed).await?;
    }
    admin.drop_database(name, false, true).await?;
    dir.forget(Folder::Released, name);
    Ok(())
}

/// Gives back what earlier attempts of a test failed with or died with, where nobody has preserved it yet: without a keeper.
pub fn earlier_attempts(entries: Entries<'_>, passed: &Claimant) -> Vec<DbName> {
    let waiting = [Folder::Failed, Folder::Leased].map(|folder| {
        let mut names = entries.list(folder);
        names.retain(|name| {
            let claimant = entries.claimant(folder, name);
            claimant.is_some_and(|c| c.is_same_test(passed) && c.attempt < passed.attempt)
                && !entries.is_held(folder, name)
                && entries.advance(name, folder, Folder::Released)
        });
        names
    });
    waiting.concat()
}
