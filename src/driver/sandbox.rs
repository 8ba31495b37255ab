//! A sandbox, whatever the version of sqlx: a pool of one connection whose outer transaction is already open and never committed.
//!
//! sqlx counts how deep in transactions a connection is. The outer transaction is 1; two cushions, which are sqlx's own first
//! savepoints, are 2 and 3, so that a `begin` of the application is a savepoint within them. For a `begin` that fails or is cancelled sqlx
//! rolls back one level *below* the one that it wanted (0.8), or two (0.9): that is a cushion then, and not the outer transaction. The
//! [`MARK`] is set last. When the connection comes back, one round trip releases cushions and mark and sets them anew ([`NEXT`]): what
//! the acquire did stays in the outer transaction, no savepoint is left over, and the next acquire costs nothing.
//!
//! Opening it is one round trip: the cushions are set when the connection comes back for the first time. Until then there is nothing to
//! lose but what that acquire has done itself, and the sandbox begins again.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::time::Duration;

use super::PoolObserver;

/// The savepoint of an acquire. Gone when the connection comes back: something rolled back to a cushion, or to nothing at all.
pub const MARK: &str = "SAVEPOINT kapsel_testdb";
/// Keeps what the first acquire did.
pub const FIRST: &str = "RELEASE SAVEPOINT kapsel_testdb";
/// Keeps what an acquire did, and prepares for the next one.
pub const NEXT: &str = "RELEASE SAVEPOINT kapsel_testdb; RELEASE SAVEPOINT _sqlx_savepoint_1; \
     SAVEPOINT _sqlx_savepoint_1; SAVEPOINT _sqlx_savepoint_2; SAVEPOINT kapsel_testdb";
/// Undoes what the acquire did; the savepoints stay.
pub const UNDO: &str = "ROLLBACK TO SAVEPOINT kapsel_testdb";
/// Undoes it where the mark is gone, and takes away the cushion to which sqlx has rolled back, and of which it believes that it is gone:
/// the upper one, else (with the first of these failing) the lower one.
pub const UNDO_TO_CUSHION: [&str; 2] = [
    "ROLLBACK TO SAVEPOINT _sqlx_savepoint_2; RELEASE SAVEPOINT _sqlx_savepoint_2",
    "ROLLBACK TO SAVEPOINT _sqlx_savepoint_1; RELEASE SAVEPOINT _sqlx_savepoint_1",
];
/// A setting that is made in a transaction is gone when that is rolled back, and stays when it is committed or prepared. This one only
/// VACUUM and ANALYZE read, and only where `vacuum_cost_delay` is set. (One of a name of our own costs a session 0.12 ms for looking up who may set it, and
/// the transaction's id, which would tell more, 0.2 ms for looking up functions.)
pub const SIGN: &str = "SET vacuum_cost_page_dirty = 1313";
/// What became of the outer transaction, once the session is not in it any more.
pub const FATE: &str = "SELECT CASE WHEN current_setting('vacuum_cost_page_dirty') <> '1313' THEN 'rolled back' \
     WHEN EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database() AND prepared >= \
         (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())) THEN 'prepared' ELSE 'committed' END";
/// What a session of a sandbox does not do outside of its transaction, where it was ended: write.
const READ_ONLY: (&str, &str) = ("default_transaction_read_only", "on");
/// A time-out that a server or role may have would end the transaction while the test does something else.
const NEVER_IDLE: (&str, &str) = ("idle_in_transaction_session_timeout", "0");
const LOCK_TIMEOUT: &str = "lock_timeout";

/// What another connection of the pool's would be opened on: a database that cannot be, so that the server's error says why. (The pool
/// has one connection; it opens another where that one is gone. On the shared clone that would be a second, empty sandbox.)
pub const NO_SECOND: &str = "no second connection in a sandbox; isolation = database has";

/// What a sandbox is like.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// How long an acquire waits while the connection is in use.
    pub acquire_timeout: Duration,
    /// How long a statement waits for another test's lock; zero for ever.
    pub lock_timeout: Duration,
    /// Whether the session's settings may come with its start, where they cost nothing, and may say that it is read-only outside of the
    /// transaction. A pooler refuses them there.
    pub protected: bool,
    /// Is told when the connection is given back.
    pub observer: Arc<dyn PoolObserver>,
    /// Is told what happens to the sandbox.
    pub sandbox: Arc<dyn SandboxObserver>,
}

impl SandboxSettings {
    /// The session's settings.
    pub fn startup(&self) -> Vec<(&'static str, String)> {
        if !self.protected {
            return Vec::new();
        }
        let settings = [READ_ONLY, NEVER_IDLE].map(|(name, value)| (name, value.to_owned()));
        let mut settings = settings.to_vec();
        settings.push((LOCK_TIMEOUT, self.lock_timeout.as_millis().to_string()));
        settings
    }

    /// Opens the outer transaction, and sets the mark.
    pub fn begin(&self, server_version: Option<u32>) -> String {
        let mut sql = "BEGIN READ WRITE; ".to_owned();
        if !self.protected {
            let (idle, never) = NEVER_IDLE;
            let patience = self.lock_timeout.as_millis();
            let _ = write!(
                sql,
                "SET LOCAL {idle} = {never}; SET LOCAL {LOCK_TIMEOUT} = {patience}; "
            );
        }
        if server_version.is_some_and(|version| version >= 170_000) {
            sql.push_str("SET LOCAL transaction_timeout = 0; ");
        }
        sql.push_str(SIGN);
        sql.push_str("; ");
        sql.push_str(MARK);
        sql
    }
}

/// Is told what happens to a sandbox.
pub trait SandboxObserver: Debug + Send + Sync + 'static {
    /// The server starts a session for it, which takes it milliseconds: there is time for what the first acquire would have to wait for.
    fn opening(&self);
    /// The application has its connection. Called on the stack of whoever acquires.
    fn acquired(&self);
    /// The application has given it back; what it did is about to be kept.
    fn returning(&self);
    /// The server refused that; now it is found out what there is to keep.
    fn settling(&self);
    /// The connection is back, and ready for the next acquire.
    fn returned(&self);
    /// What the acquire had done was undone, because sqlx rolled back for a `begin` that failed or was cancelled.
    fn undone(&self);
    /// The sandbox is over.
    fn lost(&self, loss: Loss);
}

/// What ends a sandbox before its test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Its transaction was committed: by a raw `COMMIT`.
    Committed,
    /// Its transaction was rolled back: by a raw `ROLLBACK`, or a raw `COMMIT` after an error.
    RolledBack,
    /// Its transaction was prepared.
    Prepared,
    /// sqlx rolled it back, after `begin` had failed or been cancelled again and again on one connection.
    Begin,
    /// The connection broke, or the server ended it.
    Broken(String),
    /// The connection was taken out of the pool: `detach`, `close` or `close_on_drop`.
    Taken,
    /// Something else that the server said.
    Unknown(String),
}
