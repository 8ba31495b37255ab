//! Finds leaks: connections that a test did not return to its pool, pools that it did not close, and open transactions.
//!
//! A test without leaks pays one round trip, for a function that reads shared memory. A finding is checked again for a short time, because a
//! dropped connection returns to its pool a little later, and so does a closed backend end. A leak is recorded in the run directory. The
//! module only reads on the server, so a crash at any point leaves the same as a crash of the test.

use std::fmt::Write;
use std::time::{Duration, Instant};

use kapsel_testdb_core::pg::sql::is_client;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{Leak, LeakedSession};
use kapsel_testdb_core::recycle::TextRow;

use crate::db::{FoundLeak, LeakCheck};
use crate::identity::{self, test_name};
use crate::lease::Lease;
use crate::sqlx_compat::{PooledConnection, SharedPool, Version};
use crate::{TestDb, TestDbError};

/// How long a connection may stay open after the test before it counts as a leak.
const GRACE: Duration = Duration::from_millis(150);
/// The minimum number of checks: on a busy machine one sleep may take longer than [`GRACE`].
const MIN_CHECKS: usize = 10;
/// Most connections have returned by then; after that, checks are less frequent.
const SETTLED: Duration = Duration::from_millis(10);
/// The resolution of timers. For a shorter time, the check polls without sleeping.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);
/// The maximum number of characters of a query in a message.
const MAX_QUERY_CHARS: usize = 120;

/// The number of backends of any kind on this database: if it equals the size of the pool, no other client is there. It reads no table, so the
/// first one of a session takes at most half a millisecond; the view `pg_stat_activity` takes five.
const BACKEND_COUNT: &str =
    "SELECT pg_stat_get_db_numbackends(datid)::text FROM pg_stat_get_activity(pg_backend_pid())";

/// The client sessions on this database, as `a`. Background workers and replication connections are no leaks.
fn from_clients() -> String {
    format!(
        "FROM pg_stat_get_activity(NULL) a JOIN pg_stat_get_activity(pg_backend_pid()) me ON a.datid = me.datid WHERE {}",
        is_client("a")
    )
}

/// The number of client sessions on this database.
fn client_count() -> String {
    format!("SELECT count(*)::text {}", from_clients())
}

/// The other client sessions on this database.
fn other_clients() -> String {
    format!(
        "SELECT coalesce(a.state, 'connected'), a.application_name, \
         (extract(epoch FROM clock_timestamp() - coalesce(a.state_change, a.backend_start)) * 1000)::int8::text, a.query \
         {} AND a.pid <> me.pid ORDER BY a.backend_start",
        from_clients()
    )
}

/// The sessions that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeakScope {
    /// All sessions of the database: it belongs to the test.
    Database,
    /// Only the test's pool: other tests use the database too, or a pooler has sessions there.
    Pool,
}

/// The open connections of a test.
#[derive(Debug, Default, PartialEq, Eq)]
struct OpenConnections {
    /// Connections of the test's pool that were not returned.
    held: usize,
    /// All sessions except the idle ones of the test's pool, if they are known.
    sessions: Vec<LeakedSession>,
}

impl OpenConnections {
    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The number of connections. If the sessions are known, they include the connections that were not returned.
    fn count(&self) -> usize {
        self.sessions.len().max(self.held)
    }
}

/// The result of a check, and the connection that the check used.
struct LeakFinding {
    open: OpenConnections,
    checker: Option<Box<dyn PooledConnection>>,
}

/// Checks until nothing is open, but not longer than [`GRACE`].
async fn find_leaks(pool: &impl SharedPool, scope: LeakScope) -> LeakFinding {
    let begun = Instant::now();
    let mut checker = None;
    // The size of the pool when the server had no other session on the database.
    let mut alone = None;
    for checks in 1.. {
        if checker.is_none() {
            checker = pool.try_acquire();
        }
        if alone != Some(pool.size()) {
            // The query comes first: connections return while it runs.
            alone = size_if_alone(pool, scope, checker.as_deref_mut()).await;
        }
        if alone == Some(pool.size()) && held(pool, checker.is_some()) == 0 {
            let open = OpenConnections::default();
            return LeakFinding { open, checker };
        }
        let elapsed = begun.elapsed();
        if elapsed > SETTLED {
            // Idle connections are no leak. The sessions that remain on the server are in use.
            pool.close_idle().await;
        }
        if elapsed > GRACE && checks >= MIN_CHECKS {
            break;
        }
        match (checker.is_none() || alone.is_some(), elapsed) {
            // A returning connection makes a round trip, for which the server needs the processor too.
            (true, elapsed) if elapsed < TIMER_RESOLUTION => {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            (_, elapsed) if elapsed < SETTLED => tokio::time::sleep(TIMER_RESOLUTION).await,
            _ => tokio::time::sleep(SETTLED).await,
        }
    }
    let sessions = match (scope, checker.as_deref_mut()) {
        (LeakScope::Database, Some(checker)) => sessions(checker).await,
        _ => Vec::new(),
    };
    let held = held(pool, checker.is_some());
    let open = OpenConnections { held, sessions };
    LeakFinding { open, checker }
}

/// Returns the connection that the check used, and waits until it is idle: on its way it would count as in use.
async fn return_checker(pool: &impl SharedPool, checker: Box<dyn PooledConnection>) {
    let idle = pool.num_idle();
    drop(checker);
    let begun = Instant::now();
    while pool.num_idle() <= idle && begun.elapsed() < SETTLED {
        tokio::task::yield_now().await;
    }
}

/// The number of the pool's connections that are in use, without the one that the check uses.
fn held(pool: &impl SharedPool, has_checker: bool) -> usize {
    (pool.size() as usize).saturating_sub(pool.num_idle() + usize::from(has_checker))
}

/// The size of the pool, if no other session is on the database.
async fn size_if_alone(
    pool: &impl SharedPool,
    scope: LeakScope,
    checker: Option<&mut (dyn PooledConnection + 'static)>,
) -> Option<u32> {
    let size = pool.size();
    match (scope, checker) {
        (LeakScope::Pool, _) => Some(size),
        // The pool has no idle connection. Opening one for the check could take a connection slot from another test.
        (LeakScope::Database, None) => (size == 0).then_some(0),
        (LeakScope::Database, Some(checker)) => match is_alone(checker, size).await {
            Ok(alone) => alone.then_some(size),
            // The server does not answer; its log has the reason.
            Err(_) => Some(size),
        },
    }
}

/// Whether the database has as many client sessions as the pool has connections.
async fn is_alone(checker: &mut dyn PooledConnection, size: u32) -> sqlx::Result<bool> {
    let is_size = |rows: Vec<TextRow>| {
        let count = rows.first().and_then(|row| row.first()?.as_ref());
        count.and_then(|n| n.parse().ok()) == Some(size)
    };
    Ok(is_size(checker.texts(BACKEND_COUNT).await?)
        || is_size(checker.texts(&client_count()).await?))
}

async fn sessions(checker: &mut dyn PooledConnection) -> Vec<LeakedSession> {
    let rows = checker.texts(&other_clients()).await.unwrap_or_default();
    rows.into_iter().filter_map(parse_session).collect()
}

fn parse_session(row: Vec<Option<String>>) -> Option<LeakedSession> {
    let mut columns = row.into_iter().map(Option::unwrap_or_default);
    Some(LeakedSession {
        state: columns.next()?,
        application: columns.next()?,
        since_ms: columns.next()?.parse().unwrap_or(0),
        query: shorten(&columns.next()?),
    })
}

/// The message: the test, the number of connections, each session, and the remedy.
fn leak_message(open: &OpenConnections, test: &str, database: &str) -> String {
    let connections = count(open.count(), "connection");
    let mut text =
        format!("the test `{test}` left {connections} open on its database `{database}`");
    if open.held > 0 {
        let _ = write!(text, "; {} from the test's pool", open.held);
    }
    for session in &open.sessions {
        let _ = write!(text, "\n  {}", session_line(session));
    }
    text.push_str("\nawait spawned tasks, drop acquired connections, end transactions, and close your own pools");
    text
}

/// The state of a session, its age, its application and its query.
fn session_line(session: &LeakedSession) -> String {
    let since = Duration::from_millis(session.since_ms).as_secs_f64();
    let mut text = format!("{} for {since:.1} s", session.state);
    if !session.application.is_empty() {
        let _ = write!(text, ", application `{}`", session.application);
    }
    if !session.query.is_empty() {
        let _ = write!(text, ", query: {}", session.query);
    }
    text
}

/// The query on one line, with at most [`MAX_QUERY_CHARS`] characters.
fn shorten(query: &str) -> String {
    let words: Vec<&str> = query.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_QUERY_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl<V: Version> TestDb<V> {
    fn scope(&self, lease: &Lease) -> LeakScope {
        let through_a_pooler = self.session.file.admin.is_some();
        if matches!(lease, Lease::Clone(_)) && !through_a_pooler {
            LeakScope::Database
        } else {
            LeakScope::Pool
        }
    }

    /// Checks for connections that the test left open.
    pub(super) async fn check_for_leaks(&self, lease: &Lease) -> LeakCheck {
        let mut found = find_leaks(&self.pool, self.scope(lease)).await;
        if found.open.is_empty() {
            return LeakCheck {
                leak: None,
                connection: found.checker,
            };
        }
        if found.checker.is_none() && self.scope(lease) == LeakScope::Database {
            self.add_sessions(&mut found.open).await;
        }
        LeakCheck {
            leak: Some(FoundLeak {
                message: leak_message(&found.open, &test_name(), self.name()),
                record: Leak {
                    database: self.db_name.clone(),
                    claimant: identity::claimant(),
                    held: found.open.held,
                    sessions: found.open.sessions,
                },
                run_dir: self.session.dir().path().to_path_buf(),
            }),
            connection: None,
        }
    }

    /// If the test holds all connections of the pool, lists the sessions over another one. Not if the run has no reserved connection slots.
    async fn add_sessions(&self, open: &mut OpenConnections) {
        if !self.session.file.connections.reserved {
            return;
        }
        let mut settings = self.session.pool_settings(&self.permit);
        settings.connections = 1;
        let pool = V::open(V::pool_options(&settings), self.connect_options()).await;
        let Ok(pool) = pool else { return };
        if let Some(mut checker) = pool.try_acquire() {
            open.sessions = sessions(checker.as_mut()).await;
            checker.close().await;
        }
    }

    /// Returns the number of connections to the database that are in use: connections acquired from this pool, and all connections of
    /// other pools and programs. The server counts them (`pg_stat_get_activity`), without background workers and replication connections.
    /// On the shared clone, and through a pooler, only this pool's connections are counted.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let held = db.pool().acquire().await?;
    /// assert_eq!(db.active_connections().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TestDbError::Connect`] if the server does not answer.
    pub async fn active_connections(&self) -> Result<usize, TestDbError> {
        let failed = |source| TestDbError::Connect {
            database: self.name().to_owned(),
            source,
        };
        let in_use = |idle: usize| (self.pool.size() as usize).saturating_sub(idle);
        if self.scope(&self.lease) == LeakScope::Pool {
            return Ok(in_use(self.pool.num_idle()));
        }
        let mut checker = self.pool.acquire().await.map_err(failed)?;
        let others = checker.texts(&other_clients()).await.map_err(failed)?;
        let count = others.len().saturating_sub(self.pool.num_idle());
        return_checker(&self.pool, checker).await;
        Ok(count)
    }

    /// Asserts that no connection to the database is in use. Waits up to about 150 ms for connections that were dropped just
    /// before. [`Self::active_connections`] documents which connections count.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let application = sqlx::PgPool::connect_with(db.connect_options()).await?;
    /// application.close().await;
    /// db.assert_no_connections().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If a connection is in use. The message lists each one with its state, its age in seconds, and its query.
    pub async fn assert_no_connections(&self) {
        let mut found = find_leaks(&self.pool, self.scope(&self.lease)).await;
        if found.checker.is_none() && !found.open.is_empty() {
            self.add_sessions(&mut found.open).await;
        }
        if let Some(checker) = found.checker {
            return_checker(&self.pool, checker).await;
        }
        if !found.open.is_empty() {
            panic!("{}", leak_message(&found.open, &test_name(), self.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(state: &str, application: &str, since_ms: u64, query: &str) -> LeakedSession {
        LeakedSession {
            state: state.to_owned(),
            application: application.to_owned(),
            since_ms,
            query: shorten(query),
        }
    }

    #[test]
    fn the_message_lists_each_session_with_state_age_and_query() {
        let open = OpenConnections {
            held: 1,
            sessions: vec![
                session(
                    "idle in transaction",
                    "pays",
                    1250,
                    "UPDATE orders\n  SET paid = true",
                ),
                session("idle", "", 40, ""),
            ],
        };
        assert_eq!(
            leak_message(&open, "pays", "app_clone_x"),
            "the test `pays` left 2 connections open on its database `app_clone_x`; 1 from the test's pool\n  \
             idle in transaction for 1.2 s, application `pays`, query: UPDATE orders SET paid = true\n  \
             idle for 0.0 s\n\
             await spawned tasks, drop acquired connections, end transactions, and close your own pools"
        );
    }

    #[test]
    fn connections_without_known_sessions_are_counted() {
        let open = OpenConnections {
            held: 1,
            sessions: Vec::new(),
        };
        let text = leak_message(&open, "pays", "app_clone_x");
        assert!(text.starts_with("the test `pays` left 1 connection open on its database `app_clone_x`; 1 from the test's pool\n"), "{text}");
    }

    #[test]
    fn long_queries_are_shortened_between_characters() {
        let long = "ä ".repeat(200);
        let short = shorten(&long);
        assert_eq!(short.chars().count(), MAX_QUERY_CHARS + 1);
        assert!(short.ends_with('…'), "{short}");
        assert_eq!(shorten("SELECT\n\t1"), "SELECT 1");
    }
}
