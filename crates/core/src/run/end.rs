//! Removes the databases of a run: at the end of the run, or when a sweep finds the run dead.
//!
//! Order: the caller wins the run directory's `flock` exclusive (no process of the run lives on this host), then the run lock exclusive
//! ([`win_run_lock`]: no session of it is at work), then [`remove`] preserves the databases of tests that failed or died, drops the rest, moves the
//! recorded leaks into the runtime directory, and removes the directory last. A crash at any step leaves the directory, and with it everything that the sweep needs to continue from there.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::spares::{self, Legacy};
use super::{RunError, kept};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::error::backoff;
use crate::pg::lock::LockKey;
use crate::pg::obstacles::Purpose;
use crate::plural::count;
use crate::protocol::{
    DbName, DeadRunDir, Entries, EntryState, KeepConfig, Kind, Namespace, Noticed, RunFile, RunId,
    Runtime,
};
use crate::sqlstate;

/// How long the sessions of killed clients may take to end.
const RUN_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A database that was not dropped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The database.
    #[serde(rename = "database")]
    pub name: DbName,
    /// The reason and the remedy.
    pub reason: String,
}

/// The result of removing a run's databases.
#[derive(Debug, Default)]
pub struct Removal {
    /// The preserved databases of failed tests, by their new names.
    pub kept: Vec<DbName>,
    /// How many clones became spares.
    pub spares: usize,
    /// Databases that could not be dropped. If there are any, the run directory stays.
    pub skipped: Vec<Skipped>,
}

/// Takes the run lock exclusive, or gives up after 10 s.
///
/// The caller holds the directory's `flock` exclusive, so no process of the run is alive. But the session of a killed process may still be at work:
/// the server finishes a `CREATE DATABASE` before it notices that the client is gone. Sessions that create databases hold the run lock shared. This
/// function ends those that still hold it; once it has the lock, their databases either exist or do not.
///
/// # Errors
/// A statement failed.
pub async fn win_run_lock(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
) -> Result<bool, PgError> {
    let key = LockKey::run(namespace, run);
    let started = Instant::now();
    for attempt in 0.. {
        if admin.try_lock(key).await? {
            return Ok(true);
        }
        if started.elapsed() > RUN_LOCK_TIMEOUT {
            break;
        }
        // Most sessions end by themselves within milliseconds.
        if attempt > 2 {
            admin.end_shared_holders(key).await?;
        }
        tokio::time::sleep(backoff(attempt)).await;
    }
    Ok(false)
}

/// How a run ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Whether to end sessions on its databases. Only for the caller's own run.
    pub force: bool,
    /// If clones that equal their template become spares: the contents of `run.json`, and what the run leaves.
    pub legacy: Option<(&'a RunFile, Legacy<'a>)>,
}

/// Drops the databases of a run whose fence the caller holds, and preserves those of failed tests and of claimants that died. Then removes the run
/// directory, unless a database could not be dropped.
///
/// # Errors
/// The server or the directory is not usable.
pub async fn remove(
    admin: &mut Admin,
    runtime: &Runtime,
    namespace: &Namespace,
    run: &RunId,
    dead: DeadRunDir,
    ending: Ending<'_>,
) -> Result<Removal, RunError> {
    let removal = drop_databases(admin, namespace, run, &dead, ending).await?;
    if removal.skipped.is_empty() {
        if let Err(error) = runtime.preserve_leaks(run, &dead) {
            tracing::warn!("{error}");
        }
        dead.remove(&runtime.gate()?)?;
    }
    Ok(removal)
}

async fn drop_databases(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
    dead: &DeadRunDir,
    ending: Ending<'_>,
) -> Result<Removal, PgError> {
    let entries = dead.entries();
    let keeps = dead.keeps_failed();
    if keeps {
        entries.move_abandoned(EntryState::Failed, Noticed::Later);
    }
    let mut removal = preserve_failed(admin, run, entries, dead.keep()).await?;
    for name in entries.list(EntryState::Released) {
        let claimant = entries.claimant(EntryState::Released, &name);
        if let Some(passed) = claimant.filter(|c| c.is_retry() && keeps) {
            kept::drop_earlier_attempts(admin, entries, &name, &passed).await?;
        }
    }
    if let Some((file, legacy)) = ending.legacy {
        removal.spares = spares::leave(admin, dead, file, legacy, ending.force).await?;
    }
    let mut rows = rows_of(admin, namespace, run).await?;
    rows.retain(|row| removal.skipped.iter().all(|s| s.name != row.name));
    removal
        .skipped
        .extend(drop_rows(admin, rows, ending.force).await?);
    Ok(removal)
}

async fn preserve_failed(
    admin: &mut Admin,
    run: &RunId,
    entries: Entries<'_>,
    keep: Option<KeepConfig>,
) -> Result<Removal, PgError> {
    let mut removal = Removal::default();
    let failed = entries.list(EntryState::Failed);
    for name in failed.into_iter().filter(|name| name.run() == Some(run)) {
        match kept::preserve(admin, entries, &name, keep).await {
            Err(error) if error.code().is_some() => removal.skipped.push(Skipped {
                name,
                reason: format!("failed to preserve the database of a failed test: {error}"),
            }),
            result => removal.kept.extend(result?),
        }
    }
    Ok(removal)
}

/// The current databases of a run, except kept ones.
///
/// # Errors
/// A statement failed.
pub async fn rows_of(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
) -> Result<Vec<DatabaseRow>, PgError> {
    Ok(of_run(&admin.databases(namespace).await?, run))
}

/// The databases of a run among these, except kept ones.
pub fn of_run(rows: &[DatabaseRow], run: &RunId) -> Vec<DatabaseRow> {
    rows.iter()
        .filter(|row| row.name.run() == Some(run) && row.name.kind() != Kind::Kept)
        .cloned()
        .collect()
}

/// Drops databases of a run whose fence the caller holds. Returns those that could not be dropped.
///
/// # Errors
/// The server is not usable.
pub async fn drop_rows(
    admin: &mut Admin,
    rows: Vec<DatabaseRow>,
    force: bool,
) -> Result<Vec<Skipped>, PgError> {
    let mut skipped = Vec::new();
    for row in rows {
        if let Some(reason) = drop_row(admin, &row, force).await? {
            let name = row.name;
            skipped.push(Skipped { name, reason });
        }
    }
    Ok(skipped)
}

/// Why a database cannot be dropped, as far as its row says.
pub fn reason_to_skip(row: &DatabaseRow, force: bool) -> Option<String> {
    if !row.owned {
        let owner = &row.owner;
        return Some(format!(
            "owned by the role `{owner}`; only that role can drop it"
        ));
    }
    let sessions =
        (row.sessions > 0 && !force).then(|| count(row.sessions, "connected session"))?;
    Some(format!("{sessions}; a later sweep drops it"))
}

/// Drops a database, or returns the reason why it cannot. Checks for sessions first, because a DROP that waits for sessions blocks new ones for 5 s.
async fn drop_row(
    admin: &mut Admin,
    row: &DatabaseRow,
    force: bool,
) -> Result<Option<String>, PgError> {
    if let Some(reason) = reason_to_skip(row, force) {
        return Ok(Some(reason));
    }
    match clear_and_drop(admin, row, force).await {
        Ok(()) => Ok(None),
        Err(error) if error.code().is_some() && !error.is(sqlstate::DISK_FULL) => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

async fn clear_and_drop(admin: &mut Admin, row: &DatabaseRow, force: bool) -> Result<(), PgError> {
    // Some of them make the server wait for 5 s before it refuses.
    if row.obstacles > 0 {
        admin.clear_obstacles(&row.name, Purpose::Drop).await?;
    }
    admin.drop_database(&row.name, row.is_template, force).await
}
