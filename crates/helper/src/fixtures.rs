//! Fixtures: SQL files that fill a test's database before the test.

use std::any::Any;
use std::path::Path;

use sqlx::{PgConnection, PgPool};

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config;
use kapsel_testdb_core::pg::connect::{RetryLimits, connect};
use kapsel_testdb_core::pg::script;
use kapsel_testdb_core::pg::session::{SCRIPT_LIMIT, STATEMENT_LIMIT, close, within};
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
    let server = &db.session.file.server;
    // The pool has an open connection, but only the helper's own version of sqlx can run scripts.
    match (db.pool() as &dyn Any).downcast_ref::<PgPool>() {
        Some(pool) => {
            let mut connection = pool.acquire().await.map_err(failed)?;
            run(&mut connection, server, package, scripts).await?;
            // A script's session settings must not affect the test: pg_dump empties `search_path`.
            let reset = internal::execute(&mut connection, "DISCARD ALL");
            let reset = async { reset.await.map_err(failed) };
            let what = || "reset the session".to_owned();
            within(STATEMENT_LIMIT, server, what, reset).await
        }
        None => {
            let limits = RetryLimits::RUNNING;
            let mut connection = connect(server, &db.internal_options(), limits).await?;
            run(&mut connection, server, package, scripts).await?;
            let what = || "close the connection of the fixtures".to_owned();
            Ok(close(connection, server, what).await?)
        }
    }
}

async fn run(
    connection: &mut PgConnection,
    server: &Address,
    package: &Path,
    scripts: &[&str],
) -> Result<(), TestDbError> {
    for script in scripts {
        let path = package.join(script);
        let name = config::shown_path(&config::find_root(package), &path);
        let ran = async { Ok(script::run_file(connection, &path, &name).await?) };
        let what = || format!("run `{name}`");
        within::<_, TestDbError>(SCRIPT_LIMIT, server, what, ran).await?;
    }
    Ok(())
}
