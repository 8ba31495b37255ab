//! Endpoints: addresses, the limits of plans, and the order.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{
    self, CHECK_VIOLATION, FOREIGN_KEY_VIOLATION, LOCK_NOT_AVAILABLE, PLAN_LIMIT, sqlstate, value,
    violated,
};

async fn free_tenant(conn: &mut PgConnection, slug: &str) -> sqlx::Result<i64> {
    let tenant = support::tenant(conn, slug).await?;
    sqlx::query("UPDATE tenants SET plan = 'free' WHERE id = $1")
        .bind(tenant)
        .execute(conn)
        .await?;
    Ok(tenant)
}

#[tokio::test]
async fn an_address_without_tls_is_refused() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let result = support::endpoint(&mut tx, tenant, "http://hooks.example.com/").await;
    assert_eq!(sqlstate(result), CHECK_VIOLATION);
    Ok(())
}

#[tokio::test]
async fn the_host_is_derived_from_the_address() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    for (url, host) in [
        ("https://Hooks.Example.com/in", "hooks.example.com"),
        ("https://example.org:8443", "example.org"),
        ("https://example.net?token=1", "example.net"),
    ] {
        let endpoint = support::endpoint(&mut tx, tenant, url).await?;
        assert_eq!(
            value::<String>(
                &mut tx,
                "SELECT host FROM endpoints WHERE id = $1",
                endpoint
            )
            .await?,
            host
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_endpoints_can_swap_positions_when_the_check_is_deferred() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let tenant = support::tenant(&mut tx, &test_id()).await?;
    let first = support::endpoint(&mut tx, tenant, "https://example.com/1").await?;
    let second = support::endpoint(&mut tx, tenant, "https://example.com/2").await?;

    sqlx::query("SET CONSTRAINTS endpoints_position_key DEFERRED")
        .execute(&mut *tx)
        .await?;
    for (endpoint, position) in [(first, 2), (second, 1)] {
        sqlx::query("UPDATE endpoints SET position = $2 WHERE id = $1")
            .bind(endpoint)
            .bind(position)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query("SET CONSTRAINTS endpoints_position_key IMMEDIATE")
        .execute(&mut *tx)
        .await?;

    let order: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM endpoints WHERE tenant_id = $1 ORDER BY position")
            .bind(tenant)
            .fetch_all(&mut *tx)
            .await?;
    assert_eq!(order, [second, first]);
    Ok(())
}

#[tokio::test]
async fn a_default_endpoint_of_another_tenant_is_caught_when_the_check_is_made_immediate()
-> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let owner = support::receiver(&mut tx, &format!("{id}_a")).await?;
    let thief = support::tenant(&mut tx, &format!("{id}_b")).await?;
    sqlx::query("UPDATE tenants SET default_endpoint_id = $2 WHERE id = $1")
        .bind(thief)
        .bind(owner.endpoint)
        .execute(&mut *tx)
        .await?;

    let result = sqlx::query("SET CONSTRAINTS ALL IMMEDIATE")
        .execute(&mut *tx)
        .await;
    assert_eq!(violated(result), "tenants_default_endpoint_fkey");
    Ok(())
}

#[tokio::test]
async fn a_subscription_cannot_mix_two_tenants() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let owner = support::receiver(&mut tx, &format!("{id}_a")).await?;
    let other = support::tenant(&mut tx, &format!("{id}_b")).await?;
    let result = support::subscribe(&mut tx, other, owner.endpoint, "user.created").await;
    assert_eq!(violated(result), "endpoint_subscriptions_endpoint_fkey");
    Ok(())
}

#[tokio::test]
async fn disabling_needs_a_reason() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let result = sqlx::query("UPDATE endpoints SET status = 'disabled' WHERE id = $1")
        .bind(receiver.endpoint)
        .execute(&mut *tx)
        .await;
    assert_eq!(violated(result), "endpoints_reason_when_disabled");
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn an_address_is_unique_within_its_tenant_only(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let id = test_id();
    let first = support::tenant(&mut conn, &format!("{id}_a")).await?;
    let second = support::tenant(&mut conn, &format!("{id}_b")).await?;
    let url = "https://hooks.example.com/same";

    support::endpoint(&mut conn, first, url).await?;
    support::endpoint(&mut conn, second, url).await?;
    assert_eq!(
        violated(support::endpoint(&mut conn, first, url).await),
        "endpoints_url_key"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn a_plan_limits_the_number_of_endpoints(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = free_tenant(&mut conn, "acme").await?;
    support::endpoint(&mut conn, tenant, "https://example.com/1").await?;
    support::endpoint(&mut conn, tenant, "https://example.com/2").await?;
    assert_eq!(
        sqlstate(support::endpoint(&mut conn, tenant, "https://example.com/3").await),
        PLAN_LIMIT
    );

    sqlx::query("UPDATE tenants SET plan = 'enterprise'")
        .execute(&mut *conn)
        .await?;
    support::endpoint(&mut conn, tenant, "https://example.com/3").await?;
    Ok(())
}

#[kapsel_testdb::test]
async fn the_last_endpoint_of_a_plan_is_granted_once(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let tenant = free_tenant(&mut conn, "acme").await?;
    support::endpoint(&mut conn, tenant, "https://example.com/1").await?;

    let mut first = conn.begin().await?;
    support::endpoint(&mut first, tenant, "https://example.com/2").await?;
    let mut second = pool.acquire().await?;
    sqlx::query("SET lock_timeout = '50ms'")
        .execute(&mut *second)
        .await?;
    // A different position: otherwise the unique index would make it wait, too.
    let late =
        "INSERT INTO endpoints (tenant_id, url, position) VALUES ($1, 'https://example.com/3', 9)";
    let waiting = sqlx::query(late).bind(tenant).execute(&mut *second).await;
    assert_eq!(
        sqlstate(waiting),
        LOCK_NOT_AVAILABLE,
        "it queues behind the first"
    );
    first.commit().await?;

    let too_late = sqlx::query(late).bind(tenant).execute(&mut *second).await;
    assert_eq!(sqlstate(too_late), PLAN_LIMIT);
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM endpoints")
            .fetch_one(&mut *conn)
            .await?,
        2
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn deleting_the_default_endpoint_fails_at_commit(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    sqlx::query("UPDATE tenants SET default_endpoint_id = $1")
        .bind(receiver.endpoint)
        .execute(&mut *conn)
        .await?;

    let mut tx = conn.begin().await?;
    sqlx::query("DELETE FROM endpoints")
        .execute(&mut *tx)
        .await?;
    assert_eq!(sqlstate(tx.commit().await), FOREIGN_KEY_VIOLATION);

    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM endpoints")
            .fetch_one(&mut *conn)
            .await?,
        1
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn the_default_endpoint_can_be_replaced_within_one_transaction(
    pool: PgPool,
) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    sqlx::query("UPDATE tenants SET default_endpoint_id = $1")
        .bind(receiver.endpoint)
        .execute(&mut *conn)
        .await?;

    let mut tx = conn.begin().await?;
    sqlx::query("DELETE FROM endpoints")
        .execute(&mut *tx)
        .await?;
    let successor = support::endpoint(&mut tx, receiver.tenant, "https://example.com/new").await?;
    sqlx::query("UPDATE tenants SET default_endpoint_id = $1")
        .bind(successor)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}
