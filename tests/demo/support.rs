//! Builders for rows that many tests need, and short forms to check the answers of the database.

use std::fmt::Debug;

use sqlx::postgres::PgDatabaseError;
use sqlx::{Decode, PgConnection, Postgres, Type};

pub const CHECK_VIOLATION: &str = "23514";
pub const FOREIGN_KEY_VIOLATION: &str = "23503";
pub const UNIQUE_VIOLATION: &str = "23505";
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
pub const GENERATED_ALWAYS: &str = "428C9";
pub const ILLEGAL_TRANSITION: &str = "WH001";
pub const EVENT_IMMUTABLE: &str = "WH002";
pub const AUDIT_APPEND_ONLY: &str = "WH003";
pub const IDEMPOTENCY_MISMATCH: &str = "WH409";
pub const TYPE_RETIRED: &str = "WH410";
pub const PLAN_LIMIT: &str = "WH429";

/// A tenant with one active endpoint that is subscribed to `invoice.paid`.
pub struct Receiver {
    pub tenant: i64,
    pub endpoint: i64,
}

pub async fn tenant(conn: &mut PgConnection, slug: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO tenants (slug, name, plan) VALUES ($1, $1, 'team') RETURNING id",
    )
    .bind(slug)
    .fetch_one(conn)
    .await
}

pub async fn endpoint(conn: &mut PgConnection, tenant: i64, url: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar("INSERT INTO endpoints (tenant_id, url) VALUES ($1, $2) RETURNING id")
        .bind(tenant)
        .bind(url)
        .fetch_one(conn)
        .await
}

pub async fn subscribe(
    conn: &mut PgConnection,
    tenant: i64,
    endpoint: i64,
    event_type: &str,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO endpoint_subscriptions (tenant_id, endpoint_id, event_type) VALUES ($1, $2, $3)")
        .bind(tenant)
        .bind(endpoint)
        .bind(event_type)
        .execute(conn)
        .await?;
    Ok(())
}

pub async fn receiver(conn: &mut PgConnection, slug: &str) -> sqlx::Result<Receiver> {
    let tenant = tenant(conn, slug).await?;
    let endpoint = endpoint(conn, tenant, "https://hooks.example.com/in").await?;
    subscribe(conn, tenant, endpoint, "invoice.paid").await?;
    Ok(Receiver { tenant, endpoint })
}

pub async fn publish(conn: &mut PgConnection, tenant: i64, event_type: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar(r#"SELECT publish_event($1, $2, '{"amount": 12}')"#)
        .bind(tenant)
        .bind(event_type)
        .fetch_one(conn)
        .await
}

/// `count` events that receivers subscribe to.
pub async fn publish_many(conn: &mut PgConnection, tenant: i64, count: usize) -> sqlx::Result<()> {
    for _ in 0..count {
        publish(conn, tenant, "invoice.paid").await?;
    }
    Ok(())
}

/// The ids of the deliveries that `worker` claimed, in no particular order.
pub async fn claim(
    conn: &mut PgConnection,
    tenant: i64,
    worker: &str,
    limit: i32,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("SELECT id FROM claim_deliveries($1, $2, $3)")
        .bind(tenant)
        .bind(worker)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// A delivery that a worker holds, ready for [`attempt`].
pub async fn claimed_delivery(conn: &mut PgConnection, receiver: &Receiver) -> sqlx::Result<i64> {
    publish(conn, receiver.tenant, "invoice.paid").await?;
    let claimed = claim(conn, receiver.tenant, "worker", 1).await?;
    Ok(*claimed
        .first()
        .expect("the event just published is due at the receiver's endpoint"))
}

pub async fn attempt(conn: &mut PgConnection, delivery: i64, http_status: i32) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO delivery_attempts (delivery_id, http_status) VALUES ($1, $2)")
        .bind(delivery)
        .bind(http_status)
        .execute(conn)
        .await?;
    Ok(())
}

/// Claims a delivery before its delay is over.
pub async fn reclaim(conn: &mut PgConnection, tenant: i64, delivery: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE deliveries SET next_attempt_at = now() WHERE id = $1")
        .bind(delivery)
        .execute(&mut *conn)
        .await?;
    assert_eq!(claim(conn, tenant, "worker", 1).await?, [delivery]);
    Ok(())
}

/// Fails the delivery until its attempts are used up.
pub async fn exhaust(
    conn: &mut PgConnection,
    receiver: &Receiver,
    delivery: i64,
) -> sqlx::Result<()> {
    for _ in 1..5 {
        attempt(conn, delivery, 503).await?;
        reclaim(conn, receiver.tenant, delivery).await?;
    }
    attempt(conn, delivery, 503).await
}

/// The one value that a query about the row `id` returns.
pub async fn value<T>(conn: &mut PgConnection, sql: &'static str, id: i64) -> sqlx::Result<T>
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sql).bind(id).fetch_one(conn).await
}

pub async fn delivery_status(conn: &mut PgConnection, delivery: i64) -> sqlx::Result<String> {
    value(
        conn,
        "SELECT status::text FROM deliveries WHERE id = $1",
        delivery,
    )
    .await
}

/// The SQLSTATE of the rejection.
#[track_caller]
pub fn sqlstate<T: Debug>(result: sqlx::Result<T>) -> String {
    rejection(result).code().to_owned()
}

/// The constraint that the rejection names.
#[track_caller]
pub fn violated<T: Debug>(result: sqlx::Result<T>) -> String {
    rejection(result)
        .constraint()
        .expect("the error names a constraint")
        .to_owned()
}

#[track_caller]
fn rejection<T: Debug>(result: sqlx::Result<T>) -> Box<PgDatabaseError> {
    match result {
        Ok(value) => panic!("expected a rejection by the database, but it returned {value:?}"),
        Err(sqlx::Error::Database(error)) => error.downcast(),
        Err(error) => {
            panic!("expected a rejection by the database, but got another error: {error}")
        }
    }
}
