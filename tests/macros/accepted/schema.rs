//! Migrations, fixtures, several databases, and no database. `tests/sqlx_test` checks their effects.

use sqlx::PgPool;
use sqlx::migrate::Migrator;

/// An empty migrator.
static MIGRATOR: Migrator = Migrator::DEFAULT;

async fn tables(pool: &PgPool) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let counted = sqlx::query_scalar(sql).fetch_one(pool).await;
    counted.expect("a count")
}

#[kapsel_testdb::test(migrations = false)]
async fn without_migrations(pool: PgPool) {
    assert_eq!(tables(&pool).await, 0);
}

#[kapsel_testdb::test(migrator = "MIGRATOR")]
async fn an_empty_migrator_records_no_migration(pool: PgPool) {
    assert_eq!(tables(&pool).await, 1);
}

#[kapsel_testdb::test(migrator = "self::MIGRATOR", connections = 2)]
async fn by_its_path(_pool: PgPool) {}

#[kapsel_testdb::test(migrations = "migrations")]
async fn the_runs_migrations(pool: PgPool) {
    assert!(tables(&pool).await > 5);
}

#[kapsel_testdb::test(
    migrations = false,
    fixtures("schema"),
    fixtures("../accepted/fixtures/rows.sql"),
    fixtures(path = "fixtures", scripts("rows", "rows.sql"))
)]
async fn fixtures(pool: PgPool) {
    let counted = sqlx::query_scalar("SELECT count(*) FROM things")
        .fetch_one(&pool)
        .await;
    assert_eq!(counted.ok(), Some(3_i64));
}

#[kapsel_testdb::test(databases = 2)]
async fn two_databases([one, other]: [PgPool; 2]) {
    let name = "SELECT current_database()::text";
    let (one, other): (String, String) = (
        sqlx::query_scalar(name)
            .fetch_one(&one)
            .await
            .expect("a name"),
        sqlx::query_scalar(name)
            .fetch_one(&other)
            .await
            .expect("a name"),
    );
    assert_ne!(one, other);
}

#[kapsel_testdb::test(databases = 1)]
async fn one_database(_pool: PgPool) {}

#[kapsel_testdb::test]
async fn no_database() {
    tokio::task::yield_now().await;
}

#[kapsel_testdb::test]
fn no_database_and_not_async() -> Result<(), String> {
    Ok(())
}
