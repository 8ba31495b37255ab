//! The statements of a sandbox, for any version of sqlx. A sandbox is a pool of one connection, whose outer transaction is already open and
//! is never committed.
//!
//! sqlx counts the nesting depth of a connection's transactions. The outer transaction has depth 1. Two guard savepoints, which have the
//! names of sqlx's own first savepoints, have depths 2 and 3, so a `begin` of the application is a savepoint within them. After a `begin`
//! that failed or was cancelled, sqlx rolls back one level too many (0.8), or two (0.9). This hits a guard savepoint, and not the
//! outer transaction. The mark ([`SET_MARK`]) is the innermost savepoint. When the connection returns, one round trip releases the guard
//! savepoints and the mark, and sets them again ([`KEEP_AND_PREPARE`]): the work of the acquire stays in the outer transaction, savepoints
//! do not accumulate, and the next acquire costs nothing.
//!
//! Opening a sandbox is one round trip: the guard savepoints are set when the connection returns for the first time. Until then only the
//! work of that first acquire can be lost; then the sandbox begins again.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::sqlx_compat::PoolObserver;

/// Sets the mark, the savepoint of an acquire. If it is gone when the connection returns, something rolled back to a guard savepoint, or
/// ended the transaction.
pub const SET_MARK: &str = "SAVEPOINT kapsel_testdb";
/// Keeps the work of the first acquire.
pub const KEEP_FIRST: &str = "RELEASE SAVEPOINT kapsel_testdb";
/// Keeps the work of an acquire, and prepares for the next one.
pub const KEEP_AND_PREPARE: &str = "RELEASE SAVEPOINT kapsel_testdb; RELEASE SAVEPOINT _sqlx_savepoint_1; \
     SAVEPOINT _sqlx_savepoint_1; SAVEPOINT _sqlx_savepoint_2; SAVEPOINT kapsel_testdb";
/// Undoes the work of the acquire. The savepoints stay.
pub const UNDO: &str = "ROLLBACK TO SAVEPOINT kapsel_testdb";
/// The same when the mark is gone. Also releases the guard savepoint to which sqlx rolled back, because sqlx does not count it any more:
/// the inner one, or, if the first of these statements fails, the outer one.
pub const UNDO_TO_GUARD: [&str; 2] = [
    "ROLLBACK TO SAVEPOINT _sqlx_savepoint_2; RELEASE SAVEPOINT _sqlx_savepoint_2",
    "ROLLBACK TO SAVEPOINT _sqlx_savepoint_1; RELEASE SAVEPOINT _sqlx_savepoint_1",
];
/// Sets the outcome marker: a setting disappears if its transaction is rolled back, and stays if it is committed or prepared. Only VACUUM and
/// ANALYZE read this one, and only if `vacuum_cost_delay` is set. (A custom setting costs a session 0.12 ms for the check who may set it;
/// the transaction's id, which would be more precise, costs 0.2 ms for the lookup of functions.)
pub const SET_OUTCOME_MARKER: &str = "SET vacuum_cost_page_dirty = 1313";
/// The outcome of the outer transaction, after it has ended.
pub const OUTCOME: &str = "SELECT CASE WHEN current_setting('vacuum_cost_page_dirty') <> '1313' THEN 'rolled back' \
     WHEN EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database() AND prepared >= \
         (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())) THEN 'prepared' ELSE 'committed' END";
/// After the outer transaction has ended, the session cannot write.
const READ_ONLY: (&str, &str) = ("default_transaction_read_only", "on");
/// A timeout of the server or role must not end the transaction while the test does something else.
const NEVER_IDLE: (&str, &str) = ("idle_in_transaction_session_timeout", "0");
const LOCK_TIMEOUT: &str = "lock_timeout";

/// The database of any further connection of the pool. It cannot exist, and its name appears in the server's error, at most 63 bytes of it.
/// (The pool opens another connection if its only one is gone. On the shared clone that would be a second, empty sandbox.)
pub const NO_SECOND_CONNECTION: &str =
    "no second connection in a sandbox; use isolation = database";

/// The settings of a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// How long an acquire waits for the connection.
    pub acquire_timeout: Duration,
    /// How long a statement waits for another test's lock. Zero means forever.
    pub lock_timeout: Duration,
    /// Whether settings may be part of the session's start, where they cost nothing and make the session read-only outside of the
    /// transaction. A pooler refuses them.
    pub protected: bool,
    /// Is notified when the connection returns.
    pub observer: Arc<dyn PoolObserver>,
    /// Is notified of events of the sandbox.
    pub sandbox: Arc<dyn SandboxObserver>,
}

impl SandboxSettings {
    /// The settings of the session's start.
    pub fn startup(&self) -> Vec<(&'static str, String)> {
        if !self.protected {
            return Vec::new();
        }
        let settings = [READ_ONLY, NEVER_IDLE].map(|(name, value)| (name, value.to_owned()));
        let mut settings = settings.to_vec();
        settings.push((LOCK_TIMEOUT, self.lock_timeout.as_millis().to_string()));
        settings
    }

    /// The statements that open the outer transaction and set the mark.
    pub fn begin(&self, server_version: Option<u32>) -> String {
        let mut sql = "BEGIN READ WRITE; ".to_owned();
        if !self.protected {
            let (idle, never) = NEVER_IDLE;
            let timeout = self.lock_timeout.as_millis();
            let _ = write!(
                sql,
                "SET LOCAL {idle} = {never}; SET LOCAL {LOCK_TIMEOUT} = {timeout}; "
            );
        }
        if server_version.is_some_and(|version| version >= 170_000) {
            sql.push_str("SET LOCAL transaction_timeout = 0; ");
        }
        sql.push_str(SET_OUTCOME_MARKER);
        sql.push_str("; ");
        sql.push_str(SET_MARK);
        sql
    }
}

/// Is notified of events of a sandbox.
pub trait SandboxObserver: Debug + Send + Sync + 'static {
    /// The server starts the session, which takes milliseconds: time to prepare what the first acquire needs.
    fn opening(&self);
    /// The application has acquired the connection. Called on the stack of the code that acquires.
    fn acquired(&self);
    /// The application has returned the connection; its work is about to be kept.
    fn returning(&self);
    /// The server refused that; the cause is being determined.
    fn settling(&self);
    /// The connection is in the pool again, ready for the next acquire.
    fn returned(&self);
    /// The work of the acquire was undone, because sqlx rolled back after a `begin` that failed or was cancelled.
    fn undone(&self);
    /// The sandbox was lost.
    fn lost(&self, loss: Loss);
}

/// How a sandbox was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// A raw `COMMIT` committed its transaction.
    Committed,
    /// A raw `ROLLBACK`, or a raw `COMMIT` after an error, rolled its transaction back.
    RolledBack,
    /// `PREPARE TRANSACTION` ended its transaction.
    Prepared,
    /// sqlx rolled it back, after `begin` failed or was cancelled several times on one connection.
    Begin,
    /// The connection broke, or the server ended it.
    Broken(String),
    /// The connection was taken out of the pool: `detach`, `close` or `close_on_drop`.
    Detached,
    /// Another error of the server.
    Unknown(String),
}
