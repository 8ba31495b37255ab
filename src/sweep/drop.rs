//! Drops databases, or says why not. The callers hold the fences.

use super::Skipped;
use crate::name::{DbName, Kind, Namespace, RunId};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::run::kept;
use crate::run_dir::{DeadRunDir, Entries, Folder};

/// A run's databases as they are now, kept ones excepted.
pub(super) async fn rows_of(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
) -> Result<Vec<DatabaseRow>, PgError> {
    Ok(of_run(&admin.databases(namespace).await?, run))
}

/// A run's databases among others, kept ones excepted.
pub(super) fn of_run(rows: &[DatabaseRow], run: &RunId) -> Vec<DatabaseRow> {
    rows.iter()
        .filter(|row| row.name.run() == Some(run) && row.name.kind() != Kind::Kept)
        .cloned()
        .collect()
}

/// What became of a dead run's databases.
#[derive(Debug, Default)]
pub struct Removal {
    /// Failed tests' databases that were preserved, by their new names.
    pub kept: Vec<DbName>,
    /// What could not be dropped.
    pub skipped: Vec<Skipped>,
}

/// Drops everything of a run whose fences the caller holds, failed tests' databases excepted, which are preserved: those that
/// were given back as failed, and those whose claimants died. `force` is for the run's own keeper only.
///
/// # Errors
/// The server cannot be used. What could not be dropped comes back with the reason.
pub async fn drop_run(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
    dead: &DeadRunDir,
    force: bool,
) -> Result<Removal, PgError> {
    let entries = dead.entries();
    let keeps = dead.keeps_failed();
    if keeps {
        entries.settle_abandoned(Folder::Failed);
    }
    let mut removal = preserve_failed(admin, run, entries).await?;
    for name in entries.list(Folder::Released) {
        let claimant = entries.claimant(Folder::Released, &name);
        if let Some(passed) = claimant.filter(|c| c.is_retry() && keeps) {
            kept::drop_earlier_attempts(admin, entries, &name, &passed).await?;
        }
    }
    let mut rows = rows_of(admin, namespace, run).await?;
    rows.retain(|row| removal.skipped.iter().all(|s| s.name != row.name));
    removal.skipped.extend(drop_rows(admin, rows, force).await?);
    Ok(removal)
}

async fn preserve_failed(
    admin: &mut Admin,
    run: &RunId,
    entries: Entries<'_>,
) -> Result<Removal, PgError> {
    let mut removal = Removal::default();
    let failed = entries.list(Folder::Failed);
    for name in failed.into_iter().filter(|name| name.run() == Some(run)) {
        match kept::preserve(admin, entries, &name).await {
            Err(error) if error.code().is_some() => removal.skipped.push(Skipped {
                name,
                reason: format!("its test failed, and it cannot be kept yet: {error}"),
            }),
            result => removal.kept.extend(result?),
        }
    }
    Ok(removal)
}

/// Drops databases; what could not be dropped comes back with the reason.
pub(crate) async fn drop_rows(
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

/// Drops a database, or says why not. Looks for sessions first: a DROP that has to wait for them blocks new ones for 5 s.
async fn drop_row(
    admin: &mut Admin,
    row: &DatabaseRow,
    force: bool,
) -> Result<Option<String>, PgError> {
    if !row.owned {
        let owner = &row.owner;
        return Ok(Some(format!(
            "it belongs to the role `{owner}`; only that role may drop it"
        )));
    }
    if row.sessions > 0 && !force {
        let sessions = row.sessions;
        return Ok(Some(format!(
            "{sessions} sessions are connected; it goes with a later sweep"
        )));
    }
    if row.prepared > 0 {
        match admin.roll_back_prepared(&row.name).await {
            Err(error) if error.code().is_some() => return Ok(Some(error.to_string())),
            result => result?,
        }
    }
    match admin.drop_database(&row.name, row.is_template, force).await {
        Ok(()) => Ok(None),
        Err(error @ PgError::Statement { .. }) if error.code().is_some() => {
            Ok(Some(error.to_string()))
        }
        Err(error) => Err(error),
    }
}
