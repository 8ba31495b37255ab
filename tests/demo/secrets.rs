//! Signing secrets: the signatures that receivers check, and the rotation of secrets.

use kapsel_testdb::{TestDb, test_id};
use sqlx::{PgConnection, PgPool};

use crate::support::{self, UNIQUE_VIOLATION, sqlstate, value, violated};

async fn signatures(conn: &mut PgConnection, endpoint: i64) -> sqlx::Result<Vec<String>> {
    let header: Option<String> = value(
        conn,
        "SELECT signature_header($1, 'msg_1', 1700000000, '{}')",
        endpoint,
    )
    .await?;
    Ok(header
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

async fn sign(conn: &mut PgConnection, timestamp: i64, body: &str) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "SELECT webhook_signature(decode('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64'), 'msg_p5jXN8AQM9LWM0D4loKWxJek', $1, $2)",
    )
    .bind(timestamp)
    .bind(body)
    .fetch_one(conn)
    .await
}

#[tokio::test]
async fn a_signature_is_that_of_the_published_example() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let signature = sign(&mut tx, 1_614_265_330, r#"{"test": 2432232314}"#).await?;
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    Ok(())
}

#[tokio::test]
async fn a_signature_covers_time_and_body() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let signature = sign(&mut tx, 1_614_265_330, "{}").await?;
    assert_ne!(sign(&mut tx, 1_614_265_331, "{}").await?, signature);
    assert_ne!(sign(&mut tx, 1_614_265_330, "{ }").await?, signature);
    Ok(())
}

#[tokio::test]
async fn a_short_secret_is_refused() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    let result =
        sqlx::query("INSERT INTO signing_secrets (endpoint_id, version, secret) VALUES ($1, 1, gen_random_bytes(23))")
            .bind(receiver.endpoint)
            .execute(&mut *tx)
            .await;
    assert_eq!(violated(result), "signing_secrets_strength");
    Ok(())
}

#[tokio::test]
async fn an_endpoint_without_a_secret_signs_nothing() -> sqlx::Result<()> {
    let mut tx = TestDb::begin()
        .await
        .expect("a transaction on the shared clone");
    let receiver = support::receiver(&mut tx, &test_id()).await?;
    assert!(signatures(&mut tx, receiver.endpoint).await?.is_empty());
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn both_secrets_sign_while_a_rotation_overlaps(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    value::<i32>(
        &mut conn,
        "SELECT rotate_signing_secret($1)",
        receiver.endpoint,
    )
    .await?;
    let before = signatures(&mut conn, receiver.endpoint).await?;
    let version: i32 = value(
        &mut conn,
        "SELECT rotate_signing_secret($1)",
        receiver.endpoint,
    )
    .await?;
    let during = signatures(&mut conn, receiver.endpoint).await?;

    assert_eq!(version, 2);
    assert_eq!(during.len(), 2);
    assert_eq!(
        during[1..],
        before[..],
        "the newest comes first, the old one still signs"
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "shared")]
async fn a_rotation_without_overlap_silences_the_old_secret_at_once(
    pool: PgPool,
) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, &test_id()).await?;
    value::<i32>(
        &mut conn,
        "SELECT rotate_signing_secret($1)",
        receiver.endpoint,
    )
    .await?;
    let before = signatures(&mut conn, receiver.endpoint).await?;
    value::<i32>(
        &mut conn,
        "SELECT rotate_signing_secret($1, interval '0')",
        receiver.endpoint,
    )
    .await?;
    let after = signatures(&mut conn, receiver.endpoint).await?;

    assert_eq!(after.len(), 1);
    assert_ne!(after, before);
    Ok(())
}

#[kapsel_testdb::test]
async fn an_endpoint_has_one_current_secret(pool: PgPool) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let receiver = support::receiver(&mut conn, "acme").await?;
    value::<i32>(
        &mut conn,
        "SELECT rotate_signing_secret($1)",
        receiver.endpoint,
    )
    .await?;
    let result =
        sqlx::query("INSERT INTO signing_secrets (endpoint_id, version, secret) VALUES ($1, 2, gen_random_bytes(32))")
            .bind(receiver.endpoint)
            .execute(&mut *conn)
            .await;
    assert_eq!(sqlstate(result), UNIQUE_VIOLATION);
    Ok(())
}
