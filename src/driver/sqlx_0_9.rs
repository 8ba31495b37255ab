//! sqlx 0.9.

use super::error::same as own_error;
use ::sqlx;

/// sqlx 0.9: the version of a [`crate::TestDb`]'s pool.
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

fn table(migrator: &sqlx::migrate::Migrator) -> &str {
    &migrator.table_name
}

fn schemas(migrator: &sqlx::migrate::Migrator) -> Vec<&str> {
    migrator.create_schemas.iter().map(|s| &**s).collect()
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
fn trusted(sql: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(sql)
}
