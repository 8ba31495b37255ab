//! The options of `sqlx.toml` about migrations apply in tests, with this attribute and with sqlx's own.

use sqlx::PgPool;
use sqlx_test_sqlx_toml::MIGRATOR;

#[cfg(not(feature = "reference"))]
use kapsel_testdb as attribute;
#[cfg(feature = "reference")]
use sqlx as attribute;

/// sqlx rejects a migration that was recorded with another checksum, and runs one again that was recorded in another table.
async fn is_migrated(pool: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    let applied = "SELECT array_agg(version) FROM notes.configured WHERE success";
    let applied: Vec<i64> = sqlx::query_scalar(applied).fetch_one(pool).await?;
    assert_eq!(applied, [1]);
    let elsewhere = "SELECT count(*) FROM pg_tables WHERE tablename = '_sqlx_migrations'";
    let elsewhere: i64 = sqlx::query_scalar(elsewhere).fetch_one(pool).await?;
    assert_eq!(elsewhere, 0);
    sqlx::query("INSERT INTO app.orders VALUES (1)")
        .execute(pool)
        .await?;
    MIGRATOR.run(pool).await?;
    #[cfg(not(feature = "reference"))]
    is_the_only_one(pool).await?;
    Ok(())
}

/// Each way to name the migrations leads to the same template: the last test sees them all.
#[cfg(not(feature = "reference"))]
async fn is_the_only_one(pool: &PgPool) -> sqlx::Result<()> {
    let templates = "SELECT count(*) FROM pg_database WHERE datname ~ '_template_' AND shobj_description(oid, 'pg_database') ~ 'notes.configured'";
    let templates: i64 = sqlx::query_scalar(templates).fetch_one(pool).await?;
    assert_eq!(templates, 1);
    Ok(())
}

#[attribute::test]
async fn the_directory_of_sqlx_toml(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}

#[attribute::test(migrations = "./db")]
async fn the_directory_of_the_test(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}

#[attribute::test(migrator = "MIGRATOR")]
async fn an_embedded_migrator(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}
