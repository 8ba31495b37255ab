//! The practice of the suite that started this project, and of many a `tests/common/mod.rs`: what used to be done once per binary
//! under `cargo test` (in a `OnceCell`), which nextest runs once per test. Each process takes an advisory lock, makes sure of the
//! template and runs the migrator on it, makes sure of the shared database, cleans up what earlier runs left, and opens a pool of 15;
//! a test that wants a database of its own clones the template, and never drops its clone: the cleanup of a later run does. The lock
//! covers the clone too, and must: a clone fails while another process's migrator is connected to the template.
//!
//! Its best form: one administrative connection per process, the migrator finds nothing to do, the lock is given back before the
//! test connects, and the cleanup spares what is younger than an hour, so it drops nothing here (between two samples that is done for
//! it, off the clock).

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
    let shared = format!("naive_template_shared_{hash}");
    if !pg::exists(admin, &shared).await? {
        clone(admin, &template, &shared).await?;
    }
    clean_up(admin).await?;
    if wants == Wants::Shared {
        return Ok(shared);
    }
    let own = format!("naive_test_{}", pg::unique());
    clone(admin, &template, &own).await?;
    Ok(own)
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

async fn clone(admin: &mut PgConnection, template: &str, name: &str) -> Outcome {
    let sql = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
    pg::execute(admin, sql).await
}
