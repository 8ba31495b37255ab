//! Kept databases: a failed test's clone under its kept name, with a note on whose it was in its comment.
//!
//! Note and name are set in one transaction, so a crash leaves a clone that is preserved again, or a kept database with its note and
//! an entry in `failed/` that leads nowhere. How many stay, and how long, holds wherever one is added.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::KeepConfig;
use crate::name::{DbName, Kind, Namespace, RunId};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::error::code;
use crate::run_dir::{Claimant, Entries, Folder};

/// What the comment on a kept database says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNote {
    /// Version of the tool that kept it.
    pub tool: String,
    /// The run.
    pub run: RunId,
    /// What it was made from.
    pub template: DbName,
    /// When it was kept, in milliseconds since 1970.
    pub kept_at: u64,
    /// Whose it was, where that is known.
    #[serde(flatten)]
    pub claimant: Option<Claimant>,
}

impl KeptNote {
    /// Reads a comment that we wrote.
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        serde_json::from_str(comment?).ok()
    }

    /// The note on a database of a run; a name without a run has none.
    fn new(name: &DbName, claimant: Option<Claimant>) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Some(Self {
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            run: name.run()?.clone(),
            template: DbName::template(name.namespace(), name.fingerprint()),
            kept_at: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            claimant,
        })
    }
}

/// Preserves a failed test's clone under the name that the test printed, with a note on whose it was, and forgets its entry in
/// `failed/`. Ends the sessions that the test left, and rolls back what it left prepared. `None`: there is no such database (any
/// more), as when its claimant died before it was made.
///
/// # Errors
/// A failed statement; the entry stays.
pub async fn preserve(
    admin: &mut Admin,
    entries: Entries<'_>,
    name: &DbName,
) -> Result<Option<DbName>, PgError> {
    let kept = name.with_kind(Kind::Kept);
    let note = KeptNote::new(name, entries.claimant(Folder::Failed, name));
    let text = serde_json::to_string(&note).unwrap_or_default();
    admin.end_sessions(name).await?;
    let mut renamed = admin.keep_database(name, &kept, &text).await;
    if renamed.as_ref().is_err_and(|e| e.is(code::OBJECT_IN_USE)) {
        // A transaction of a two-phase commit keeps a database in use for ever.
        admin.roll_back_prepared(name).await?;
        renamed = admin.keep_database(name, &kept, &text).await;
    }
    let there = match renamed {
        Err(error) if error.is(code::INVALID_CATALOG_NAME) => false,
        result => result.map(|()| true)?,
    };
    entries.forget(Folder::Failed, name);
    Ok(there.then_some(kept))
}

/// Drops the kept databases beyond the bounds, oldest first. What somebody looks at, and what is not ours, is left.
///
/// # Errors
/// The server cannot be used.
pub async fn bound(
    admin: &mut Admin,
    namespace: &Namespace,
    keep: KeepConfig,
) -> Result<(), PgError> {
    let rows = admin.databases(namespace).await?;
    let expired = expired(&rows, keep, SystemTime::now());
    drop_unused(admin, expired.into_iter()).await
}

/// Drops what earlier attempts of a test left, now that an attempt has passed: `passed` was given back by the claimant of `name`.
/// An attempt that gave back one database and failed with another has not passed.
///
/// # Errors
/// The server cannot be used.
pub async fn drop_earlier_attempts(
    admin: &mut Admin,
    entries: Entries<'_>,
    name: &DbName,
    passed: &Claimant,
) -> Result<(), PgError> {
    let rows = admin.databases(name.namespace()).await?;
    let kept: Vec<(&DatabaseRow, u32)> = rows
        .iter()
        .filter_map(|row| Some((row, attempt_of(row, name, passed)?)))
        .collect();
    let failed = entries.list(Folder::Failed);
    let failed = failed
        .iter()
        .filter_map(|name| entries.claimant(Folder::Failed, name))
        .filter(|claimant| claimant.is_same_test(passed))
        .map(|claimant| claimant.attempt);
    let mut attempts = kept.iter().map(|(_, attempt)| *attempt).chain(failed);
    if attempts.any(|attempt| attempt >= passed.attempt) {
        return Ok(());
    }
    drop_unused(admin, kept.into_iter().map(|(row, _)| row)).await
}

/// Which attempt of that test a kept database is of, in the same run of ours or of nextest's.
fn attempt_of(row: &DatabaseRow, name: &DbName, test: &Claimant) -> Option<u32> {
    let note = KeptNote::parse(row.comment.as_deref()).filter(|_| row.name.kind() == Kind::Kept)?;
    let claimant = note.claimant.filter(|c| c.is_same_test(test))?;
    let one_run = row.name.run() == name.run() || test.nextest_run.is_some();
    one_run.then_some(claimant.attempt)
}

/// Looks for sessions first: a DROP that has to wait for them blocks new ones for 5 s.
async fn drop_unused(
    admin: &mut Admin,
    rows: impl Iterator<Item = &DatabaseRow>,
) -> Result<(), PgError> {
    for row in rows.filter(|row| row.owned && row.sessions == 0) {
        match admin.drop_database(&row.name, false, false).await {
            Err(error) if error.code().is_some() => {
                tracing::info!("`{}` stays for now: {error}", row.name);
            }
            result => result?,
        }
    }
    Ok(())
}

/// The kept databases beyond the bounds, oldest first.
pub fn expired(rows: &[DatabaseRow], keep: KeepConfig, now: SystemTime) -> Vec<&DatabaseRow> {
    let mut kept: Vec<(SystemTime, &DatabaseRow)> = rows
        .iter()
        .filter(|row| row.name.kind() == Kind::Kept)
        .map(|row| (kept_at(row), row))
        .collect();
    kept.sort_by_key(|(at, _)| *at);
    let surplus = kept.len().saturating_sub(keep.max);
    let oldest = now - Duration::from_secs(keep.max_age_days * 86_400);
    kept.into_iter()
        .enumerate()
        .filter(|(rank, (at, _))| *rank < surplus || *at < oldest)
        .map(|(_, (_, row))| row)
        .collect()
}

/// When a database was kept, as far as it is known; else when its run began.
pub fn kept_at(row: &DatabaseRow) -> SystemTime {
    let began = row.name.run().map_or(UNIX_EPOCH, RunId::created_at);
    KeptNote::parse(row.comment.as_deref()).map_or(began, |note| {
        UNIX_EPOCH + Duration::from_millis(note.kept_at)
    })
}
