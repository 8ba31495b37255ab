//! Kept databases: the clone of a failed test, renamed to its kept name, with a note about its test in its comment.
//!
//! One transaction sets note and name. So a crash leaves either a clone that is preserved later, or a kept database and an entry in state failed
//! without a database. Each process that adds a kept database enforces the limits of their number and age.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::obstacles::Purpose;
use crate::protocol::{
    Claimant, DbName, Entries, EntryState, FailureCause, KeepConfig, Kind, Namespace, RunId,
};
use crate::sqlstate;

/// The comment of a kept database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNote {
    /// Version of the tool that kept it.
    pub tool: String,
    /// The run.
    pub run: RunId,
    /// Its template.
    pub template: DbName,
    /// The time at which it was kept, in milliseconds since 1970.
    pub kept_at: u64,
    /// The limits of that run, which hold for this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepConfig>,
    /// Why the test failed, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<FailureCause>,
    /// Its claimant, if it is known.
    #[serde(flatten)]
    pub claimant: Option<Claimant>,
}

impl KeptNote {
    /// Parses the comment of a database.
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        serde_json::from_str(comment?).ok()
    }

    /// The note about a database of a run; a name without a run has none.
    fn new(name: &DbName, keep: Option<KeepConfig>, entries: Entries<'_>) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Some(Self {
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            run: name.run()?.clone(),
            template: name.template_name(),
            kept_at: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            keep,
            cause: entries.cause(EntryState::Failed, name),
            claimant: entries.claimant(EntryState::Failed, name),
        })
    }
}

/// Preserves the clone of a failed test under the name that the test printed, with a note about the test, and removes its failed entry. Ends the
/// sessions that the test left, rolls back its prepared transactions, and stops its replication. `None`: the database does not exist, for example
/// because its claimant died before it was created.
///
/// # Errors
/// A statement failed; the entry stays.
pub async fn preserve(
    admin: &mut Admin,
    entries: Entries<'_>,
    name: &DbName,
    keep: Option<KeepConfig>,
) -> Result<Option<DbName>, PgError> {
    let kept = name.with_kind(Kind::Kept);
    let note = KeptNote::new(name, keep, entries);
    let text = serde_json::to_string(&note).unwrap_or_default();
    admin.end_sessions(name).await?;
    let cleared = admin.clear_obstacles(name, Purpose::Keep).await;
    let exists = match admin.keep_database(name, &kept, &text).await {
        Err(error) if error.is(sqlstate::OBJECT_IN_USE) => {
            return Err(cleared.err().unwrap_or(error));
        }
        Err(error) if error.is(sqlstate::INVALID_CATALOG_NAME) => false,
        result => result.map(|()| true)?,
    };
    entries.remove_entry(EntryState::Failed, name);
    Ok(exists.then_some(kept))
}

/// Which limits hold for a kept database.
#[derive(Debug, Clone, Copy)]
pub enum KeepLimits {
    /// These, whichever run kept it.
    Common(KeepConfig),
    /// Those of the run that kept it; these, if they are unknown.
    OfItsRun(KeepConfig),
}

impl KeepLimits {
    fn of(self, note: Option<&KeptNote>) -> KeepConfig {
        match self {
            Self::Common(keep) => keep,
            Self::OfItsRun(keep) => note.and_then(|note| note.keep).unwrap_or(keep),
        }
    }
}

/// Drops the kept databases of our role that are beyond the limits of their runs, oldest first, except those with sessions.
///
/// # Errors
/// The server is not usable.
pub async fn enforce_limits(
    admin: &mut Admin,
    namespace: &Namespace,
    keep: KeepConfig,
) -> Result<(), PgError> {
    let rows = admin.databases(namespace).await?;
    let expired = expired(&rows, KeepLimits::OfItsRun(keep), SystemTime::now());
    drop_unused(admin, expired.into_iter()).await
}

/// Drops the databases of earlier attempts of a test after an attempt has passed. `passed` is the claimant that released the database `name`. An
/// attempt that released one database and failed with another one has not passed.
///
/// # Errors
/// The server is not usable.
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
    let failed = entries.list(EntryState::Failed);
    let failed = failed
        .iter()
        .filter_map(|name| entries.claimant(EntryState::Failed, name))
        .filter(|claimant| claimant.is_same_test(passed))
        .map(|claimant| claimant.attempt);
    let mut attempts = kept.iter().map(|(_, attempt)| *attempt).chain(failed);
    if attempts.any(|attempt| attempt >= passed.attempt) {
        return Ok(());
    }
    drop_unused(admin, kept.into_iter().map(|(row, _)| row)).await
}

/// The attempt of this test that a kept database belongs to, if it is of the same run of ours or of nextest's.
fn attempt_of(row: &DatabaseRow, name: &DbName, test: &Claimant) -> Option<u32> {
    let note = KeptNote::parse(row.comment.as_deref()).filter(|_| row.name.kind() == Kind::Kept)?;
    let claimant = note.claimant.filter(|c| c.is_same_test(test))?;
    let is_same_run = row.name.run() == name.run() || test.nextest_run.is_some();
    is_same_run.then_some(claimant.attempt)
}

/// Checks for sessions first, because a DROP that waits for sessions blocks new ones for 5 s.
async fn drop_unused(
    admin: &mut Admin,
    rows: impl Iterator<Item = &DatabaseRow>,
) -> Result<(), PgError> {
    for row in rows.filter(|row| row.owned && row.sessions == 0) {
        match admin.drop_database(&row.name, false, false).await {
            Err(error) if error.code().is_some() => {
                tracing::info!("failed to drop the kept database `{}`: {error}", row.name);
            }
            result => result?,
        }
    }
    Ok(())
}

/// The kept databases of our role that are beyond their limits, oldest first. Newer ones of other runs count against the number.
pub fn expired(rows: &[DatabaseRow], limits: KeepLimits, now: SystemTime) -> Vec<&DatabaseRow> {
    let mut kept: Vec<(SystemTime, KeepConfig, &DatabaseRow)> = rows
        .iter()
        .filter(|row| row.owned && row.name.kind() == Kind::Kept)
        .map(|row| {
            let note = KeptNote::parse(row.comment.as_deref());
            (kept_at(row), limits.of(note.as_ref()), row)
        })
        .collect();
    kept.sort_by_key(|(at, ..)| *at);
    let is_old = |at: SystemTime, keep: KeepConfig| {
        let age = Duration::from_secs(keep.max_age_days.saturating_mul(86_400));
        now.checked_sub(age).is_some_and(|oldest| at < oldest)
    };
    let count = kept.len();
    kept.into_iter()
        .enumerate()
        .filter(|(rank, (at, keep, _))| count - rank > keep.max || is_old(*at, *keep))
        .map(|(_, (.., row))| row)
        .collect()
}

/// The time at which a database was kept; if it is unknown, the time at which its run began.
pub fn kept_at(row: &DatabaseRow) -> SystemTime {
    let began = row.name.run().map_or(UNIX_EPOCH, RunId::created_at);
    let at = |note: KeptNote| UNIX_EPOCH.checked_add(Duration::from_millis(note.kept_at));
    KeptNote::parse(row.comment.as_deref())
        .and_then(at)
        .unwrap_or(began)
}
