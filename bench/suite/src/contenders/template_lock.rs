//! The protocol of pgtestdb (Go), which the better hand-written harnesses share: a hash of the migrations names the template; an
//! advisory lock for that name alone lets one process build it; each test clones it and drops its clone at the end.
//!
//! Its best form: one administrative connection per process, the lock held for one look when the template is there, no role of its
//! own per test, and the drop by the test itself, with nobody connected any more. Every test has a database of its own, because that
//! is all that the protocol knows.

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use crate::Outcome;
use crate::body::work;
use crate::pg;

pub async fn test(migrator: &Migrator) -> Outcome {
    let template = format!("lock_template_{}", pg::hash(migrator));
    let mut admin = pg::admin().await?;
    ensure(&mut admin, &template, migrator).await?;
    let name = format!("lock_test_{}", pg::unique());
    let sql = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
    pg::execute(&mut admin, sql).await?;
    let pool = pg::pool(&name, 5).await?;
    work(&mut *pool.acquire().await?).await?;
    pool.close().await;
    pg::execute(&mut admin, format!(r#"DROP DATABASE "{name}""#)).await?;
    admin.close().await?;
    Ok(())
}

async fn ensure(admin: &mut PgConnection, template: &str, migrator: &Migrator) -> Outcome {
    let lock = |function| format!("SELECT {function}(hashtext('{template}'))");
    pg::execute(admin, lock("pg_advisory_lock")).await?;
    let finished: Option<bool> =
        sqlx::query_scalar("SELECT datistemplate FROM pg_database WHERE datname = $1")
            .bind(template)
            .fetch_optional(&mut *admin)
            .await?;
    if finished != Some(true) {
        pg::execute(admin, format!(r#"DROP DATABASE IF EXISTS "{template}""#)).await?;
        pg::create_migrated(admin, template, migrator).await?;
        pg::execute(
            admin,
            format!(r#"ALTER DATABASE "{template}" IS_TEMPLATE true"#),
        )
        .await?;
    }
    pg::execute(admin, lock("pg_advisory_unlock")).await
}
