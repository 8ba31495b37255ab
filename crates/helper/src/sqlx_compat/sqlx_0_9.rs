//! The code for sqlx 0.9.

pub(crate) use crate::sqlx_compat::error::unchanged as to_internal_error;
use ::sqlx;

/// sqlx 0.9, as the [`Version`](crate::Version) of a [`TestDb`](crate::TestDb): its pool is a `sqlx` 0.9 `PgPool`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use kapsel_testdb::{Sqlx0_9, TestDb, TestDbOptions};
///
/// let db: TestDb<Sqlx0_9> = TestDbOptions::new().lease_as().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sqlx0_9;
use Sqlx0_9 as This;
use kapsel_testdb_core::sqlx_compat::sqlx_0_9::options;
use kapsel_testdb_core::sqlx_compat::sqlx_0_9::rows::texts;

#[path = "version/pool.rs"]
mod pool;
#[path = "version/sandbox.rs"]
mod sandbox;

/// A statement that this crate built, with every name and literal in it quoted.
fn trusted(sql: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(sql)
}

/// The same for a statement that is borrowed.
fn trusted_text(sql: &str) -> sqlx::AssertSqlSafe<&str> {
    sqlx::AssertSqlSafe(sql)
}
