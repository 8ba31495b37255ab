//! The code for sqlx 0.8.

#![allow(
    clippy::duplicate_mod,
    reason = "the files in `version/` are compiled once for each version"
)]

#[cfg(feature = "sqlx-0_9")]
pub(crate) use crate::sqlx_compat::error::from_0_8 as to_internal_error;
#[cfg(not(feature = "sqlx-0_9"))]
pub(crate) use crate::sqlx_compat::error::unchanged as to_internal_error;
use ::sqlx_0_8 as sqlx;

/// sqlx 0.8, as the [`Version`](crate::Version) of a [`TestDb`](crate::TestDb): its pool is a `sqlx` 0.8 `PgPool`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use kapsel_testdb::{Sqlx0_8, TestDb, TestDbOptions};
///
/// let db: TestDb<Sqlx0_8> = TestDbOptions::new().lease_as().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Sqlx0_8;
use Sqlx0_8 as This;
use kapsel_testdb_core::sqlx_compat::sqlx_0_8::options;
use kapsel_testdb_core::sqlx_compat::sqlx_0_8::rows::texts;

#[path = "version/pool.rs"]
mod pool;
#[path = "version/sandbox.rs"]
mod sandbox;

/// A statement that this crate built, with every name and literal in it quoted.
fn trusted(sql: String) -> String {
    sql
}

/// The same for a statement that is borrowed.
fn trusted_text(sql: &str) -> &str {
    sql
}
