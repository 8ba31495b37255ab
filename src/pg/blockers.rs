//! Who holds the lock that a session waits for.

use sqlx::{PgConnection, Row};

use super::error::{Doing, PgError};
use super::sql::literal;
use crate::driver::own;

/// A session that holds a lock, or waits for it in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The server's process.
    pub pid: i32,
    /// What it calls itself: in our pools the test's name.
    pub application: Option<String>,
    /// What the waiting session is about to do.
    pub statement: String,
}

impl Blocker {
    /// Who that is, for a person.
    pub fn name(&self) -> String {
        match self.application.as_deref() {
            Some("") => format!("the session {}", self.pid),
            Some(name) => format!("`{name}`"),
            None => "a prepared transaction".to_owned(),
        }
    }
}

/// Who keeps sessions of that application's on this database waiting; nobody where none waits for a lock.
///
/// # Errors
/// The server refuses, or is gone.
pub async fn blockers(
    session: &mut PgConnection,
    application: &str,
) -> Result<Vec<Blocker>, PgError> {
    let sql = format!(
        "SELECT by, holder.application_name, left(waiting.query, 200) FROM pg_stat_activity waiting \
         CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocking(by) LEFT JOIN pg_stat_activity holder ON holder.pid = by \
         WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock' AND waiting.application_name = {}",
        literal(application)
    );
    let doing = || format!("ask who keeps `{application}` waiting");
    let rows = own::rows(session, &sql).await;
    let blocker = |row: &sqlx::postgres::PgRow| {
        Ok(Blocker {
            pid: row.try_get(0)?,
            application: row.try_get(1)?,
            statement: row.try_get(2)?,
        })
    };
    let rows: Result<_, sqlx::Error> = rows.and_then(|rows| rows.iter().map(blocker).collect());
    rows.doing(doing)
}
