//! Deliveries: the endpoints that get an event, and the transitions between states.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{self, ILLEGAL_TRANSITION, delivery_status, sqlstate, value, violated};

async fn set_status(conn: &mut PgConnection, delivery: i64, status: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE deliveries SET status = $2::delivery_status, locked_by = NULL, locked_until = NULL WHERE id = $1")
        .bind(delivery)
        .bind(status)
        .execute(conn)
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_event_goes_to_the_endpoints_that_subscribed_to_its_type() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    support::endpoint(&mut tx, receiver.tenant, "https://example.com/unsubscribed").await?;
    let event = support::publish(&mut tx, receiver.tenant, "invoice.paid").await?;

    let reached: Vec<i64> = value(
        &mut tx,
        "SELECT array_agg(endpoint_id) FROM deliveries WHERE event_id = $1",
        event,
    )
    .await?;
    assert_eq!(reached, [receiver.endpoint]);
    Ok(())
}

#[tokio::test]
async fn another_tenants_subscription_gets_nothing() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let id = test_id();
    let publisher = support::receiver(&mut tx, &format!("{id}_a")).await?;
    let stranger = support::receiver(&mut tx, &format!("{id}_b")).await?;
    support::publish(&mut tx, publisher.tenant, "invoice.paid").await?;

    let got: i64 = value(
        &mut tx,
        "SELECT count(*) FROM deliveries WHERE endpoint_id = $1",
        stranger.endpoint,
    )
    .await?;
    assert_eq!(got, 0);
    Ok(())
}

#[tokio::test]
async fn a_paused_endpoint_gets_nothing() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    sqlx::query("UPDATE endpoints SET status = 'paused' WHERE id = $1")
        .bind(receiver.endpoint)
        .execute(&mut *tx)
        .await?;
    let event = support::publish(&mut tx, receiver.tenant, "invoice.paid").await?;

    assert_eq!(
        value::<i64>(
            &mut tx,
            "SELECT count(*) FROM deliveries WHERE event_id = $1",
            event
        )
        .await?,
        0
    );
    Ok(())
}

#[tokio::test]
async fn an_event_is_delivered_to_an_endpoint_once() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let event = support::publish(&mut tx, receiver.tenant, "invoice.paid").await?;
    let result = sqlx::query(
        "INSERT INTO deliveries (tenant_id, event_id, endpoint_id) VALUES ($1, $2, $3)",
    )
    .bind(receiver.tenant)
    .bind(event)
    .bind(receiver.endpoint)
    .execute(&mut *tx)
    .await;
    assert_eq!(violated(result), "deliveries_event_endpoint_key");
    Ok(())
}

#[tokio::test]
async fn only_the_listed_transitions_are_possible() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let allowed: Vec<(String, String)> = sqlx::query_as(
        "SELECT old::text, new::text
         FROM unnest(enum_range(NULL::delivery_status)) AS states (old),
              unnest(enum_range(NULL::delivery_status)) AS successors (new)
         WHERE old <> new AND delivery_may_become(old, new)
         ORDER BY states.old, successors.new",
    )
    .fetch_all(&mut *tx)
    .await?;
    let allowed: Vec<_> = allowed
        .iter()
        .map(|(from, to)| (from.as_str(), to.as_str()))
        .collect();
    assert_eq!(
        allowed,
        [
            ("pending", "in_flight"),
            ("pending", "cancelled"),
            ("in_flight", "retrying"),
            ("in_flight", "delivered"),
            ("in_flight", "dead"),
            ("retrying", "in_flight"),
            ("retrying", "cancelled"),
            ("dead", "pending"),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_delivered_delivery_stays_delivered() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    support::attempt(&mut tx, delivery, 200).await?;
    for status in ["pending", "retrying", "dead", "cancelled"] {
        let mut savepoint = tx.begin().await?;
        assert_eq!(
            sqlstate(set_status(&mut savepoint, delivery, status).await),
            ILLEGAL_TRANSITION
        );
        savepoint.rollback().await?;
    }
    assert_eq!(delivery_status(&mut tx, delivery).await?, "delivered");
    Ok(())
}

#[tokio::test]
async fn in_flight_means_that_a_worker_is_named() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let event = support::publish(&mut tx, receiver.tenant, "invoice.paid").await?;
    let delivery: i64 = value(
        &mut tx,
        "SELECT id FROM deliveries WHERE event_id = $1",
        event,
    )
    .await?;
    assert_eq!(
        violated(set_status(&mut tx, delivery, "in_flight").await),
        "deliveries_locked_in_flight"
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn disabling_an_endpoint_cancels_waiting_deliveries_but_not_those_in_flight(
    pool: PgPool,
) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    let in_flight = support::claimed_delivery(&mut conn, &receiver).await?;
    support::publish_many(&mut conn, receiver.tenant, 2).await?;
    sqlx::query(
        "UPDATE endpoints SET status = 'disabled', disabled_reason = 'by an operator' WHERE id = $1",
    )
    .bind(receiver.endpoint)
    .execute(&mut *conn)
    .await?;

    let cancelled: i64 = value(
        &mut conn,
        "SELECT count(*) FROM deliveries WHERE endpoint_id = $1 AND status = 'cancelled'",
        receiver.endpoint,
    )
    .await?;
    assert_eq!(cancelled, 2);
    assert_eq!(delivery_status(&mut conn, in_flight).await?, "in_flight");
    Ok(())
}
