//! Connects as tests do: two connections at once, each with a prepared statement.

use sqlx::{PgConnection, Row};

use crate::address::Address;
use crate::pg::connect::{RetryLimits, connect};
use crate::pg::error::{Context, PgError};
use crate::pg::session::{STATEMENT_LIMIT, close, within};

/// Result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Start time of the server that answered; it identifies the server.
    pub started_at: String,
    /// Whether prepared statements of two connections do not collide. Through a transaction pooler they may.
    pub prepared: bool,
}

/// Connects twice, as a test's pool does.
///
/// # Errors
/// A connection or the first statement failed.
pub async fn probe(address: &Address, database: &str) -> Result<ProbeResult, PgError> {
    let options = address
        .options(database)
        .application_name("kapsel-testdb doctor");
    let context = || format!("query PostgreSQL at `{address}` as a test does");
    let mut one = connect(address, &options, RetryLimits::RUNNING).await?;
    let mut other = connect(address, &options, RetryLimits::RUNNING).await?;
    let query = async {
        let row = sqlx::raw_sql(PROBE_SQL).fetch_one(&mut one).await;
        let started_at = row.and_then(|row| row.try_get(0)).context(context)?;
        // The first statement may collide with one that another program left in the pooler.
        let prepared = prepare(&mut one).await && prepare(&mut other).await;
        // A pooler keeps prepared statements for its next clients.
        let _ = sqlx::raw_sql("DEALLOCATE ALL").execute(&mut one).await;
        Ok::<_, PgError>(ProbeResult {
            started_at,
            prepared,
        })
    };
    let result = within(STATEMENT_LIMIT, address, context, query).await?;
    for connection in [one, other] {
        let _ = close(connection, address, context).await;
    }
    Ok(result)
}

const PROBE_SQL: &str = "SELECT pg_postmaster_start_time()::text";

async fn prepare(connection: &mut PgConnection) -> bool {
    sqlx::query(PROBE_SQL).fetch_one(connection).await.is_ok()
}
