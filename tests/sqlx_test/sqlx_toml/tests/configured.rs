//! What `sqlx.toml` says of migrations is so in tests, with our attribute and with sqlx's own.

use sqlx::PgPool;
use sqlx_test_sqlx_toml::MIGRATOR;

#[cfg(not(feature = "reference"))]
use kapsel_testdb as attribute;
#[cfg(feature = "reference")]
use sqlx as attribute;

/// sqlx refuses what was noted with another checksum, and would run again what is noted elsewhere.
async fn is_migrated(pool: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    let noted = "SELECT array_agg(version) FROM notes.configured WHERE success";
    let noted: Vec<i64> = sqlx::query_scalar(noted).fetch_one(pool).await?;
    assert_eq!(noted, [1]);
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

/// By whatever way they are named, they are the same template: whoever comes last sees all.
#[cfg(not(feature = "reference"))]
async fn is_the_only_one(pool: &PgPool) -> sqlx::Result<()> {
    let templates = "SELECT count(*) FROM pg_database WHERE datname ~ '_template_' AND shobj_description(oid, 'pg_database') ~ 'notes.configured'";
    let templates: i64 = sqlx::query_scalar(templates).fetch_one(pool).await?;
    assert_eq!(templates, 1);
    Ok(())
}

#[attribute::test]
async fn the_folder_that_it_names(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}

#[attribute::test(migrations = "./db")]
async fn a_folder_that_the_test_names(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}

#[attribute::test(migrator = "MIGRATOR")]
async fn what_is_compiled_in(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    is_migrated(&pool).await
}
