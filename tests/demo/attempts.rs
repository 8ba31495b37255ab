//! Attempts: the effect of each answer on its delivery and endpoint, and the partitions.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{
    self, ILLEGAL_TRANSITION, attempt, delivery_status, reclaim, sqlstate, value, violated,
};

async fn attempt_at(conn: &mut PgConnection, delivery: i64, at: &str) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "INSERT INTO delivery_attempts (delivery_id, http_status, attempted_at) VALUES ($1, 200, $2::timestamptz)
         RETURNING tableoid::regclass::text",
    )
    .bind(delivery)
    .bind(at)
    .fetch_one(conn)
    .await
}

async fn ensure_partition(conn: &mut PgConnection, month: &str) -> sqlx::Result<String> {
    sqlx::query_scalar("SELECT ensure_attempt_partition($1::date)")
        .bind(month)
        .fetch_one(conn)
        .await
}

#[tokio::test]
async fn an_answer_of_2xx_delivers() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    attempt(&mut tx, delivery, 204).await?;

    assert_eq!(delivery_status(&mut tx, delivery).await?, "delivered");
    let free: bool = value(
        &mut tx,
        "SELECT locked_by IS NULL FROM deliveries WHERE id = $1",
        delivery,
    )
    .await?;
    assert!(free, "the worker's lease is over");
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_no_success() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    attempt(&mut tx, delivery, 302).await?;
    assert_eq!(delivery_status(&mut tx, delivery).await?, "retrying");
    Ok(())
}

#[tokio::test]
async fn each_failure_doubles_the_wait() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    for seconds in [5, 10, 20] {
        attempt(&mut tx, delivery, 500).await?;
        // now() does not advance within a transaction, so the difference is exact.
        let wait: i32 =
            value(&mut tx, "SELECT extract(epoch FROM next_attempt_at - now())::integer FROM deliveries WHERE id = $1", delivery)
                .await?;
        assert_eq!(wait, seconds);
        reclaim(&mut tx, receiver.tenant, delivery).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_last_failure_leaves_a_dead_letter() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    support::exhaust(&mut tx, &receiver, delivery).await?;

    assert_eq!(delivery_status(&mut tx, delivery).await?, "dead");
    let letter: (String, i32) = sqlx::query_as(
        "SELECT reason::text, last_http_status FROM dead_letters WHERE delivery_id = $1",
    )
    .bind(delivery)
    .fetch_one(&mut *tx)
    .await?;
    assert_eq!(letter, ("exhausted".into(), 503));
    Ok(())
}

#[tokio::test]
async fn an_answer_of_410_gives_up_at_once_and_disables_the_endpoint() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    attempt(&mut tx, delivery, 410).await?;

    assert_eq!(delivery_status(&mut tx, delivery).await?, "dead");
    let reason: Option<String> = value(
        &mut tx,
        "SELECT disabled_reason FROM endpoints WHERE id = $1",
        receiver.endpoint,
    )
    .await?;
    assert_eq!(reason.as_deref(), Some("gone"));
    Ok(())
}

#[tokio::test]
async fn too_many_failures_in_a_row_disable_the_endpoint_and_a_success_starts_anew()
-> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    sqlx::query("UPDATE endpoints SET failure_threshold = 3 WHERE id = $1")
        .bind(receiver.endpoint)
        .execute(&mut *tx)
        .await?;
    let status = "SELECT status::text FROM endpoints WHERE id = $1";

    for answer in [500, 500, 200, 500, 500] {
        let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
        attempt(&mut tx, delivery, answer).await?;
        assert_eq!(
            value::<String>(&mut tx, status, receiver.endpoint).await?,
            "active"
        );
    }
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    attempt(&mut tx, delivery, 500).await?;
    assert_eq!(
        value::<String>(&mut tx, status, receiver.endpoint).await?,
        "disabled"
    );
    Ok(())
}

#[tokio::test]
async fn a_delivery_that_nobody_claimed_cannot_be_attempted() -> sqlx::Result<()> {
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
        sqlstate(attempt(&mut tx, delivery, 200).await),
        ILLEGAL_TRANSITION
    );
    Ok(())
}

#[tokio::test]
async fn an_attempt_needs_an_answer_or_an_error() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut tx, &receiver).await?;
    let result = sqlx::query("INSERT INTO delivery_attempts (delivery_id) VALUES ($1)")
        .bind(delivery)
        .execute(&mut *tx)
        .await;
    assert_eq!(violated(result), "delivery_attempts_answer_or_error");
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn attempts_are_numbered_in_order(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
    support::exhaust(&mut conn, &receiver, delivery).await?;

    let numbers: Vec<i32> = value(
        &mut conn,
        "SELECT array_agg(attempt_no ORDER BY attempted_at) FROM delivery_attempts WHERE delivery_id = $1",
        delivery,
    )
    .await?;
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    Ok(())
}

#[kapsel_testdb::test]
async fn an_attempt_lands_in_the_partition_of_its_month(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    for (at, partition) in [
        ("2025-01-31 23:59:59.999999+00", "delivery_attempts_2025_01"),
        ("2025-02-01 00:00:00+00", "delivery_attempts_2025_02"),
        // Still January in UTC.
        ("2025-02-01 00:30:00+01", "delivery_attempts_2025_01"),
    ] {
        let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
        assert_eq!(
            attempt_at(&mut conn, delivery, at).await?,
            partition,
            "attempted at {at}"
        );
    }
    Ok(())
}

#[kapsel_testdb::test]
async fn an_attempt_without_a_partition_goes_to_the_default_one(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
    assert_eq!(
        attempt_at(&mut conn, delivery, "2031-07-01 12:00+00").await?,
        "delivery_attempts_default"
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn a_new_months_partition_takes_that_months_attempts(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
    let partition = ensure_partition(&mut conn, "2031-12-24").await?;
    assert_eq!(partition, "delivery_attempts_2031_12");
    assert_eq!(
        attempt_at(&mut conn, delivery, "2031-12-31 23:00+00").await?,
        partition
    );
    Ok(())
}

#[kapsel_testdb::test]
async fn asking_twice_for_a_partition_creates_it_once(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'delivery_attempts'::regclass";
    let before: i64 = sqlx::query_scalar(count).fetch_one(&mut *conn).await?;
    let first = ensure_partition(&mut conn, "2031-12-01").await?;
    let second = ensure_partition(&mut conn, "2031-12-31").await?;
    let after: i64 = sqlx::query_scalar(count).fetch_one(&mut *conn).await?;

    assert_eq!(first, second);
    assert_eq!(after, before + 1);
    Ok(())
}

#[kapsel_testdb::test]
async fn a_query_for_one_month_reads_one_partition(pool: PgPool) -> sqlx::Result<()> {
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (COSTS off) SELECT * FROM delivery_attempts
         WHERE attempted_at >= '2025-02-10 00:00+00' AND attempted_at < '2025-02-11 00:00+00'",
    )
    .fetch_all(&pool)
    .await?;
    let plan = plan.join("\n");
    assert!(plan.contains("delivery_attempts_2025_02"), "{plan}");
    for other in ["2025_01", "2025_03", "default"] {
        assert!(!plan.contains(other), "{plan}");
    }
    Ok(())
}

#[kapsel_testdb::test]
async fn dropping_a_month_keeps_the_deliveries(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    for at in ["2025-01-15 00:00+00", "2025-02-15 00:00+00"] {
        let delivery = support::claimed_delivery(&mut conn, &receiver).await?;
        attempt_at(&mut conn, delivery, at).await?;
    }
    sqlx::query("DROP TABLE delivery_attempts_2025_01")
        .execute(&mut *conn)
        .await?;

    let left: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM delivery_attempts), (SELECT count(*) FROM deliveries)",
    )
    .fetch_one(&mut *conn)
    .await?;
    assert_eq!(left, (1, 2));
    Ok(())
}
