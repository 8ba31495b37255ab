//! The delay before the next attempt: a pure function, so a transaction suffices for its tests.

use kapsel_testdb::TestDb;
use sqlx::PgConnection;

use crate::support::sqlstate;

async fn delay_seconds(conn: &mut PgConnection, attempt: i32) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT extract(epoch FROM next_retry_delay($1))::bigint")
        .bind(attempt)
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn the_delay_doubles_from_five_seconds() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    for (attempt, seconds) in [(1, 5), (2, 10), (3, 20), (4, 40), (10, 2560)] {
        assert_eq!(
            delay_seconds(&mut tx, attempt).await?,
            seconds,
            "attempt {attempt}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_delay_grows_up_to_its_ceiling_and_never_shrinks() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let delays: Vec<i64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM next_retry_delay(n))::bigint FROM generate_series(1, 60) n ORDER BY n",
    )
    .fetch_all(&mut *tx)
    .await?;
    assert!(delays.is_sorted());
    assert_eq!(delays.last(), Some(&43_200));
    Ok(())
}

#[tokio::test]
async fn the_largest_attempt_number_does_not_overflow() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    assert_eq!(delay_seconds(&mut tx, i32::MAX).await?, 43_200);
    Ok(())
}

#[tokio::test]
async fn there_is_no_attempt_zero() {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    assert_eq!(sqlstate(delay_seconds(&mut tx, 0).await), "22023");
}
