//! Both versions of sqlx in one project. The package has other migrations than the workspace.

use kapsel_testdb::{Sqlx0_8, TestDb, TestDbOptions};
use sqlx_test_0_8::OTHER as OTHER_0_8;

static OTHER: sqlx::migrate::Migrator = sqlx::migrate!("../other");

async fn count(pool: &sqlx::PgPool, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(pool).await;
    counted.expect("a count")
}

async fn count_0_8(pool: &sqlx_0_8::PgPool, sql: &str) -> i64 {
    let counted = sqlx_0_8::query_scalar(sql).fetch_one(pool).await;
    counted.expect("a count")
}

#[kapsel_testdb::test]
async fn the_packages_own_migrations(pool: sqlx::PgPool) {
    assert_eq!(count(&pool, "SELECT count(*) FROM only_here").await, 0);
}

#[kapsel_testdb::test]
async fn the_packages_own_migrations_with_0_8(pool: sqlx_0_8::PgPool) {
    assert_eq!(count_0_8(&pool, "SELECT count(*) FROM only_here").await, 0);
}

#[kapsel_testdb::test(migrator = "OTHER")]
async fn a_migrator(pool: sqlx::PgPool) {
    assert_eq!(count(&pool, "SELECT count(*) FROM foo").await, 0);
    OTHER.run(&pool).await.expect("nothing to run");
}

#[kapsel_testdb::test(migrator = "OTHER_0_8")]
async fn a_migrator_of_0_8(pool: sqlx_0_8::PgPool) {
    assert_eq!(count_0_8(&pool, "SELECT count(*) FROM foo").await, 0);
    OTHER_0_8.run(&pool).await.expect("nothing to run");
}

#[kapsel_testdb::test(migrator = "OTHER_0_8")]
async fn a_migrator_of_one_and_a_pool_of_the_other(pool: sqlx::PgPool) {
    OTHER.run(&pool).await.expect("nothing to run");
}

/// Only one of the versions runs scripts. A pool of the other version is not involved.
#[kapsel_testdb::test(
    migrator = "sqlx_test_0_8::MIGRATOR",
    fixtures("../../fixtures/users.sql")
)]
async fn fixtures_with_0_8(pool: sqlx_0_8::PgPool) {
    assert_eq!(count_0_8(&pool, "SELECT count(*) FROM users").await, 2);
}

#[kapsel_testdb::test(
    migrator = "sqlx_test_0_8::MIGRATOR",
    fixtures("../../fixtures/users.sql"),
    databases = 2
)]
async fn fixtures_on_every_database([one, other]: [sqlx_0_8::PgPool; 2]) {
    for pool in [&one, &other] {
        assert_eq!(count_0_8(pool, "SELECT count(*) FROM users").await, 2);
    }
}

/// `TestDb::lease` uses the run's template, even if the package has its own migrations.
#[kapsel_testdb::test]
async fn a_lease_uses_the_runs_template() -> Result<(), Box<dyn std::error::Error>> {
    let db = TestDb::lease().await?;
    assert_eq!(count(db.pool(), "SELECT count(*) FROM users").await, 0);
    let db = TestDbOptions::new().lease_as::<Sqlx0_8>().await?;
    assert_eq!(count_0_8(db.pool(), "SELECT count(*) FROM users").await, 0);
    Ok(())
}
