//! Events: numbered without gaps, immutable, published once per idempotency key.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{self, EVENT_IMMUTABLE, IDEMPOTENCY_MISMATCH, sqlstate, value, violated};

async fn numbers(conn: &mut PgConnection, tenant: i64) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("SELECT number FROM events WHERE tenant_id = $1 ORDER BY number")
        .bind(tenant)
        .fetch_all(conn)
        .await
}

async fn publish_with_key(
    conn: &mut PgConnection,
    tenant: i64,
    payload: &str,
    key: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT publish_event($1, 'invoice.paid', $2::jsonb, $3)")
        .bind(tenant)
        .bind(payload)
        .bind(key)
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn each_tenant_numbers_its_own_events() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let first = support::tenant(&mut tx, &format!("{id}_a")).await?;
    let second = support::tenant(&mut tx, &format!("{id}_b")).await?;
    for tenant in [first, second, first] {
        support::publish(&mut tx, tenant, "user.created").await?;
    }
    assert_eq!(numbers(&mut tx, first).await?, [1, 2]);
    assert_eq!(numbers(&mut tx, second).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_rolled_back_event_leaves_no_gap() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    support::publish(&mut tx, tenant, "user.created").await?;
    let mut savepoint = tx.begin().await?;
    support::publish(&mut savepoint, tenant, "user.created").await?;
    savepoint.rollback().await?;
    support::publish(&mut tx, tenant, "user.created").await?;

    assert_eq!(numbers(&mut tx, tenant).await?, [1, 2]);
    Ok(())
}

#[tokio::test]
async fn a_payload_has_to_be_an_object() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let result = publish_with_key(&mut tx, tenant, "[1, 2]", "k").await;
    assert_eq!(violated(result), "events_payload_is_object");
    Ok(())
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let payload = format!(r#"{{"blob": "{}"}}"#, "x".repeat(262_144));
    let result = publish_with_key(&mut tx, tenant, &payload, "k").await;
    assert_eq!(violated(result), "events_payload_size");
    Ok(())
}

#[tokio::test]
async fn a_published_payload_cannot_change() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let event = support::publish(&mut tx, tenant, "user.created").await?;
    let result = sqlx::query("UPDATE events SET payload = '{}' WHERE id = $1")
        .bind(event)
        .execute(&mut *tx)
        .await;
    assert_eq!(sqlstate(result), EVENT_IMMUTABLE);
    Ok(())
}

#[tokio::test]
async fn the_size_is_that_of_the_stored_payload() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let event = publish_with_key(&mut tx, tenant, r#"{ "name":"Zoë" }"#, "k").await?;
    let bytes: i32 = value(
        &mut tx,
        "SELECT payload_bytes FROM events WHERE id = $1",
        event,
    )
    .await?;
    assert_eq!(bytes as usize, r#"{"name": "Zoë"}"#.len());
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_repeated_request_gives_the_same_event(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    let first = publish_with_key(&mut conn, tenant, r#"{"a": 1, "b": 2}"#, "retry").await?;
    let again = publish_with_key(&mut conn, tenant, r#"{"b": 2, "a": 1}"#, "retry").await?;

    assert_eq!(
        again, first,
        "the order of the members is no part of the request"
    );
    assert_eq!(numbers(&mut conn, tenant).await?, [1]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_key_cannot_be_used_for_another_request(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, &test_id()).await?;
    publish_with_key(&mut conn, tenant, r#"{"a": 1}"#, "retry").await?;
    let result = publish_with_key(&mut conn, tenant, r#"{"a": 2}"#, "retry").await;
    assert_eq!(sqlstate(result), IDEMPOTENCY_MISMATCH);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn two_tenants_may_use_the_same_key(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let id = test_id();
    let first = support::tenant(&mut conn, &format!("{id}_a")).await?;
    let second = support::tenant(&mut conn, &format!("{id}_b")).await?;
    let a = publish_with_key(&mut conn, first, "{}", "order-1").await?;
    let b = publish_with_key(&mut conn, second, "{}", "order-1").await?;
    assert_ne!(a, b);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn concurrent_requests_with_one_key_publish_once(pool: PgPool) -> sqlx::Result<()> {
    let tenant = support::tenant(&mut *pool.acquire().await?, &test_id()).await?;
    // Connected beforehand: a connect in between would let the first finish before the second begins.
    let (mut one, mut two) = (pool.acquire().await?, pool.acquire().await?);
    let (a, b) = tokio::join!(
        publish_with_key(&mut one, tenant, "{}", "retry"),
        publish_with_key(&mut two, tenant, "{}", "retry"),
    );

    assert_eq!(a?, b?);
    assert_eq!(numbers(&mut one, tenant).await?, [1]);
    Ok(())
}

#[kapsel_testdb::test]
async fn concurrent_publishers_get_numbers_without_gaps(pool: PgPool) -> sqlx::Result<()> {
    let tenant = support::tenant(&mut *pool.acquire().await?, "acme").await?;
    // Connected beforehand: a connect in between would let the first finish before the second begins.
    let (mut one, mut two) = (pool.acquire().await?, pool.acquire().await?);
    let (a, b) = tokio::join!(
        support::publish_many(&mut one, tenant, 10),
        support::publish_many(&mut two, tenant, 10),
    );
    a.and(b)?;

    assert_eq!(
        numbers(&mut one, tenant).await?,
        (1..=20).collect::<Vec<i64>>()
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn a_purge_removes_expired_keys_and_nothing_else(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = support::tenant(&mut conn, "acme").await?;
    for key in ["old", "new"] {
        publish_with_key(&mut conn, tenant, "{}", key).await?;
    }
    sqlx::query(
        "UPDATE idempotency_keys SET expires_at = now() - interval '1 minute' WHERE key = 'old'",
    )
    .execute(&mut *conn)
    .await?;

    let purged: i64 = sqlx::query_scalar("SELECT purge_idempotency_keys()")
        .fetch_one(&mut *conn)
        .await?;
    let left: Vec<String> = sqlx::query_scalar("SELECT key FROM idempotency_keys")
        .fetch_all(&mut *conn)
        .await?;
    assert_eq!((purged, left), (1, vec!["new".into()]));
    assert_eq!(numbers(&mut conn, tenant).await?, [1, 2], "the events stay");
    Ok(())
}
