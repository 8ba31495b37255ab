//! Drops databases, or says why not. The callers hold the fences.

use super::Skipped;
use crate::name::{DbName, Kind, Namespace, RunId};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::error::code;
use crate::run::clone;
use crate::run_dir::DeadRunDir;

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

/// Drops everything of a run whose fences the caller holds, failed tests' databases excepted, which are preserved. `force` is for
/// the run's own keeper only.
///
/// # Errors
/// The server cannot be used. What could not be dropped comes back with the reason.
pub async fn drop_run(
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
    dead: &DeadRunDir,
    force: bool,
) -> Result<Vec<Skipped>, PgError> {
    let mut skipped = Vec::new();
    let ours = |name: &DbName| name.run() == Some(run);
    for name in dead.failed().into_iter().filter(ours) {
        match clone::preserve(admin, &name).await {
            Err(error) if error.is(code::INVALID_CATALOG_NAME) => {}
            Err(error) if error.code().is_some() => skipped.push(Skipped {
                name,
                reason: format!("its test failed, and it cannot be kept yet: {error}"),
            }),
            result => drop(result?),
        }
    }
    let mut rows = rows_of(admin, namespace, run).await?;
    rows.retain(|row| skipped.iter().all(|s| s.name != row.name));
    skipped.extend(drop_rows(admin, rows, force).await?);
    Ok(skipped)
}

/// Drops databases; what could not be dropped comes back with the reason.
pub(super) async fn drop_rows(
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
