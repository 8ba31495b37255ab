//! Advisory locks: the run lock (a run's liveness lock), the build lock, and the locks of templates.
//!
//! An advisory lock belongs to a database, and the users of one server may have different maintenance databases. So a process first takes a lock in its
//! own, and then looks for the same key in `pg_locks`, which shows those of all databases. Of two processes that do both at once, at least one sees the
//! other and gives way. A lock also belongs to a session, so connections are direct. Keys are never negative: `pg_locks` shows their halves as oids. A
//! crash frees the locks with the session. A collision of two shared locks only delays a sweep.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError, backoff};
use crate::pg::session::STATEMENT_LIMIT;
use crate::pg::sql::NO_IDLE_TIMEOUT;
use crate::protocol::{DbName, Namespace, RunId};
use crate::sqlstate;
use crate::waiting::waiting;

/// How long to wait for a process that removes a run or drops a template.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);
const REMOVES: &str = "removes the databases of a run or a template";

/// How long to wait for processes that build or collect templates.
pub const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
const BUILDS: &str = "builds or collects templates";
/// How long one statement of that wait takes.
const BUILD_WAIT: Duration = Duration::from_secs(10);

/// The key of an advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockKey(i64);

impl LockKey {
    /// The run lock: live participants of a run hold it shared; a process that removes a dead run holds it exclusive.
    pub fn run(namespace: &Namespace, run: &RunId) -> Self {
        Self::new(&["run", namespace.as_str(), run.as_str()])
    }

    /// The build lock: a builder of a template holds it exclusive. One per server, because roles are cluster-global and builds are rare.
    pub fn build() -> Self {
        Self::new(&["build"])
    }

    /// A template's lock: runs that use the template hold it shared; a process that drops the template holds it exclusive.
    pub fn template(name: &DbName) -> Self {
        Self::new(&["template", &name.to_string()])
    }

    /// The key as a number for SQL.
    pub fn as_i64(self) -> i64 {
        self.0
    }

    fn new(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update("kapsel-testdb lock");
        for part in parts {
            hash.update([0]);
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let number = i64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        // Both halves are below 2^31.
        Self(number & 0x7fff_ffff_7fff_ffff)
    }
}

/// The rows of `pg_locks` that show a session with one of these locks, in any database.
fn held(keys: &[LockKey]) -> String {
    let halves = |key: &LockKey| {
        let (high, low) = (key.0 >> 32, key.0 & 0xffff_ffff);
        format!("(l.classid = {high} AND l.objid = {low})")
    };
    let keys: Vec<String> = keys.iter().map(halves).collect();
    format!(
        "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND ({})",
        keys.join(" OR ")
    )
}

/// The statements that take locks shared and wait for each at most [`REMOVAL_LIMIT`].
pub(super) fn take_shared(keys: &[LockKey]) -> String {
    let take = |key: &LockKey| format!("SELECT pg_advisory_lock_shared({})::text;", key.0);
    let takes: String = keys.iter().map(take).collect();
    format!("{}{takes}", wait_at_most(REMOVAL_LIMIT))
}

/// How long [`take_shared`] may take.
fn limit_of_taking(keys: &[LockKey]) -> Duration {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    STATEMENT_LIMIT.saturating_add(REMOVAL_LIMIT.saturating_mul(count))
}

fn wait_at_most(limit: Duration) -> String {
    format!("SET LOCAL lock_timeout = {};", limit.as_millis())
}

/// The query whether a session in another database has one of these locks; with `exclusive`, only one that has it exclusive counts.
pub(super) fn held_elsewhere(keys: &[LockKey], exclusive: bool) -> String {
    let mode = if exclusive {
        "AND l.mode = 'ExclusiveLock'"
    } else {
        ""
    };
    format!(
        "SELECT EXISTS (SELECT FROM pg_locks l WHERE {} {mode} \
           AND l.database <> (SELECT oid FROM pg_database WHERE datname = current_database()))::text AS elsewhere",
        held(keys)
    )
}

/// Whether a query of [`held_elsewhere`] among others found a session.
pub(super) fn is_held_elsewhere(rows: &[PgRow]) -> bool {
    rows.iter().any(|row| is_true(row, "elsewhere"))
}

fn is_true(row: &PgRow, column: &str) -> bool {
    row.try_get::<&str, _>(column)
        .is_ok_and(|text| text == "true")
}

impl Admin {
    /// Takes locks shared; waits for each.
    ///
    /// # Errors
    /// The statement failed, or a process holds one exclusive for long.
    pub async fn lock_shared(&mut self, keys: &[LockKey]) -> Result<(), PgError> {
        let (take, elsewhere) = (take_shared(keys), held_elsewhere(keys, true));
        let sql = format!("{NO_IDLE_TIMEOUT}{take}{elsewhere}");
        let rows = self.take_and_read(keys, &sql, "take the run lock").await?;
        if is_held_elsewhere(&rows) {
            self.wait_for_removal(keys).await?;
        }
        Ok(())
    }

    /// Runs the statements of [`take_shared`], and a query.
    ///
    /// # Errors
    /// A statement failed, or a process holds a lock exclusive for long.
    pub(super) async fn take_and_read(
        &mut self,
        keys: &[LockKey],
        sql: &str,
        context: &str,
    ) -> Result<Vec<PgRow>, PgError> {
        let started = Instant::now();
        let _waiting = waiting("a lock on the server", REMOVAL_LIMIT);
        let taken = self.rows_within(limit_of_taking(keys), sql, context).await;
        match taken {
            Err(error) if error.is(sqlstate::LOCK_NOT_AVAILABLE) => {
                Err(self.locked(keys, REMOVES, started).await)
            }
            taken => taken,
        }
    }

    /// The error of a wait that took too long.
    async fn locked(&mut self, keys: &[LockKey], purpose: &'static str, since: Instant) -> PgError {
        let mut holders = Vec::new();
        for key in keys {
            match self.lock_holders(*key).await {
                Ok(found) => holders.extend(found),
                Err(error) => return error,
            }
        }
        holders.sort();
        holders.dedup();
        PgError::Locked {
            holders: holders.join(", "),
            purpose,
            waited: since.elapsed(),
        }
    }

    /// Waits until no session in another database holds one of these locks exclusive. This session holds them shared.
    ///
    /// # Errors
    /// A statement failed, or the wait took too long.
    pub(super) async fn wait_for_removal(&mut self, keys: &[LockKey]) -> Result<(), PgError> {
        let started = Instant::now();
        let _waiting = waiting("a lock on the server", REMOVAL_LIMIT);
        let context = "wait for a lock";
        for attempt in 0.. {
            let sql = held_elsewhere(keys, true);
            if !is_held_elsewhere(&self.rows(sql, context).await?) {
                break;
            }
            if started.elapsed() > REMOVAL_LIMIT {
                return Err(self.locked(keys, REMOVES, started).await);
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
        Ok(())
    }

    /// Tries to take a lock shared. `false`: another session holds it exclusive.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn try_lock_shared(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.try_lock_in(Mode::Shared, key).await
    }

    /// Tries to take a lock exclusive. `false`: another session holds it.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn try_lock(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.try_lock_in(Mode::Exclusive, key).await
    }

    /// Takes the build lock; waits for it at most an hour.
    ///
    /// # Errors
    /// The statement failed, or the wait took too long.
    pub async fn lock_builds(&mut self) -> Result<(), PgError> {
        let key = LockKey::build();
        let sql = format!(
            "{}SELECT pg_advisory_lock({}); {}",
            wait_at_most(BUILD_WAIT),
            key.as_i64(),
            held_elsewhere(&[key], false)
        );
        let started = Instant::now();
        for attempt in 0.. {
            match self.rows(sql.clone(), "wait for the build lock").await {
                Ok(rows) if !is_held_elsewhere(&rows) => break,
                Ok(_) => {
                    self.unlock(key).await?;
                    tokio::time::sleep(backoff(attempt)).await;
                }
                Err(error) if error.is(sqlstate::LOCK_NOT_AVAILABLE) => {}
                Err(error) => return Err(error),
            }
            if started.elapsed() > BUILD_LIMIT {
                return Err(self.locked(&[key], BUILDS, started).await);
            }
        }
        Ok(())
    }

    /// Releases a lock that is held exclusive.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn unlock(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock({})", key.as_i64());
        self.run(sql, || "release a lock".to_owned()).await
    }

    /// Releases a lock that is held shared.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn unlock_shared(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock_shared({})", key.as_i64());
        self.run(sql, || "release a lock".to_owned()).await
    }

    async fn try_lock_in(&mut self, mode: Mode, key: LockKey) -> Result<bool, PgError> {
        let function = match mode {
            Mode::Shared => "pg_try_advisory_lock_shared",
            Mode::Exclusive => "pg_try_advisory_lock",
        };
        let sql = format!(
            "SELECT {function}({})::text AS acquired; {}",
            key.as_i64(),
            held_elsewhere(&[key], mode == Mode::Shared)
        );
        let rows = self.rows(sql, "take a lock").await?;
        if !rows.first().is_some_and(|row| is_true(row, "acquired")) {
            return Ok(false);
        }
        if !is_held_elsewhere(&rows) {
            return Ok(true);
        }
        match mode {
            Mode::Shared => self.unlock_shared(key).await?,
            Mode::Exclusive => self.unlock(key).await?,
        }
        Ok(false)
    }

    /// The sessions that hold a lock, in any database: application name, process id and client address of each.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn lock_holders(&mut self, key: LockKey) -> Result<Vec<String>, PgError> {
        let sql = format!(
            "SELECT concat_ws(' ', '`' || coalesce(a.application_name, '?') || '`', '(backend ' || l.pid || ')', \
               'on ' || a.client_addr::text) AS holder \
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE {}",
            held(&[key])
        );
        let rows = self.rows(sql, "list the holders of a lock").await?;
        rows.iter()
            .map(|row| row.try_get("holder"))
            .collect::<Result<_, _>>()
            .context(|| "list the holders of a lock".to_owned())
    }

    /// Ends the other sessions that hold this lock shared, in any database. Those of another role are left alone.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn end_shared_holders(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!(
            "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE {} AND l.mode = 'ShareLock' AND a.pid <> pg_backend_pid() AND pg_has_role(a.usesysid, 'USAGE')",
            held(&[key])
        );
        self.run(sql, || "end the sessions that hold a lock".to_owned())
            .await
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Shared,
    Exclusive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_no_half_is_negative() {
        let namespace = Namespace::new("app").expect("valid");
        let runs =
            ["000000000000001", "000000000000002"].map(|r| r.parse::<RunId>().expect("valid"));
        let keys = [
            LockKey::build(),
            LockKey::run(&namespace, &runs[0]),
            LockKey::run(&namespace, &runs[1]),
        ];
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
        for key in keys {
            let number = key.as_i64();
            assert!(number >= 0);
            assert!((number & 0xffff_ffff) <= i64::from(i32::MAX));
        }
    }
}
