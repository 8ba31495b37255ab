//! The practice of the suite that started this project, and of many a `tests/common/mod.rs`: what used to be done once per binary
//! under `cargo test` (in a `OnceCell`), which nextest runs once per test. Each process takes an advisory lock, runs the migrator on
//! the shared database, looks for the template, cleans up what earlier runs left, and opens a pool of 15; a test that wants a
//! database of its own clones the template and never drops it: the cleanup of a later run does.
//!
//! Its best form: the migrator finds nothing to do; the template is named by the migrations' hash, so that nobody connects to it and
//! the lock need not cover the clone; the cleanup spares what is younger than an hour, so it drops nothing here (between two samples
//! that is done for it, off the clock).

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::body::work;
use crate::pg::{self, Answer};
use crate::{Outcome, Wants};

/// Any number that all processes agree on.
const LOCK: i64 = 7_272_740;

const ORPHANS: &str = r"SELECT datname FROM pg_database d
    WHERE datname ~ '^naive_test_\d+_' AND split_part(datname, '_', 3)::bigint < extract(epoch FROM now()) - 3600
      AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)";

pub async fn test(wants: Wants, migrator: &Migrator) -> Outcome {
    let hash = pg::hash(migrator);
    let (shared, template) = (
        format!("naive_shared_template_{hash}"),
        format!("naive_template_{hash}"),
    );
    let mut admin = pg::admin().await?;
    lock(&mut admin, "pg_advisory_lock").await?;
    prepare(&mut admin, &shared, &template, migrator).await?;
    lock(&mut admin, "pg_advisory_unlock").await?;
    let database = match wants {
        Wants::Own => clone(&mut admin, &template).await?,
        Wants::Shared => shared,
    };
    admin.close().await?;
    let pool = pg::pool(&database, 15).await?;
    if wants == Wants::Own {
        work(&mut *pool.acquire().await?).await?;
    } else {
        work(&mut *pool.begin().await?).await?;
    }
    Ok(())
}

async fn lock(admin: &mut PgConnection, function: &str) -> Outcome {
    pg::execute(admin, format!("SELECT {function}({LOCK})")).await
}

async fn prepare(
    admin: &mut PgConnection,
    shared: &str,
    template: &str,
    migrator: &Migrator,
) -> Outcome {
    if !pg::exists(admin, shared).await? {
        pg::execute(admin, format!(r#"CREATE DATABASE "{shared}""#)).await?;
    }
    pg::migrate(shared, migrator).await?;
    if !pg::exists(admin, template).await? {
        pg::create_migrated(admin, template, migrator).await?;
    }
    let orphans: Vec<String> = sqlx::query_scalar(AssertSqlSafe(ORPHANS))
        .fetch_all(&mut *admin)
        .await?;
    for orphan in orphans {
        pg::execute(admin, format!(r#"DROP DATABASE IF EXISTS "{orphan}""#)).await?;
    }
    Ok(())
}

async fn clone(admin: &mut PgConnection, template: &str) -> Answer<String> {
    let name = format!("naive_test_{}", pg::unique());
    let sql = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
    pg::execute(admin, sql).await?;
    Ok(name)
}
