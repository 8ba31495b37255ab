//! Workers: how several of them share one queue of deliveries.

use std::collections::HashSet;
use std::time::Duration;

use kapsel_testdb::test_id;
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::support::{self, claim, publish_many, value};

/// Claims and delivers until nothing is due, and returns what it delivered.
async fn drain(conn: &mut PgConnection, tenant: i64, worker: &str) -> sqlx::Result<Vec<i64>> {
    let mut done = Vec::new();
    loop {
        let batch = claim(conn, tenant, worker, 3).await?;
        if batch.is_empty() {
            return Ok(done);
        }
        for &delivery in &batch {
            support::attempt(conn, delivery, 204).await?;
        }
        done.extend(batch);
    }
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_worker_skips_deliveries_that_another_one_has_locked(pool: PgPool) -> sqlx::Result<()> {
    let mut first = pool.acquire().await?;
    let receiver = support::receiver(&mut first, &test_id()).await?;
    publish_many(&mut first, receiver.tenant, 3).await?;

    let mut open = first.begin().await?;
    let held = claim(&mut open, receiver.tenant, "first", 2).await?;
    // Without SKIP LOCKED the second worker would wait for a transaction that ends after the worker.
    let mut second = pool.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '1s'")
        .execute(&mut *second)
        .await?;
    let rest = claim(&mut second, receiver.tenant, "second", 3).await?;
    second.commit().await?;
    open.commit().await?;

    assert_eq!((held.len(), rest.len()), (2, 1));
    assert!(!held.contains(&rest[0]));
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn an_expired_lease_can_be_claimed_again(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
    assert!(
        claim(&mut conn, receiver.tenant, "second", 1)
            .await?
            .is_empty(),
        "the lease still runs"
    );

    sqlx::query("UPDATE deliveries SET locked_until = now() - interval '1 second' WHERE id = $1")
        .bind(delivery)
        .execute(&mut *conn)
        .await?;
    assert_eq!(
        claim(&mut conn, receiver.tenant, "second", 1).await?,
        [delivery]
    );
    let holder: String = value(
        &mut conn,
        "SELECT locked_by FROM deliveries WHERE id = $1",
        delivery,
    )
    .await?;
    assert_eq!(holder, "second");
    Ok(())
}

#[kapsel_testdb::test]
async fn two_workers_drain_the_queue_without_overlap(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    publish_many(&mut conn, receiver.tenant, 20).await?;

    let mut other = pool.acquire().await?;
    let (a, b) = tokio::join!(
        drain(&mut conn, receiver.tenant, "a"),
        drain(&mut other, receiver.tenant, "b"),
    );
    let done: Vec<i64> = a?.into_iter().chain(b?).collect();

    assert_eq!(done.len(), 20, "each delivery was attempted once");
    assert_eq!(done.iter().collect::<HashSet<_>>().len(), 20);
    let delivered: i64 =
        sqlx::query_scalar("SELECT count(*) FROM deliveries WHERE status = 'delivered'")
            .fetch_one(&mut *conn)
            .await?;
    assert_eq!(delivered, 20);
    Ok(())
}

#[kapsel_testdb::test]
async fn the_delivery_that_is_due_first_is_claimed_first(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    publish_many(&mut conn, receiver.tenant, 3).await?;
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM deliveries ORDER BY id")
        .fetch_all(&mut *conn)
        .await?;
    for (id, shift) in [(ids[2], "-1 hour"), (ids[0], "1 hour")] {
        sqlx::query("UPDATE deliveries SET next_attempt_at = now() + $2::interval WHERE id = $1")
            .bind(id)
            .bind(shift)
            .execute(&mut *conn)
            .await?;
    }

    assert_eq!(
        claim(&mut conn, receiver.tenant, "worker", 1).await?,
        [ids[2]]
    );
    assert_eq!(
        claim(&mut conn, receiver.tenant, "worker", 5).await?,
        [ids[1]],
        "the first is not due yet"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn publishing_wakes_the_workers_that_listen(pool: PgPool) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("webhook_deliveries").await?;
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    support::publish(&mut conn, receiver.tenant, "user.deleted").await?;
    support::publish(&mut conn, receiver.tenant, "invoice.paid").await?;

    // The first event has no subscriber, so the first notice is that of the second event.
    let notice = timeout(Duration::from_secs(10), listener.recv())
        .await
        .expect("a notice within ten seconds")?;
    assert_eq!(notice.payload(), receiver.tenant.to_string());
    assert_eq!(
        claim(&mut conn, receiver.tenant, "worker", 5).await?.len(),
        1
    );
    Ok(())
}
