//! Each difference that docs/SANDBOX.md lists.

use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;
use sqlx::{Executor, PgPool};
use tokio::time::timeout;

fn code(error: &sqlx::Error) -> String {
    let answer = error.as_database_error().and_then(|error| error.code());
    answer
        .unwrap_or_else(|| panic!("not an error of the server: {error}"))
        .into_owned()
}

async fn table(pool: &PgPool) -> sqlx::Result<()> {
    let create = "CREATE TEMPORARY TABLE items (id bigint PRIMARY KEY)";
    pool.execute(create).await.map(drop)
}

async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM items")
        .fetch_one(pool)
        .await
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_failed_statement_aborts_a_connection_that_is_held(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut held = pool.acquire().await?;
    held.execute("INSERT INTO items VALUES (1)").await?;
    held.execute("INSERT INTO items VALUES (1)")
        .await
        .expect_err("a duplicate");
    let next = held.execute("SELECT 1").await.expect_err("aborted");
    assert_eq!(code(&next), "25P02");
    drop(held);
    assert_eq!(count(&pool).await?, 0, "the release undid the first row");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn the_commit_of_an_aborted_transaction_is_an_error(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("SELECT 1 / 0")
        .await
        .expect_err("a division by zero");
    let refused = tx.commit().await.expect_err("without a sandbox it is Ok");
    assert_eq!(code(&refused), "25P02");
    pool.execute("SELECT 1").await.map(drop)
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn begin_with_fails_at_once(pool: PgPool) -> sqlx::Result<()> {
    let begun = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await;
    begun.map(drop).expect_err("also as the first statement");
    table(&pool).await?;
    pool.execute("INSERT INTO items VALUES (1)").await?;
    let begun = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await;
    let refused = begun
        .map(drop)
        .expect_err("a savepoint has no isolation level");
    assert!(
        matches!(refused, sqlx::Error::InvalidSavePointStatement),
        "{refused}"
    );
    assert_eq!(count(&pool).await?, 1, "the sandbox continues");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn the_isolation_level_cannot_be_set(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    let set = tx
        .execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        .await;
    assert_eq!(code(&set.expect_err("too late")), "25001");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn set_local_outlives_the_commit(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("SET LOCAL statement_timeout = '77s'").await?;
    tx.commit().await?;
    let now: String = sqlx::query_scalar("SHOW statement_timeout")
        .fetch_one(&pool)
        .await?;
    assert_eq!(now, "77s");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_rollback_undoes_set_local(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("SET LOCAL statement_timeout = '77s'").await?;
    tx.rollback().await?;
    let now: String = sqlx::query_scalar("SHOW statement_timeout")
        .fetch_one(&pool)
        .await?;
    assert_ne!(now, "77s");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn deferred_constraints_are_checked_only_on_request(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    pool.execute(
        "CREATE TEMPORARY TABLE parts (item bigint REFERENCES items DEFERRABLE INITIALLY DEFERRED)",
    )
    .await?;
    let mut tx = pool.begin().await?;
    tx.execute("INSERT INTO parts VALUES (7)").await?;
    tx.commit().await.expect("the constraint is not checked");
    let mut tx = pool.begin().await?;
    let checked = tx.execute("SET CONSTRAINTS ALL IMMEDIATE").await;
    assert_eq!(code(&checked.expect_err("there is no such item")), "23503");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn an_advisory_lock_of_a_transaction_lasts_to_the_end(pool: PgPool) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    let key = i64::from(std::process::id()) + (1 << 40);
    let take = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(key);
    take.execute(&mut *tx).await?;
    tx.commit().await?;
    let held =
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&pool).await?;
    assert_eq!(held, 1);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn now_does_not_advance(pool: PgPool) -> sqlx::Result<()> {
    let ask = "SELECT now()::text, clock_timestamp()::text";
    let (now, clock): (String, String) = sqlx::query_as(ask).fetch_one(&pool).await?;
    let (then, later): (String, String) = sqlx::query_as(ask).fetch_one(&pool).await?;
    assert_eq!(now, then);
    assert_ne!(clock, later);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn notifications_are_not_delivered(pool: PgPool) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("sandbox").await?;
    listener.execute("NOTIFY sandbox").await?;
    let heard = timeout(Duration::from_millis(100), listener.recv()).await;
    heard.expect_err("notifications are delivered at the commit, which never happens");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_second_connection_is_refused_in_time(pool: PgPool) -> sqlx::Result<()> {
    let held = pool.acquire().await?;
    let begun = Instant::now();
    let refused = pool.acquire().await.expect_err("there is only one");
    assert!(matches!(refused, sqlx::Error::PoolTimedOut), "{refused}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    drop(held);
    pool.execute("SELECT 1").await.map(drop)
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn options_of_the_pool_lead_to_no_database(pool: PgPool) -> sqlx::Result<()> {
    let elsewhere = PgPool::connect_with((*pool.connect_options()).clone()).await;
    let refused = elsewhere.expect_err("no connection outside of the sandbox may see its rows");
    assert!(
        refused
            .to_string()
            .contains("no second connection in a sandbox"),
        "{refused}"
    );
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_raw_begin_only_warns(pool: PgPool) -> sqlx::Result<()> {
    pool.execute("BEGIN").await.map(drop)
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn statements_that_must_not_run_in_a_transaction_fail(pool: PgPool) -> sqlx::Result<()> {
    for sql in ["VACUUM", "DISCARD ALL", "CREATE DATABASE elsewhere"] {
        let refused = pool.execute(sql).await.expect_err("there is a transaction");
        assert_eq!(code(&refused), "25001", "{sql}");
    }
    Ok(())
}
