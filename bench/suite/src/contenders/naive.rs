//! The practice of the suite that started this project, and of many a `tests/common/mod.rs`: what used to be done once per binary
//! under `cargo test` (in a `OnceCell`), which nextest runs once per test. Each process takes an advisory lock, makes sure of the
//! template and runs the migrator on it, cleans up what earlier processes left, clones the template, and opens a pool of 15. Under
//! `cargo test` a binary's tests share that clone; under nextest each has one. Nobody drops it: the next cleanup does. The lock
//! covers the clone, and must: a clone fails while another process's migrator is connected to the template.
//!
//! Its best form: one administrative connection per process, the migrator finds nothing to do, no second clone for a test that wants
//! one of its own (the process's clone is), the lock is given back before the test connects, and the cleanup looks for what is older than
//! ten minutes and has no session, in one statement. It never finds anything here: what is left at the end is dropped off the clock.
//!
//! `naive-shared` is the same by somebody who saw that three quarters of the tests need no clone: these share one database, and roll
//! back.

use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::body::work;
use crate::pg::{self, Answer};
use crate::{Outcome, Wants};

/// Any number that all processes agree on.
const LOCK: i64 = 7_272_740;

const ORPHANS: &str = r"SELECT datname FROM pg_database d
    WHERE datname ~ '^naive_test_\d+_' AND split_part(datname, '_', 3)::bigint < extract(epoch FROM now()) - 600
      AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)";

/// `wants` is what the process has a database for: in `naive`, always a clone.
pub async fn test(wants: Wants, migrator: &Migrator) -> Outcome {
    let mut admin = pg::admin().await?;
    lock(&mut admin, "pg_advisory_lock").await?;
    let database = prepare(&mut admin, wants, migrator).await?;
    lock(&mut admin, "pg_advisory_unlock").await?;
    admin.close().await?;
    let pool = pg::pool(&database, 15).await?;
    match wants {
        Wants::Own => work(&mut *pool.acquire().await?).await?,
        Wants::Shared => work(&mut *pool.begin().await?).await?,
    }
    Ok(())
}

async fn lock(admin: &mut PgConnection, function: &str) -> Outcome {
    pg::execute(admin, format!("SELECT {function}({LOCK})")).await
}

/// The test's database.
async fn prepare(admin: &mut PgConnection, wants: Wants, migrator: &Migrator) -> Answer<String> {
    let hash = pg::hash(migrator);
    let template = format!("naive_template_{hash}");
    if !pg::exists(admin, &template).await? {
        pg::execute(admin, format!(r#"CREATE DATABASE "{template}""#)).await?;
    }
    pg::migrate(&template, migrator).await?;
    clean_up(admin).await?;
    let name = match wants {
        Wants::Own => format!("naive_test_{}", pg::unique()),
        Wants::Shared => format!("naive_template_shared_{hash}"),
    };
    if !pg::exists(admin, &name).await? {
        let sql = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
        pg::execute(admin, sql).await?;
    }
    Ok(name)
}

async fn clean_up(admin: &mut PgConnection) -> Outcome {
    let orphans: Vec<String> = sqlx::query_scalar(AssertSqlSafe(ORPHANS))
        .fetch_all(&mut *admin)
        .await?;
    for orphan in orphans {
        pg::execute(admin, format!(r#"DROP DATABASE IF EXISTS "{orphan}""#)).await?;
    }
    Ok(())
}
