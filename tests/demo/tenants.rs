//! Tenants: the rows that all others belong to.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{Connection, PgPool};

use crate::support::{self, CHECK_VIOLATION, UNIQUE_VIOLATION, sqlstate, value, violated};

#[kapsel_testdb::test]
async fn a_slug_belongs_to_one_tenant(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    support::tenant(&mut conn, "acme").await?;
    assert_eq!(
        violated(support::tenant(&mut conn, "acme").await),
        "tenants_slug_key"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn deleting_a_tenant_removes_all_that_it_owns(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
    support::exhaust(&mut conn, &receiver, delivery).await?;
    sqlx::query("SELECT issue_api_key($1, 'ci'), rotate_signing_secret($2), take_token($2), publish_event($1, 'user.created', '{}', 'k')")
        .bind(receiver.tenant)
        .bind(receiver.endpoint)
        .execute(&mut *conn)
        .await?;

    sqlx::query("DELETE FROM tenants WHERE id = $1")
        .bind(receiver.tenant)
        .execute(&mut *conn)
        .await?;

    let left: Vec<(String, i64)> = sqlx::query_as(
        "SELECT * FROM (
             SELECT 'api_keys', count(*) FROM api_keys
             UNION ALL SELECT 'endpoints', count(*) FROM endpoints
             UNION ALL SELECT 'endpoint_subscriptions', count(*) FROM endpoint_subscriptions
             UNION ALL SELECT 'signing_secrets', count(*) FROM signing_secrets
             UNION ALL SELECT 'tenant_event_counters', count(*) FROM tenant_event_counters
             UNION ALL SELECT 'events', count(*) FROM events
             UNION ALL SELECT 'idempotency_keys', count(*) FROM idempotency_keys
             UNION ALL SELECT 'deliveries', count(*) FROM deliveries
             UNION ALL SELECT 'delivery_attempts', count(*) FROM delivery_attempts
             UNION ALL SELECT 'dead_letters', count(*) FROM dead_letters
             UNION ALL SELECT 'rate_limit_buckets', count(*) FROM rate_limit_buckets
         ) AS t (table_name, rows) WHERE rows > 0",
    )
    .fetch_all(&mut *conn)
    .await?;
    assert_eq!(left, []);
    Ok(())
}

#[kapsel_testdb::test]
async fn deleting_a_tenant_spares_the_others(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let doomed = support::receiver(&mut conn, "acme").await?;
    let spared = support::receiver(&mut conn, "globex").await?;
    sqlx::query("DELETE FROM tenants WHERE id = $1")
        .bind(doomed.tenant)
        .execute(&mut *conn)
        .await?;

    let endpoints: Vec<i64> = sqlx::query_scalar("SELECT id FROM endpoints")
        .fetch_all(&mut *conn)
        .await?;
    assert_eq!(endpoints, [spared.endpoint]);
    Ok(())
}

#[tokio::test]
async fn a_slug_has_to_be_lower_case() {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let result = support::tenant(&mut tx, &test_id().to_uppercase()).await;
    assert_eq!(sqlstate(result), CHECK_VIOLATION);
}

#[tokio::test]
async fn a_name_of_blanks_is_refused() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let result = sqlx::query("UPDATE tenants SET name = '  ' WHERE id = $1")
        .bind(tenant)
        .execute(&mut *tx)
        .await;
    assert_eq!(violated(result), "tenants_name_check");
    Ok(())
}

#[tokio::test]
async fn every_update_moves_updated_at_forward() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    for _ in 0..2 {
        let moved: bool = value(
            &mut tx,
            "WITH before AS (SELECT id, updated_at FROM tenants WHERE id = $1)
             UPDATE tenants t SET name = t.name || '!' FROM before b WHERE t.id = b.id
             RETURNING t.updated_at > b.updated_at",
            tenant,
        )
        .await?;
        assert!(moved, "updated_at did not change");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_row_does_not_undo_what_came_before_its_savepoint() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let slug = test_id();
    let tenant = support::tenant(&mut tx, &slug).await?;

    let mut savepoint = tx.begin().await?;
    assert_eq!(
        sqlstate(support::tenant(&mut savepoint, &slug).await),
        UNIQUE_VIOLATION
    );
    savepoint.rollback().await?;

    assert_eq!(
        value::<String>(
            &mut tx,
            "SELECT slug::text FROM tenants WHERE id = $1",
            tenant
        )
        .await?,
        slug
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn concurrent_sign_ups_for_one_slug_leave_one_winner(pool: PgPool) -> sqlx::Result<()> {
    let slug = test_id();
    // Connected beforehand: a connect in between would let the first finish before the second begins.
    let (mut one, mut two) = (pool.acquire().await?, pool.acquire().await?);
    let (a, b) = tokio::join!(
        support::tenant(&mut one, &slug),
        support::tenant(&mut two, &slug)
    );

    let loser = if a.is_ok() { b } else { a };
    assert_eq!(violated(loser), "tenants_slug_key");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tenants WHERE slug = $1")
        .bind(&slug)
        .fetch_one(&mut *one)
        .await?;
    assert_eq!(rows, 1);
    Ok(())
}
