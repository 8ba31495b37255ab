//! The migrated schema, and the undo of the reversible migrations.

use sqlx::PgPool;

macro_rules! migration {
    ($name:literal) => {
        include_str!(concat!("../../migrations/", $name, ".sql"))
    };
}

async fn exists(pool: &PgPool, relation: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(relation)
        .fetch_one(pool)
        .await
}

async fn assert_round_trip(
    pool: &PgPool,
    table: &str,
    up: &'static str,
    down: &'static str,
) -> sqlx::Result<()> {
    assert!(exists(pool, table).await?, "{table} is part of the schema");
    sqlx::raw_sql(down).execute(pool).await?;
    assert!(
        !exists(pool, table).await?,
        "{table} is gone after the down migration"
    );
    sqlx::raw_sql(up).execute(pool).await?;
    assert!(exists(pool, table).await?, "{table} is back");
    Ok(())
}

#[kapsel_testdb::test]
async fn signing_secrets_can_be_undone_and_redone(pool: PgPool) -> sqlx::Result<()> {
    assert_round_trip(
        &pool,
        "signing_secrets",
        migration!("20250120110000_signing_secrets.up"),
        migration!("20250120110000_signing_secrets.down"),
    )
    .await
}

#[kapsel_testdb::test]
async fn rate_limits_can_be_undone_and_redone(pool: PgPool) -> sqlx::Result<()> {
    assert_round_trip(
        &pool,
        "rate_limit_buckets",
        migration!("20250210120000_rate_limits.up"),
        migration!("20250210120000_rate_limits.down"),
    )
    .await
}

#[kapsel_testdb::test]
async fn every_migration_succeeded_once(pool: PgPool) -> sqlx::Result<()> {
    let (applied, failed): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE NOT success) FROM _sqlx_migrations",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!((applied, failed), (15, 0));
    Ok(())
}

#[kapsel_testdb::test]
async fn the_index_built_concurrently_is_valid(pool: PgPool) -> sqlx::Result<()> {
    let valid: bool = sqlx::query_scalar(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'deliveries_due_idx'::regclass",
    )
    .fetch_one(&pool)
    .await?;
    assert!(valid);
    Ok(())
}

#[kapsel_testdb::test]
async fn public_holds_the_schemas_tables_and_no_others(pool: PgPool) -> sqlx::Result<()> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
         ORDER BY relname",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(
        tables,
        [
            "_sqlx_migrations",
            "api_keys",
            "audit_log",
            "dead_letters",
            "deliveries",
            "delivery_attempts",
            "endpoint_subscriptions",
            "endpoints",
            "event_types",
            "events",
            "idempotency_keys",
            "rate_limit_buckets",
            "signing_secrets",
            "tenant_event_counters",
            "tenants",
        ]
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn every_foreign_key_is_validated(pool: PgPool) -> sqlx::Result<()> {
    let pending: Vec<String> = sqlx::query_scalar(
        "SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND NOT convalidated",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(pending, Vec::<String>::new());
    Ok(())
}
