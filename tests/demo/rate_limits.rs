//! The token bucket that limits the deliveries to a receiver. Time is an argument, so no test waits.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support;

const RATE: usize = 10;

async fn take(conn: &mut PgConnection, endpoint: i64, at: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT take_token($1, $2::timestamptz)")
        .bind(endpoint)
        .bind(at)
        .fetch_one(conn)
        .await
}

async fn take_all(conn: &mut PgConnection, endpoint: i64, at: &str) -> sqlx::Result<usize> {
    let mut taken = 0;
    while take(conn, endpoint, at).await? {
        taken += 1;
    }
    Ok(taken)
}

#[tokio::test]
async fn a_bucket_holds_one_seconds_allowance() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    assert_eq!(
        take_all(&mut tx, receiver.endpoint, "2025-03-01 12:00:00+00").await?,
        RATE
    );
    Ok(())
}

#[tokio::test]
async fn half_a_second_refills_half_of_the_bucket() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    take_all(&mut tx, receiver.endpoint, "2025-03-01 12:00:00+00").await?;
    assert_eq!(
        take_all(&mut tx, receiver.endpoint, "2025-03-01 12:00:00.5+00").await?,
        RATE / 2
    );
    Ok(())
}

#[tokio::test]
async fn a_long_pause_fills_the_bucket_only_to_its_limit() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    take_all(&mut tx, receiver.endpoint, "2025-03-01 22:00:00+00").await?;
    assert_eq!(
        take_all(&mut tx, receiver.endpoint, "2025-03-02 06:00:00+00").await?,
        RATE
    );
    Ok(())
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_change_the_bucket() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    take(&mut tx, receiver.endpoint, "2025-03-01 12:00:00+00").await?;
    let left = take_all(&mut tx, receiver.endpoint, "2025-03-01 11:00:00+00").await?;
    assert_eq!(left, RATE - 1);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn concurrent_workers_share_one_allowance(pool: PgPool) -> sqlx::Result<()> {
    let receiver = support::receiver(&mut *pool.acquire().await?, &test_id()).await?;
    // Connected beforehand: a connect in between would let the first finish before the second begins.
    let (mut one, mut two) = (pool.acquire().await?, pool.acquire().await?);
    let at = "2025-03-01 12:00:00+00";
    let (a, b) = tokio::join!(
        take_all(&mut one, receiver.endpoint, at),
        take_all(&mut two, receiver.endpoint, at),
    );
    assert_eq!(a? + b?, RATE);
    Ok(())
}
