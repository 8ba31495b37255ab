//! Operations that work in a sandbox as on any pool.

use std::time::Duration;

use sqlx::{Connection, Executor, PgPool};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Creates a table that only this test sees, and that disappears with its transaction.
async fn table(pool: &PgPool) -> sqlx::Result<()> {
    let create = "CREATE TEMPORARY TABLE items (id bigint PRIMARY KEY, note text)";
    pool.execute(create).await.map(drop)
}

async fn insert(on: impl Executor<'_, Database = sqlx::Postgres>, id: i64) -> sqlx::Result<()> {
    let insert = sqlx::query("INSERT INTO items VALUES ($1, 'a note')");
    insert.bind(id).execute(on).await.map(drop)
}

async fn ids(pool: &PgPool) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar("SELECT id FROM items ORDER BY id")
        .fetch_all(pool)
        .await
}

fn code(error: &sqlx::Error) -> String {
    let answer = error.as_database_error().and_then(|error| error.code());
    answer
        .unwrap_or_else(|| panic!("not an error of the server: {error}"))
        .into_owned()
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn ten_thousand_writing_acquires(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    for id in 0..10_000 {
        insert(&pool, id).await?;
    }
    assert_eq!(ids(&pool).await?.len(), 10_000);
    // A savepoint that was not released would hold a lock.
    let locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()";
    let locks: i64 = sqlx::query_scalar(locks).fetch_one(&pool).await?;
    assert!(locks < 50, "{locks}");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn commits_stay_and_rollbacks_undo(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut kept = pool.begin().await?;
    insert(&mut *kept, 1).await?;
    kept.commit().await?;
    let mut undone = pool.begin().await?;
    insert(&mut *undone, 2).await?;
    undone.rollback().await?;
    let mut dropped = pool.begin().await?;
    insert(&mut *dropped, 3).await?;
    drop(dropped);
    assert_eq!(ids(&pool).await?, [1]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn transactions_nest(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut outer = pool.begin().await?;
    insert(&mut *outer, 1).await?;
    let mut kept = outer.begin().await?;
    insert(&mut *kept, 2).await?;
    kept.commit().await?;
    let mut undone = outer.begin().await?;
    insert(&mut *undone, 3).await?;
    let mut inner = undone.begin().await?;
    insert(&mut *inner, 4).await?;
    inner.commit().await?;
    undone.rollback().await?;
    let mut dropped = outer.begin().await?;
    insert(&mut *dropped, 5).await?;
    drop(dropped);
    insert(&mut *outer, 6).await?;
    outer.commit().await?;
    assert_eq!(ids(&pool).await?, [1, 2, 6]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_failed_statement_undoes_only_itself(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    insert(&pool, 1).await?;
    let again = insert(&pool, 1).await.expect_err("a duplicate");
    assert_eq!(code(&again), "23505");
    let wrong = pool.execute("SELEC 1").await.expect_err("a typo");
    assert_eq!(code(&wrong), "42601");
    insert(&pool, 2).await?;
    let mut failing = pool.begin().await?;
    insert(&mut *failing, 3).await?;
    insert(&mut *failing, 3).await.expect_err("a duplicate");
    drop(failing);
    assert_eq!(ids(&pool).await?, [1, 2]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn an_inner_transaction_that_fails_leaves_the_outer_one(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut outer = pool.begin().await?;
    insert(&mut *outer, 1).await?;
    let mut inner = outer.begin().await?;
    insert(&mut *inner, 1).await.expect_err("a duplicate");
    inner.rollback().await?;
    insert(&mut *outer, 2).await?;
    outer.commit().await?;
    assert_eq!(ids(&pool).await?, [1, 2]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn tasks_take_turns(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut tasks = JoinSet::new();
    for id in 0..20 {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut tx = pool.begin().await?;
            insert(&mut *tx, id).await?;
            tokio::task::yield_now().await;
            tx.commit().await?;
            ids(&pool).await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        assert!(!ended.expect("no panic")?.is_empty());
    }
    assert_eq!(ids(&pool).await?.len(), 20);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
fn a_test_that_is_not_async(pool: PgPool) {
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(async {
        table(&pool).await.expect("a table");
        insert(&pool, 1).await.expect("a row");
    });
    let worker = std::thread::spawn(move || {
        let ids = runtime.block_on(ids(&pool));
        assert_eq!(ids.expect("rows"), [1]);
    });
    worker.join().expect("no panic");
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_stream_may_be_left(pool: PgPool) -> sqlx::Result<()> {
    use futures_util::StreamExt;

    table(&pool).await?;
    pool.execute("INSERT INTO items SELECT generate_series(1, 5000)")
        .await?;
    let mut rows = sqlx::query("SELECT id FROM items").fetch(&pool);
    rows.next().await.expect("a row")?;
    drop(rows);
    insert(&pool, 0).await?;
    assert_eq!(ids(&pool).await?.len(), 5001);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_statement_whose_future_is_dropped_goes_on_and_the_sandbox_too(
    pool: PgPool,
) -> sqlx::Result<()> {
    table(&pool).await?;
    insert(&pool, 1).await?;
    abandon(&pool, "INSERT INTO items SELECT 2 FROM pg_sleep(0.4)").await?;
    assert_eq!(ids(&pool).await?, [1, 2]);
    // A statement that fails after that leaves its error to the next acquire.
    abandon(&pool, "INSERT INTO items SELECT 2 FROM pg_sleep(0.4)").await?;
    assert_eq!(ids(&pool).await?, [1, 2]);
    let mut tx = pool.begin().await?;
    let failing = tx.execute("INSERT INTO items SELECT 2 FROM pg_sleep(0.4)");
    timeout(BRIEF, failing).await.expect_err("it takes longer");
    drop(tx);
    assert_eq!(ids(&pool).await?, [1, 2]);
    Ok(())
}

/// Shorter than the statements that sleep.
const BRIEF: Duration = Duration::from_millis(5);

/// Starts a statement and drops its future.
async fn abandon(pool: &PgPool, sql: &'static str) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    let statement = connection.execute(sql);
    timeout(BRIEF, statement)
        .await
        .map(drop)
        .expect_err("it takes longer");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn work_before_a_dropped_transaction_stays(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let mut connection = pool.acquire().await?;
    insert(&mut *connection, 1).await?;
    let mut tx = connection.begin().await?;
    let failing = tx.execute("INSERT INTO items SELECT 1 FROM pg_sleep(0.4)");
    timeout(BRIEF, failing).await.expect_err("it takes longer");
    drop(tx);
    drop(connection);
    assert_eq!(ids(&pool).await?, [1]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn an_acquire_or_begin_may_be_cancelled(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    let (mut rows, mut cancelled) = (0, 0);
    while cancelled < 5 {
        let _ = timeout(Duration::ZERO, pool.acquire()).await;
        let _ = timeout(Duration::ZERO, pool.begin()).await;
        // Polled once, and dropped while the statement runs, unless the server was faster.
        let mut connection = pool.acquire().await?;
        let begun = timeout(Duration::ZERO, connection.begin()).await;
        cancelled += i64::from(begun.map(drop).is_err());
        drop(connection);
        insert(&pool, rows).await?;
        rows += 1;
    }
    assert_eq!(ids(&pool).await?, (0..rows).collect::<Vec<_>>());
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_commit_may_be_cancelled(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    insert(&pool, 1).await?;
    for id in 2..10 {
        let mut tx = pool.begin().await?;
        insert(&mut *tx, id).await?;
        let _ = timeout(Duration::ZERO, tx.commit()).await;
    }
    assert!(ids(&pool).await?.contains(&1));
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn a_failed_begin_undoes_only_its_acquire(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    insert(&pool, 1).await?;
    let mut connection = pool.acquire().await?;
    insert(&mut *connection, 2).await?;
    insert(&mut *connection, 2).await.expect_err("a duplicate");
    let refused = connection.begin().await.map(drop).expect_err("aborted");
    assert_eq!(code(&refused), "25P02");
    drop(connection);
    insert(&pool, 3).await?;
    let mut tx = pool.begin().await?;
    insert(&mut *tx, 4).await?;
    tx.commit().await?;
    assert_eq!(ids(&pool).await?, [1, 3, 4]);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn statements_stay_prepared(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    insert(&pool, 1).await?;
    let before = pool.acquire().await?.cached_statements_size();
    insert(&pool, 1).await.expect_err("a duplicate");
    insert(&pool, 2).await?;
    assert_eq!(pool.acquire().await?.cached_statements_size(), before);
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn the_application_may_close_the_pool(pool: PgPool) -> sqlx::Result<()> {
    table(&pool).await?;
    pool.close().await;
    let refused = pool.acquire().await.expect_err("closed");
    assert!(matches!(refused, sqlx::Error::PoolClosed), "{refused}");
    Ok(())
}

#[kapsel_testdb::test(isolation = "transaction")]
async fn the_first_statement_may_fail(pool: PgPool) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    connection.execute("SELECT 1 / 0").await.expect_err("zero");
    connection.begin().await.map(drop).expect_err("aborted");
    drop(connection);
    pool.execute("SELECT 1 / 0").await.expect_err("zero");
    table(&pool).await?;
    insert(&pool, 1).await?;
    assert_eq!(ids(&pool).await?, [1]);
    Ok(())
}
