//! Fixtures: SQL files that fill a test's database before the test.

use std::any::Any;
use std::path::Path;

use sqlx::{Connection, PgConnection, PgPool};

use kapsel_testdb_core::pg::script;
use kapsel_testdb_core::sqlx_compat::internal;

use crate::sqlx_compat::Version;
use crate::{TestDb, TestDbError};

/// Runs the fixtures in order, each in one transaction.
pub async fn apply<V: Version>(
    db: &TestDb<V>,
    package: &Path,
    scripts: &[&str],
) -> Result<(), TestDbError> {
    if scripts.is_empty() {
        return Ok(());
    }
    let failed = |source| TestDbError::Connect {
        database: db.name().to_owned(),
        source,
    };
    // The pool has an open connection, but only the helper's own version of sqlx can run scripts.
    match (db.pool() as &dyn Any).downcast_ref::<PgPool>() {
        Some(pool) => {
            let mut connection = pool.acquire().await.map_err(failed)?;
            run(&mut connection, package, scripts).await?;
            // A script's session settings must not affect the test: pg_dump empties `search_path`.
            let reset = internal::execute(&mut connection, "DISCARD ALL").await;
            reset.map_err(failed)
        }
        None => {
            let connected = PgConnection::connect_with(&db.internal_options()).await;
            let mut connection = connected.map_err(failed)?;
            run(&mut connection, package, scripts).await?;
            connection.close().await.map_err(failed)
        }
    }
}

async fn run(
    connection: &mut PgConnection,
    package: &Path,
    scripts: &[&str],
) -> Result<(), TestDbError> {
    for script in scripts {
        script::run_file(connection, &package.join(script), script).await?;
    }
    Ok(())
}
