//! Creates the databases of a run: clones of the template, and the shared clone.
//!
//! A crash leaves a database with the run's id in its name, perhaps without an entry. The teardown and the sweep find it by its name on the server.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::{Retry, RetryLimits};
use crate::pg::error::backoff;
use crate::pg::lock::LockKey;
use crate::pg::seen::SeenDatabase;
use crate::pg::session::connect_once;
use crate::protocol::{
    Baseline, Claimant, DbName, Entries, EntryState, Kind, ReuseEvent, RunDir, RunFile,
};
use crate::run::spares::TakeOver;
use crate::run::{RunError, renew, spares};
use crate::sqlstate;
use crate::waiting::waiting;

/// How long to wait for another process that creates the shared clone. Its lock is free when it ends, so only a process that is suspended reaches this
/// limit, or one that copies a template of hundreds of gigabytes.
const SHARED_CLONE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Pauses between checks whether closed sessions have ended.
const SESSION_END_PAUSES: [Duration; 7] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
];

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
/// The connection failed.
pub async fn admin(file: &RunFile, purpose: &str, limits: RetryLimits) -> Result<Admin, PgError> {
    let locks = [
        LockKey::run(&file.namespace, &file.run),
        LockKey::template(&file.template),
    ];
    let mut retry = Retry::within(limits.busy);
    loop {
        let mut admin = connect(file, purpose, limits).await?;
        match admin.lock_shared(&locks).await {
            Err(error) if error.is_transient() => retry.pause(error).await?,
            result => return result.map(|()| admin),
        }
    }
}

/// An administrative session that holds the run lock shared; `None` if another process holds the lock exclusive because it removes the run.
///
/// # Errors
/// The connection failed.
pub async fn try_admin(
    file: &RunFile,
    purpose: &str,
    limits: RetryLimits,
) -> Result<Option<Admin>, PgError> {
    let mut admin = connect(file, purpose, limits).await?;
    let run = LockKey::run(&file.namespace, &file.run);
    Ok(admin.try_lock_shared(run).await?.then_some(admin))
}

/// An administrative session without locks.
///
/// # Errors
/// The connection failed.
pub async fn connect(file: &RunFile, purpose: &str, limits: RetryLimits) -> Result<Admin, PgError> {
    let address = file.admin_address();
    Admin::connect(address, &file.maintenance_database, purpose, limits).await
}

/// Creates a clone with this name. A clone that cannot get the template's settings is dropped.
///
/// # Errors
/// A statement failed: 42P04 if the name is taken.
pub async fn create(admin: &mut Admin, file: &RunFile, name: &DbName) -> Result<(), PgError> {
    let source = file.template.to_string();
    admin.create_database(name, &source, file.strategy).await?;
    let applied = admin.apply_settings(name, &file.settings).await;
    drop_unless_recorded(admin, name, applied).await
}

/// Drops a database of the run if it is not complete, or could not be recorded in the run directory: no process would find it before the end of the run,
/// and the next attempt would create another one.
pub async fn drop_unless_recorded<T, E>(
    admin: &mut Admin,
    name: &DbName,
    recorded: Result<T, E>,
) -> Result<T, E> {
    if recorded.is_err()
        && let Err(error) = admin.drop_database(name, false, true).await
    {
        tracing::info!("left `{name}` to the end of the run: {error}");
    }
    recorded
}

/// Creates a clone with a new name.
///
/// # Errors
/// A statement failed.
pub async fn create_new(admin: &mut Admin, file: &RunFile, kind: Kind) -> Result<DbName, PgError> {
    loop {
        let name = new_name(file, kind);
        match create(admin, file, &name).await {
            Err(error) if error.is(sqlstate::DUPLICATE_DATABASE) => {}
            result => return result.map(|()| name),
        }
    }
}

/// Connects to a new clone once. The first session of a database writes its catalog cache file, so it takes longer than later ones.
///
/// # Errors
/// The connection failed.
pub async fn warm(file: &RunFile, name: &DbName) -> Result<(), PgError> {
    let address = file.admin_address();
    connect_once(address, &name.to_string()).await
}

/// The baseline of a new clone; `None` if the run does not recycle, or if the clone still has a session.
///
/// # Errors
/// A statement failed.
pub async fn baseline(
    admin: &mut Admin,
    file: &RunFile,
    name: &DbName,
) -> Result<Option<Baseline>, PgError> {
    if file.recycle.is_none() {
        return Ok(None);
    }
    let row = quiet(admin, name).await?;
    Ok(row.and_then(SeenDatabase::new_baseline))
}

/// Waits up to 32 ms until no session is connected to a database, and reports what the server knows about it then.
pub(super) async fn quiet(
    admin: &mut Admin,
    name: &DbName,
) -> Result<Option<SeenDatabase>, PgError> {
    let Use::Idle { .. } = wait_until_unused(admin, name).await? else {
        return Ok(None);
    };
    Ok(admin.seen(name).await?.filter(|row| row.backends == 0))
}

/// Whether a database is in use.
pub(super) enum Use {
    Idle {
        /// It has a comment or a replication slot.
        marked: bool,
    },
    Busy,
    /// There is no such database.
    Gone,
}

/// Waits up to 32 ms until no session is connected to a database.
pub(super) async fn wait_until_unused(admin: &mut Admin, name: &DbName) -> Result<Use, PgError> {
    for pause in SESSION_END_PAUSES {
        match admin.use_of(name).await? {
            Some((0, marked)) => return Ok(Use::Idle { marked }),
            Some(_) => tokio::time::sleep(pause).await,
            None => return Ok(Use::Gone),
        }
    }
    Ok(Use::Busy)
}

/// Gets a database with this name for the run: a clone that a test has released and cleaned, or a spare, or a new clone.
///
/// # Errors
/// A statement failed.
pub async fn obtain(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
) -> Result<Option<Baseline>, PgError> {
    if let Some(baseline) = renew::take_released(admin, dir, file, name).await? {
        return Ok(Some(baseline));
    }
    if let Some(baseline) = spares::adopt(admin, file, name).await? {
        dir.note_reuse(ReuseEvent::Adopted);
        return Ok(Some(baseline));
    }
    create(admin, file, name).await?;
    dir.note_reuse(ReuseEvent::Created);
    baseline(admin, file, name).await
}

/// [`obtain`] with a new name.
///
/// # Errors
/// A statement failed.
pub async fn obtain_new(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    kind: Kind,
) -> Result<(DbName, Option<Baseline>), PgError> {
    loop {
        let name = new_name(file, kind);
        match obtain(admin, dir, file, &name).await {
            Err(error) if error.is(sqlstate::DUPLICATE_DATABASE) => {}
            result => return result.map(|baseline| (name, baseline)),
        }
    }
}

/// Returns the run's shared clone; the first process that needs it adopts or creates it. `lost` is the name of a shared clone that no longer exists.
///
/// # Errors
/// A statement failed, or the run directory is gone.
pub async fn ensure_shared(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    lost: Option<&DbName>,
) -> Result<DbName, RunError> {
    let lock = match find_or_lock_shared(dir, lost, SHARED_CLONE_TIMEOUT).await? {
        SharedAccess::Exists(name) => return Ok(name),
        SharedAccess::Missing(lock) => lock,
    };
    let (name, baseline) = match promote_ready(admin, dir, file).await? {
        Some((name, baseline)) => (name, Some(baseline)),
        None => obtain_new(admin, dir, file, Kind::Shared).await?,
    };
    let recorded = dir.set_shared(Some((&name, baseline.as_ref())));
    drop_unless_recorded(admin, &name, recorded).await?;
    drop(lock);
    Ok(name)
}

/// The run's shared clone, or the right to create it.
enum SharedAccess {
    Exists(DbName),
    Missing(File),
}

/// Waits until there is a shared clone other than `lost`, or until no other process creates one.
async fn find_or_lock_shared(
    dir: &RunDir,
    lost: Option<&DbName>,
    limit: Duration,
) -> Result<SharedAccess, RunError> {
    let file = dir.shared_clone_lock()?;
    let existing = || dir.shared().filter(|name| Some(name) != lost);
    let started = Instant::now();
    let _waiting = waiting("another process that creates the shared clone", limit);
    let mut attempt = 0;
    loop {
        // Without the lock, so that the processes that waited do not have to take it one after the other.
        if let Some(name) = existing() {
            return Ok(SharedAccess::Exists(name));
        }
        if dir.try_lock_shared_clone(&file)? {
            return Ok(match existing() {
                Some(name) => SharedAccess::Exists(name),
                None => SharedAccess::Missing(file),
            });
        }
        if started.elapsed() > limit {
            return Err(RunError::SharedClone(limit));
        }
        tokio::time::sleep(backoff(attempt)).await;
        attempt += 1;
    }
}

/// Makes a ready clone the shared one: after a round of tests, the last round's shared clone is among them. A crash leaves a shared clone that no file
/// names, and an entry without a database: both go with the run.
async fn promote_ready(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
) -> Result<Option<(DbName, Baseline)>, PgError> {
    let claim = match file.recycle {
        Some(_) => dir.claim(),
        None => None,
    };
    let Some(claim) = claim else { return Ok(None) };
    let Some(baseline) = claim.baseline() else {
        dir.end_lease(claim, EntryState::Released);
        return Ok(None);
    };
    let name = new_name(file, Kind::Shared);
    let taken = spares::take_over(admin, &claim.name, &name, baseline).await?;
    match taken {
        TakeOver::InUse => drop(dir.end_lease(claim, EntryState::Released)),
        TakeOver::Taken(_) | TakeOver::Unfit => dir.remove_entry(EntryState::Leased, &claim.name),
    }
    Ok(taken.baseline().map(|baseline| (name, baseline)))
}

/// Replaces the shared clone for the next round of tests: the keeper recycles or drops the old one, and the first process that needs the new one
/// obtains it.
///
/// # Errors
/// The run directory is gone.
pub async fn refresh_shared(dir: &RunDir) -> Result<(), RunError> {
    if let Some(old) = dir.shared() {
        let baseline = dir.shared_baseline();
        dir.set_shared(None)?;
        dir.mark_released(&old, baseline.as_ref())?;
    }
    Ok(())
}

/// Releases the databases of earlier attempts that failed or died and were not preserved yet, because there is no keeper.
pub fn release_earlier_attempts(entries: Entries<'_>, passed: &Claimant) -> Vec<DbName> {
    let released = [EntryState::Failed, EntryState::Leased].map(|state| {
        let mut names = entries.list(state);
        names.retain(|name| {
            let claimant = entries.claimant(state, name);
            claimant.is_some_and(|c| c.is_same_test(passed) && c.attempt < passed.attempt)
                && !entries.is_held(state, name)
                && entries.move_entry(name, state, EntryState::Released)
        });
        names
    });
    released.concat()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::fs::inotify;

    use super::*;
    use crate::protocol::{RunId, RunKey, Runtime};

    /// How often the file was opened since the watch began.
    fn opened(watch: &std::os::fd::OwnedFd) -> usize {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(watch, &mut buffer);
        std::iter::from_fn(|| reader.next().ok().map(drop)).count()
    }

    #[tokio::test]
    async fn a_process_that_waits_for_the_shared_clone_opens_the_lock_once() {
        let base = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::open_at(&base.path().join("rt")).expect("private");
        let id = RunId::new(std::time::UNIX_EPOCH, &RunKey::new(&["run"]));
        let gate = runtime.gate().expect("the gate");
        let dir = runtime.create(&gate, &id).expect("a run");
        let creator = dir.shared_clone_lock().expect("the lock's file");
        assert!(dir.try_lock_shared_clone(&creator).expect("an answer"));
        let flags = inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).expect("inotify");
        let path = dir.path().join("shared.lock");
        // Two kinds of event, because the kernel merges equal ones that follow each other.
        let events = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE;
        inotify::add_watch(&watch, &path, events).expect("a watch");
        let limit = Duration::from_millis(50);
        let waited = find_or_lock_shared(&dir, None, limit).await;
        assert!(matches!(waited, Err(RunError::SharedClone(after)) if after == limit));
        assert_eq!(opened(&watch), 2, "opened and closed");
        drop(creator);
        let found = find_or_lock_shared(&dir, None, limit).await;
        assert!(matches!(found, Ok(SharedAccess::Missing(_))));
    }
}
