//! Fixtures: scripts that fill a test's database before the test.

use std::any::Any;
use std::path::Path;

use sqlx::{Connection, PgConnection, PgPool};

use super::{TestDb, TestDbError};
use crate::driver::{Version, own};
use crate::pg::script;

/// Runs them in order, each in one transaction.
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
    // The pool has a connection already, but only one of our own sqlx can run scripts.
    match (db.pool() as &dyn Any).downcast_ref::<PgPool>() {
        Some(pool) => {
            let mut connection = pool.acquire().await.map_err(failed)?;
            run(&mut connection, package, scripts).await?;
            // What a script sets for its session (pg_dump empties `search_path`) is none of the test's.
            let reset = own::execute(&mut connection, "DISCARD ALL").await;
            reset.map_err(failed)
        }
        None => {
            let connected = PgConnection::connect_with(&db.own_options()).await;
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
