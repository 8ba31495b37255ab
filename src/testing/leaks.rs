//! What a test leaves open on its database: connections of its pool that were not given back, pools of its own that were not
//! closed, transactions.
//!
//! A test that leaves nothing pays one round trip for a function that reads shared memory. What is found is looked at again for a
//! moment, because connections come back to a pool, and backends go, a little after they were dropped. It only looks: a crash in
//! the middle leaves what a crash of the test leaves.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::TestDb;
use super::identity::test_name;
use crate::driver::{SharedPool, Taken, Version};

/// How long something may stay open before it counts as left open.
const MOMENT: Duration = Duration::from_millis(150);
/// And how often it is looked at, at least: on a busy machine a process may sleep for longer than that moment.
const LOOKS: usize = 10;
/// How long most of what is on its way takes; who is still there then is looked at less often.
const SETTLED: Duration = Duration::from_millis(10);
/// The shortest time that a timer knows: for less, a connection that is on its way back is waited for without sleeping.
const TICK: Duration = Duration::from_millis(1);
/// Most characters of a query that are shown.
const QUERY: usize = 120;

/// How many backends are on this database, of whatever kind. Reads no table, so a session's first one takes half a millisecond at
/// most; the view `pg_stat_activity` takes five.
const COUNT: &str =
    "SELECT pg_stat_get_db_numbackends(datid)::text FROM pg_stat_get_activity(pg_backend_pid())";

/// The clients on this database but ourselves. Of other roles' sessions we may not see the kind; only clients have a user.
const SESSIONS: &str = "SELECT coalesce(a.state, 'connected'), a.application_name, \
     (extract(epoch FROM clock_timestamp() - coalesce(a.state_change, a.backend_start)) * 1000)::int8::text, a.query \
     FROM pg_stat_get_activity(NULL) a JOIN pg_stat_get_activity(pg_backend_pid()) me ON a.datid = me.datid AND a.pid <> me.pid \
     WHERE a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend' ORDER BY a.backend_start";

/// Where is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// At all sessions of the database: it is the test's alone.
    Database,
    /// At the test's pool only: others use the database too, or a pooler has sessions of its own there.
    Pool,
}

/// What is open.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Connections of the test's pool that it has not given back.
    held: usize,
    /// All sessions but the idle ones of the test's pool, as far as they are known.
    sessions: Vec<Session>,
}

/// A session that is open.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    /// `idle`, `active`, `idle in transaction` and so on.
    state: String,
    application: String,
    /// How long it has been in that state.
    since: Duration,
    /// The query it runs, or ran last.
    query: String,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many connections: those that were not given back are among the sessions, once these are known.
    fn count(&self) -> usize {
        self.sessions.len().max(self.held)
    }
}

/// What was found, and the connection that it was found with.
struct Found {
    open: Open,
    asked: Option<Box<dyn Taken>>,
}

/// Looks until nothing is open, but only for a moment.
async fn look(pool: &impl SharedPool, scope: Scope) -> Found {
    let begun = Instant::now();
    let mut asked = None;
    // How large the pool was when the server had nobody else.
    let mut alone = None;
    for looks in 1.. {
        if asked.is_none() {
            asked = pool.try_take();
        }
        if alone != Some(pool.size()) {
            // First the question: meanwhile others come back.
            alone = ask(pool, scope, asked.as_deref_mut()).await;
        }
        if alone == Some(pool.size()) && held(pool, asked.is_some()) == 0 {
            let open = Open::default();
            return Found { open, asked };
        }
        let elapsed = begun.elapsed();
        if elapsed > SETTLED {
            // Nobody's: what remains on the server then is what somebody has.
            pool.close_idle().await;
        }
        if elapsed > MOMENT && looks >= LOOKS {
            break;
        }
        match (asked.is_none() || alone.is_some(), elapsed) {
            // On the way back: a round trip, for which the server needs a processor too.
            (true, elapsed) if elapsed < TICK => {
                std::thread::yield_now();
                tokio::task::yield_now().await;
            }
            (_, elapsed) if elapsed < SETTLED => tokio::time::sleep(TICK).await,
            _ => tokio::time::sleep(SETTLED).await,
        }
    }
    let sessions = match (scope, asked.as_deref_mut()) {
        (Scope::Database, Some(asked)) => sessions(asked).await,
        _ => Vec::new(),
    };
    let held = held(pool, asked.is_some());
    let open = Open { held, sessions };
    Found { open, asked }
}

/// Gives back the connection that asked, and lets it arrive: on its way it would count as in use.
async fn give_back(pool: &impl SharedPool, asked: Box<dyn Taken>) {
    let idle = pool.num_idle();
    drop(asked);
    let begun = Instant::now();
    while pool.num_idle() <= idle && begun.elapsed() < SETTLED {
        tokio::task::yield_now().await;
    }
}

/// How many of the pool's connections are in use, but for the one that asks.
fn held(pool: &impl SharedPool, asks: bool) -> usize {
    (pool.size() as usize).saturating_sub(pool.num_idle() + usize::from(asks))
}

/// How large the pool is, if nobody else is on the database.
async fn ask(
    pool: &impl SharedPool,
    scope: Scope,
    asked: Option<&mut (dyn Taken + 'static)>,
) -> Option<u32> {
    let size = pool.size();
    match (scope, asked) {
        (Scope::Pool, _) => Some(size),
        // Its connections were closed for want of tokens: opening one for this would be at the cost of a test that works.
        (Scope::Database, None) => (size == 0).then_some(0),
        (Scope::Database, Some(asked)) => match asked.texts(COUNT).await {
            Ok(rows) => {
                let count = rows.first().and_then(|row| row.first()?.as_ref());
                count.and_then(|n| n.parse().ok()).filter(|n| *n == size)
            }
            // Nobody is there who could be asked; the server's log says why.
            Err(_) => Some(size),
        },
    }
}

async fn sessions(asked: &mut dyn Taken) -> Vec<Session> {
    let rows = asked.texts(SESSIONS).await.unwrap_or_default();
    rows.into_iter().filter_map(session).collect()
}

fn session(row: Vec<Option<String>>) -> Option<Session> {
    let mut columns = row.into_iter().map(Option::unwrap_or_default);
    Some(Session {
        state: columns.next()?,
        application: columns.next()?,
        since: Duration::from_millis(columns.next()?.parse().unwrap_or(0)),
        query: columns.next()?,
    })
}

/// What the test is told: who, how many, each one, and what to do.
fn told(open: &Open, test: &str, database: &str) -> String {
    let count = open.count();
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!(
        "the test `{test}` left {count} connection{plural} open on its database `{database}`"
    );
    if open.held > 0 {
        let _ = write!(text, "; {} of its own pool", open.held);
    }
    for session in &open.sessions {
        let _ = write!(text, "\n  {session}");
    }
    text.push_str("\nawait what you spawned, drop what you acquired, end what you began, and close pools of your own");
    text
}

impl std::fmt::Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {:.1} s", self.state, self.since.as_secs_f64())?;
        if !self.application.is_empty() {
            write!(f, ", application `{}`", self.application)?;
        }
        if !self.query.is_empty() {
            write!(f, ", query: {}", shortened(&self.query))?;
        }
        Ok(())
    }
}

/// On one line, and not too long a one.
fn shortened(query: &str) -> String {
    let words: Vec<&str> = query.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(QUERY) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl<V: Version> TestDb<V> {
    fn scope(&self) -> Scope {
        let through_a_pooler = self.session.file.admin.is_some();
        if self.claim.is_some() && !through_a_pooler {
            Scope::Database
        } else {
            Scope::Pool
        }
    }

    /// What the test left open, if anything, in words.
    pub(super) async fn left_open(&self) -> Option<String> {
        let mut found = look(&self.pool, self.scope()).await;
        if found.open.is_empty() {
            if let Some(asked) = found.asked {
                asked.close().await;
            }
            return None;
        }
        if found.asked.is_none() && self.scope() == Scope::Database {
            self.describe(&mut found.open).await;
        }
        Some(told(&found.open, &test_name(), self.name()))
    }

    /// Where all connections are held, another one says by whom; not where connections are few.
    async fn describe(&self, open: &mut Open) {
        if !self.session.file.connections.reserved {
            return;
        }
        let mut settings = self.session.pool_settings(&self.hold);
        settings.connections = 1;
        let pool = V::open(V::pool_options(&settings), self.connect_options()).await;
        let Ok(pool) = pool else { return };
        if let Some(mut asked) = pool.try_take() {
            open.sessions = sessions(asked.as_mut()).await;
            asked.close().await;
        }
    }

    /// How many connections to the database are in use: taken from the pool and not given back, or of anybody else's pool. On the
    /// shared clone, and through a pooler, only the pool's own are counted.
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
    /// The server cannot be asked.
    pub async fn active_connections(&self) -> Result<usize, super::TestDbError> {
        let failed = |source| super::TestDbError::Connect {
            database: self.name().to_owned(),
            source,
        };
        let in_use = |idle: usize| (self.pool.size() as usize).saturating_sub(idle);
        if self.scope() == Scope::Pool {
            return Ok(in_use(self.pool.num_idle()));
        }
        let mut asked = self.pool.take().await.map_err(failed)?;
        let others = asked.texts(SESSIONS).await.map_err(failed)?;
        let count = others.len().saturating_sub(self.pool.num_idle());
        give_back(&self.pool, asked).await;
        Ok(count)
    }

    /// Asserts that no connection to the database is in use; what was dropped just now is waited for, for a moment. What is counted:
    /// see [`Self::active_connections`].
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
    /// Where there are some, with each one's state, age and query.
    pub async fn assert_no_connections(&self) {
        let mut found = look(&self.pool, self.scope()).await;
        if found.asked.is_none() && !found.open.is_empty() {
            self.describe(&mut found.open).await;
        }
        if let Some(asked) = found.asked {
            give_back(&self.pool, asked).await;
        }
        if !found.open.is_empty() {
            panic!("{}", told(&found.open, &test_name(), self.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(state: &str, application: &str, millis: u64, query: &str) -> Session {
        Session {
            state: state.to_owned(),
            application: application.to_owned(),
            since: Duration::from_millis(millis),
            query: query.to_owned(),
        }
    }

    #[test]
    fn each_session_is_told_with_state_age_and_query() {
        let open = Open {
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
            told(&open, "pays", "app_clone_x"),
            "the test `pays` left 2 connections open on its database `app_clone_x`; 1 of its own pool\n  \
             idle in transaction for 1.2 s, application `pays`, query: UPDATE orders SET paid = true\n  \
             idle for 0.0 s\n\
             await what you spawned, drop what you acquired, end what you began, and close pools of your own"
        );
    }

    #[test]
    fn what_nobody_could_describe_is_counted() {
        let open = Open {
            held: 1,
            sessions: Vec::new(),
        };
        let text = told(&open, "pays", "app_clone_x");
        assert!(text.starts_with("the test `pays` left 1 connection open on its database `app_clone_x`; 1 of its own pool\n"), "{text}");
    }

    #[test]
    fn long_queries_are_shortened_between_characters() {
        let long = "ä ".repeat(200);
        let short = shortened(&long);
        assert_eq!(short.chars().count(), QUERY + 1);
        assert!(short.ends_with('…'), "{short}");
        assert_eq!(shortened("SELECT\n\t1"), "SELECT 1");
    }
}
