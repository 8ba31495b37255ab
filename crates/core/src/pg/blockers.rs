//! Finds the sessions that hold a lock that another session waits for.

use sqlx::Row;

use crate::pg::error::{Context, PgError};
use crate::pg::session::{STATEMENT_LIMIT, Session};
use crate::pg::sql::literal;

/// A session that holds a lock, or waits for it ahead of the blocked session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Process id of the backend.
    pub pid: i32,
    /// Its `application_name`: the test's name in our pools.
    pub application: Option<String>,
    /// The statement of the blocked session.
    pub statement: String,
}

impl Blocker {
    /// The blocker for output.
    pub fn name(&self) -> String {
        match self.application.as_deref() {
            Some("") => format!("the session {}", self.pid),
            Some(name) => format!("`{name}`"),
            None => "a prepared transaction".to_owned(),
        }
    }
}

/// The sessions that block sessions of `application` on this database. Empty if none waits for a lock.
///
/// # Errors
/// The statement failed.
pub async fn blockers(session: &mut Session, application: &str) -> Result<Vec<Blocker>, PgError> {
    let sql = format!(
        "SELECT by, holder.application_name, left(waiting.query, 200) FROM pg_stat_activity waiting \
         CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocking(by) LEFT JOIN pg_stat_activity holder ON holder.pid = by \
         WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock' AND waiting.application_name = {}",
        literal(application)
    );
    let context = || format!("list the sessions that block `{application}`");
    let rows = session.rows(&sql, STATEMENT_LIMIT, context).await?;
    let blocker = |row: &sqlx::postgres::PgRow| {
        Ok(Blocker {
            pid: row.try_get(0)?,
            application: row.try_get(1)?,
            statement: row.try_get(2)?,
        })
    };
    let blockers: Result<_, sqlx::Error> = rows.iter().map(blocker).collect();
    blockers.context(context)
}
