//! Takes the way that tests take: two connections at once, each with a prepared statement.

use sqlx::{Connection, PgConnection, Row};

use super::address::Address;
use super::connect::{Patience, connect};
use super::error::{Doing, PgError};

/// What the way to a server is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// When the server at its end started: tells one from another.
    pub started_at: String,
    /// Whether prepared statements of two connections keep apart. A transaction pooler may mix them up.
    pub prepared: bool,
}

/// Connects twice as a test's pool does.
///
/// # Errors
/// No connection, or the first statement fails.
pub async fn probe(address: &Address, database: &str) -> Result<Way, PgError> {
    let options = address
        .options(database)
        .application_name("kapsel-testdb doctor");
    let doing = || format!("ask PostgreSQL at `{address}` as a test does");
    let mut one = connect(address, &options, Patience::RUNNING).await?;
    let mut other = connect(address, &options, Patience::RUNNING).await?;
    let asked = sqlx::raw_sql(ASK).fetch_one(&mut one).await.doing(doing)?;
    let started_at = asked.try_get(0).doing(doing)?;
    // The first may meet what another program has left.
    let prepared = prepare(&mut one).await && prepare(&mut other).await;
    // A pooler keeps what was prepared for whoever comes next.
    let _ = sqlx::raw_sql("DEALLOCATE ALL").execute(&mut one).await;
    for connection in [one, other] {
        let _ = connection.close().await;
    }
    Ok(Way {
        started_at,
        prepared,
    })
}

const ASK: &str = "SELECT pg_postmaster_start_time()::text";

async fn prepare(connection: &mut PgConnection) -> bool {
    sqlx::query(ASK).fetch_one(connection).await.is_ok()
}
