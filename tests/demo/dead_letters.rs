//! Dead letters: deliveries that were given up, and their replay.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{self, UNIQUE_VIOLATION, attempt, claim, delivery_status, sqlstate, value};

async fn dead_letter(
    conn: &mut PgConnection,
    slug: &str,
) -> sqlx::Result<(support::Receiver, i64, i64)> {
    let receiver = support::receiver(conn, slug).await?;
    let delivery = support::claimed_delivery(conn, &receiver).await?;
    support::exhaust(conn, &receiver, delivery).await?;
    let letter = value(
        conn,
        "SELECT id FROM dead_letters WHERE delivery_id = $1",
        delivery,
    )
    .await?;
    Ok((receiver, delivery, letter))
}

async fn replay(conn: &mut PgConnection, letter: i64) -> sqlx::Result<i64> {
    value(conn, "SELECT replay_dead_letter($1)", letter).await
}

#[kapsel_testdb::test]
async fn a_replayed_delivery_can_succeed(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let (receiver, delivery, letter) = dead_letter(&mut conn, "acme").await?;
    assert_eq!(replay(&mut conn, letter).await?, delivery);
    assert_eq!(
        claim(&mut conn, receiver.tenant, "worker", 5).await?,
        [delivery]
    );
    attempt(&mut conn, delivery, 200).await?;

    assert_eq!(delivery_status(&mut conn, delivery).await?, "delivered");
    let attempts: i32 = value(
        &mut conn,
        "SELECT attempt_count FROM deliveries WHERE id = $1",
        delivery,
    )
    .await?;
    assert_eq!(attempts, 6, "the earlier attempts still count");
    Ok(())
}

#[kapsel_testdb::test]
async fn a_replay_that_fails_again_leaves_a_second_letter(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let (receiver, delivery, letter) = dead_letter(&mut conn, "acme").await?;
    replay(&mut conn, letter).await?;
    for _ in 0..3 {
        support::reclaim(&mut conn, receiver.tenant, delivery).await?;
        attempt(&mut conn, delivery, 500).await?;
    }

    let letters: Vec<bool> =
        sqlx::query_scalar("SELECT replayed_at IS NOT NULL FROM dead_letters ORDER BY id")
            .fetch_all(&mut *conn)
            .await?;
    assert_eq!(letters, [true, false]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_letter_can_be_replayed_once(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let (_, _, letter) = dead_letter(&mut conn, &test_id()).await?;
    replay(&mut conn, letter).await?;
    assert_eq!(sqlstate(replay(&mut conn, letter).await), "P0002");
    Ok(())
}

#[tokio::test]
async fn a_delivery_has_one_open_letter() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let (_, delivery, _) = dead_letter(&mut tx, &test_id()).await?;
    let result = sqlx::query("INSERT INTO dead_letters (delivery_id, reason) VALUES ($1, 'gone')")
        .bind(delivery)
        .execute(&mut *tx)
        .await;
    assert_eq!(sqlstate(result), UNIQUE_VIOLATION);
    Ok(())
}
