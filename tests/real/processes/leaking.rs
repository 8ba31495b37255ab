//! What a child process of [`crate::processes::leaks`] does: a test that leaves something open, or nothing.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use kapsel_testdb::testing::{self, TestPlan};
use kapsel_testdb::{Leaks, TestDb, TestDbOptions};
use sqlx::{Connection, Executor, PgConnection, PgPool};

use crate::support::{PATIENCE, SUPERUSER, replication_connection};

/// Leaves what the task says and gives the database back.
pub async fn leave(task: &str) {
    let db = match task {
        "leaves a connection of the shared pool" | "leaves nothing shared" => {
            TestDb::shared().await
        }
        "leaves a connection of a sandbox" | "leaves nothing in a sandbox" => {
            TestDb::sandbox().await
        }
        _ => TestDb::lease().await,
    };
    let db = db.expect("a database");
    match task {
        "leaves nothing" | "leaves nothing shared" | "leaves nothing in a sandbox" => {
            nothing(db).await
        }
        "leaves a connection"
        | "leaves a connection of the shared pool"
        | "leaves a connection of a sandbox" => connection(db).await,
        "leaves all connections" => all_connections(db).await,
        "leaves a pool" => pool(db).await,
        "leaves a transaction" => transaction(db).await,
        "leaves a query" => query(db).await,
        "leaves and asserts" => asserts(db).await,
        "leaves a replication connection" => replication(db).await,
        "leaves a background worker" => worker(db).await,
        other => unreachable!("{other}"),
    }
}

/// A test as the attribute makes it, which leaves a connection of its pool and passes.
pub fn attribute() {
    let plan = TestPlan::new("/").leaks(Leaks::Fail);
    testing::run(
        plan,
        |pool: PgPool| async move {
            std::mem::forget(pool.acquire().await.expect("a connection"));
        },
        |_| None,
    );
}

/// Uses all there is, and drops it in the last moment.
async fn nothing(db: TestDb) {
    let own = PgPool::connect_with(db.connect_options()).await;
    let own = own.expect("a pool of its own");
    own.execute("SELECT 1").await.expect("an answer");
    let size = db.pool().options().get_max_connections();
    let all = try_join_all((0..size).map(|_| db.pool().acquire())).await;
    own.close().await;
    drop(all.expect("all connections"));
    db.release().await;
}

async fn connection(db: TestDb) {
    let mut held = db.pool().acquire().await.expect("a connection");
    held.execute("SELECT 'held'").await.expect("an answer");
    let task = tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    db.release().await;
    task.abort();
}

async fn all_connections(db: TestDb) {
    let size = db.pool().options().get_max_connections();
    let all = try_join_all((0..size).map(|_| db.pool().acquire())).await;
    db.release().await;
    drop(all);
}

async fn pool(db: TestDb) {
    let own = PgPool::connect_with(db.connect_options()).await;
    let own = own.expect("a pool of its own");
    own.execute("SELECT 'of the application'")
        .await
        .expect("an answer");
    db.release().await;
    drop(own);
}

async fn transaction(db: TestDb) {
    let options = db.connect_options();
    let mut own = PgConnection::connect_with(&options)
        .await
        .expect("a connection");
    own.execute("BEGIN; INSERT INTO users\n VALUES (1)")
        .await
        .expect("a row");
    db.release().await;
    drop(own);
}

/// A query that goes on after its future was dropped.
async fn query(db: TestDb) {
    let asleep = db.pool().execute("SELECT pg_sleep(60)");
    let timed_out = tokio::time::timeout(Duration::from_millis(20), asleep).await;
    assert!(timed_out.is_err(), "it sleeps for longer");
    db.release().await;
}

/// The helpers: what is in use is counted, and asserted.
async fn asserts(db: TestDb) {
    db.assert_no_connections().await;
    assert_eq!(db.active_connections().await.expect("a count"), 0);
    let held = db.pool().acquire().await.expect("a connection");
    let own = PgPool::connect_with(db.connect_options()).await;
    let own = own.expect("a pool of its own");
    assert_eq!(db.active_connections().await.expect("a count"), 2);
    own.close().await;
    drop(held);
    db.assert_no_connections().await;
    let other = TestDbOptions::new().leaks(Leaks::Off).lease();
    let other = other.await.expect("another lease");
    let _held = other.pool().acquire().await.expect("a connection");
    other.release().await;
    let _held = db.pool().acquire().await.expect("a connection");
    db.assert_no_connections().await;
}

/// This is no leak, so the check does not wait for its end.
async fn replication(db: TestDb) {
    let config = db.config();
    let folder = config.socket_folder().expect("a socket");
    let connection = replication_connection(folder, config.port(), config.database());
    is_quiet_at_once(&db).await;
    drop(connection);
    db.release().await;
}

/// A subscription has a worker on the database, whose kind only a superuser sees.
async fn worker(db: TestDb) {
    let options = db.connect_options().username(SUPERUSER);
    let publisher = PgPool::connect_with(options.clone().database("postgres")).await;
    let publisher = publisher.expect("the publisher");
    let own = PgPool::connect_with(options).await.expect("a subscriber");
    let slot = "SELECT pg_create_logical_replication_slot('leaks', 'pgoutput')";
    publisher.execute(slot).await.expect("a slot");
    let publication = publisher.execute("CREATE PUBLICATION leaks").await;
    publication.expect("a publication");
    let config = db.config();
    let (socket, port) = (config.socket_folder().expect("a socket"), config.port());
    let subscription = format!(
        "CREATE SUBSCRIPTION leaks CONNECTION 'host={} port={port} user={SUPERUSER} dbname=postgres' \
         PUBLICATION leaks WITH (create_slot = false, slot_name = 'leaks')",
        socket.display()
    );
    let subscription = sqlx::AssertSqlSafe(subscription);
    own.execute(subscription).await.expect("a subscription");
    let works = "SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL";
    kapsel_testdb::wait_until("the worker runs", PATIENCE, async || {
        let workers = sqlx::query_scalar::<_, i64>(works);
        match workers.fetch_one(&publisher).await.expect("a count") {
            1 => Ok(()),
            n => Err(format!("{n} workers")),
        }
    })
    .await
    .expect("a worker");
    own.close().await;
    is_quiet_at_once(&db).await;
    let own = PgPool::connect_with(db.connect_options().username(SUPERUSER)).await;
    let own = own.expect("a subscriber");
    let dropped = own.execute("DROP SUBSCRIPTION leaks").await;
    dropped.expect("no subscription");
    own.close().await;
    db.release().await;
}

/// Nothing is open, and the check does not wait for anything. On a busy machine some checks take longer.
async fn is_quiet_at_once(db: &TestDb) {
    let begun = Instant::now();
    loop {
        let check = Instant::now();
        db.assert_no_connections().await;
        if check.elapsed() < Duration::from_millis(100) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "each check waits");
    }
    assert_eq!(db.active_connections().await.expect("a count"), 0);
}
