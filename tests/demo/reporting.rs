//! The views that the dashboard reads.

use kapsel_testdb::test_id;
use sqlx::{PgConnection, PgPool};

use crate::support::{self, Receiver, attempt};

type Health = (i64, i64, Option<f64>);

async fn health(conn: &mut PgConnection, endpoint: i64) -> sqlx::Result<Health> {
    sqlx::query_as("SELECT attempts, successes, success_rate::double precision FROM endpoint_health WHERE endpoint_id = $1")
        .bind(endpoint)
        .fetch_one(conn)
        .await
}

async fn deliver(
    conn: &mut PgConnection,
    receiver: &Receiver,
    answers: &[i32],
) -> sqlx::Result<()> {
    for &answer in answers {
        let delivery = support::claimed_delivery(conn, receiver).await?;
        attempt(conn, delivery, answer).await?;
    }
    Ok(())
}

async fn hours(pool: &PgPool) -> sqlx::Result<Vec<(i64, i64)>> {
    sqlx::query_as("SELECT attempts, successes FROM delivery_stats_hourly ORDER BY hour_utc")
        .fetch_all(pool)
        .await
}

#[kapsel_testdb::test(isolation = "shared")]
async fn health_counts_attempts_and_successes(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    deliver(&mut conn, &receiver, &[200, 500, 204, 201]).await?;
    assert_eq!(
        health(&mut conn, receiver.endpoint).await?,
        (4, 3, Some(0.75))
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn an_endpoint_that_was_never_tried_has_no_rate(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    assert_eq!(health(&mut conn, receiver.endpoint).await?, (0, 0, None));
    Ok(())
}

#[kapsel_testdb::test]
async fn usage_counts_each_thing_once(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    support::endpoint(&mut conn, receiver.tenant, "https://example.com/second").await?;
    support::tenant(&mut conn, "globex").await?;
    deliver(&mut conn, &receiver, &[200, 200, 200]).await?;

    let usage: Vec<(String, i64, i64, bool)> = sqlx::query_as(
        "SELECT u.slug::text, u.endpoints, u.events,
                u.payload_bytes = (SELECT coalesce(sum(payload_bytes), 0) FROM events WHERE tenant_id = u.tenant_id)
         FROM tenant_usage u ORDER BY u.slug",
    )
    .fetch_all(&mut *conn)
    .await?;
    assert_eq!(
        usage,
        [("acme".into(), 2, 3, true), ("globex".into(), 0, 0, true)]
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn hourly_numbers_are_those_of_the_last_refresh(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    deliver(&mut conn, &receiver, &[200, 500]).await?;
    drop(conn);

    assert_eq!(hours(&pool).await?, []);
    sqlx::query("REFRESH MATERIALIZED VIEW delivery_stats_hourly")
        .execute(&pool)
        .await?;
    let (attempts, successes) = hours(&pool)
        .await?
        .iter()
        .fold((0, 0), |sum, hour| (sum.0 + hour.0, sum.1 + hour.1));
    assert_eq!(
        (attempts, successes),
        (2, 1),
        "summed up, for the hour may change between two attempts"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn readers_are_not_blocked_by_a_concurrent_refresh(pool: PgPool) -> sqlx::Result<()> {
    let mut reader = pool.begin().await?;
    sqlx::query("SELECT count(*) FROM delivery_stats_hourly")
        .execute(&mut *reader)
        .await?;
    // The reader's lock is held until its transaction ends: a plain REFRESH would wait for it.
    let mut refresher = pool.acquire().await?;
    sqlx::query("SET lock_timeout = '2s'")
        .execute(&mut *refresher)
        .await?;
    sqlx::query("REFRESH MATERIALIZED VIEW CONCURRENTLY delivery_stats_hourly")
        .execute(&mut *refresher)
        .await?;

    sqlx::query("SET lock_timeout = '20ms'")
        .execute(&mut *refresher)
        .await?;
    let blocked = sqlx::query("REFRESH MATERIALIZED VIEW delivery_stats_hourly")
        .execute(&mut *refresher)
        .await;
    assert_eq!(support::sqlstate(blocked), support::LOCK_NOT_AVAILABLE);
    reader.commit().await
}
