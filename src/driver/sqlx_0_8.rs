//! sqlx 0.8.

#![allow(
    clippy::duplicate_mod,
    reason = "one text for both versions: that is what the folder is for"
)]

#[cfg(not(feature = "sqlx-0_9"))]
use super::error::same as own_error;
#[cfg(feature = "sqlx-0_9")]
use super::error::translated as own_error;
use ::sqlx_0_8 as sqlx;

/// sqlx 0.8: the version of a [`crate::TestDb`]'s pool.
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

/// This version knows no other.
fn table(_: &sqlx::migrate::Migrator) -> &str {
    super::own::MIGRATIONS_TABLE
}

/// This version makes none.
fn schemas(_: &sqlx::migrate::Migrator) -> Vec<&str> {
    Vec::new()
}

#[path = "version/arguments.rs"]
mod arguments;
#[path = "version/migrator.rs"]
mod migrator;
#[path = "version/options.rs"]
pub mod options;
#[path = "version/pool.rs"]
mod pool;
#[path = "version/sandbox.rs"]
mod sandbox;

/// A statement that was put together here, every name and literal in it quoted.
fn trusted(sql: String) -> String {
    sql
}
