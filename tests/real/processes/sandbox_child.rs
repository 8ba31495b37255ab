//! A user's test in a sandbox: this test binary, started again with one ignored test, which does as its environment says.

use std::time::Duration;

use kapsel_testdb::TestDb;
use sqlx::{Executor, PgPool};

use crate::processes::child::tell;
use crate::support::{Outcome, PATIENCE, Project, Tool, poll_until};

/// What the child does.
const DO: &str = "KT_SANDBOX_DO";
/// The folder in which children tell each other how far they are.
const MEET: &str = "KT_MEET";

#[kapsel_testdb::test(isolation = "transaction")]
#[ignore = "a child process of the other tests"]
async fn child(pool: PgPool) {
    let Ok(task) = std::env::var(DO) else { return };
    match task.as_str() {
        "write" => row(&pool, 1).await,
        "panic" => {
            row(&pool, 1).await;
            panic!("as a failing test does");
        }
        "commit" => raw(&pool, "COMMIT").await,
        "commit late" => {
            raw(&pool, "COMMIT").await;
            row(&pool, 2).await;
        }
        "commit in the last statement" => {
            let mut held = pool.acquire().await.expect("the connection");
            held.execute("INSERT INTO users VALUES (1)")
                .await
                .expect("a row");
            held.execute("COMMIT").await.expect("raw");
        }
        "begin and commit" => raw(&pool, "BEGIN; INSERT INTO users VALUES (2); COMMIT").await,
        "commit and begin" => raw(&pool, "COMMIT; BEGIN; INSERT INTO users VALUES (2)").await,
        "rollback" => raw(&pool, "ROLLBACK").await,
        "rollback and write" => {
            let mut held = pool.acquire().await.expect("the connection");
            held.execute("ROLLBACK").await.expect("raw");
            let write = held.execute("INSERT INTO users VALUES (1)").await;
            let refused = write.expect_err("it would stay");
            assert!(refused.to_string().contains("read-only"), "{refused}");
        }
        "prepare" => raw(&pool, "PREPARE TRANSACTION 'sandbox'").await,
        "detach" => drop(pool.acquire().await.expect("the connection").detach()),
        "close" => pool
            .acquire()
            .await
            .expect("it")
            .close()
            .await
            .expect("closed"),
        "terminate" => {
            let ended = pool
                .execute("SELECT pg_terminate_backend(pg_backend_pid())")
                .await;
            ended.expect_err("nobody is left to answer");
        }
        "fail after a commit" => {
            raw(&pool, "COMMIT").await;
            panic!("as a failing test does");
        }
        "second" => second(&pool).await,
        "wait and get it" => wait_and_get_it(&pool).await,
        "hold" => hold(&pool).await,
        "want" => row(&pool, 1).await,
        "first of two" => deadlock(&pool, [1, 2]).await,
        "second of two" => deadlock(&pool, [2, 1]).await,
        other => unreachable!("{other}"),
    }
}

/// The same without the attribute.
#[tokio::test]
#[ignore = "a child process of the other tests"]
async fn by_hand() {
    let Ok(task) = std::env::var(DO) else { return };
    let sandbox = TestDb::sandbox().await.expect("a sandbox");
    match task.as_str() {
        "release" => {
            raw(sandbox.pool(), "COMMIT").await;
            sandbox.release().await;
        }
        "drop" => {
            raw(sandbox.pool(), "COMMIT").await;
            // The connection is back, so that what became of it is known.
            while sandbox.pool().size() > 0 {
                tokio::task::yield_now().await;
            }
        }
        other => unreachable!("{other}"),
    }
}

async fn row(pool: &PgPool, id: i32) {
    let insert = sqlx::query("INSERT INTO users VALUES ($1)").bind(id);
    insert.execute(pool).await.expect("a row");
}

async fn raw(pool: &PgPool, sql: &'static str) {
    row(pool, 1).await;
    sqlx::raw_sql(sql)
        .execute(pool)
        .await
        .expect("a raw statement");
}

async fn second(pool: &PgPool) {
    let held = pool.acquire().await.expect("the connection");
    let other = pool.acquire().await;
    drop(held);
    other.expect("a second one");
}

/// Somebody waits for the connection, which is in use for long, and gets it in time.
async fn wait_and_get_it(pool: &PgPool) {
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { row(&pool, 1).await }
    });
    pool.execute("SELECT pg_sleep(0.7)")
        .await
        .expect("some time");
    waiting.await.expect("no panic");
}

async fn hold(pool: &PgPool) {
    row(pool, 1).await;
    tell("a row");
    let wait = || std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new());
    let waited = tokio::task::spawn_blocking(wait).await;
    waited.expect("no panic").expect("standard input");
}

async fn deadlock(pool: &PgPool, ids: [i32; 2]) {
    let folder = std::path::PathBuf::from(std::env::var_os(MEET).expect("a folder"));
    row(pool, ids[0]).await;
    std::fs::write(folder.join(ids[0].to_string()), "").expect("a file");
    let other = folder.join(ids[1].to_string());
    let there = || {
        if other.exists() {
            Ok(())
        } else {
            Err(String::new())
        }
    };
    poll_until("the other one has its row", PATIENCE, there);
    row(pool, ids[1]).await;
}

/// A child of the attribute's, under the name that a test of it would have.
pub fn command(project: &Project, exported: &str, task: &str) -> Tool {
    start(project, exported, "processes::sandbox_child::child", task)
}

/// A child without the attribute.
pub fn by_hand_command(project: &Project, exported: &str, task: &str) -> Tool {
    start(project, exported, "processes::sandbox_child::by_hand", task)
}

/// Runs the child to its end.
pub fn run(project: &Project, exported: &str, task: &str) -> Outcome {
    command(project, exported, task).run()
}

/// Two children that wait for each other.
pub fn two(project: &Project, exported: &str) -> [Outcome; 2] {
    let meet = project.beside("meet");
    std::fs::create_dir(&meet).expect("a folder");
    let start = |task: &str| {
        let tool = command(project, exported, task).env(MEET, &meet);
        tool.env("NEXTEST_TEST_NAME", task).spawn()
    };
    let [first, second] = ["first of two", "second of two"].map(start);
    [Outcome::of(first), Outcome::of(second)]
}

fn start(project: &Project, exported: &str, test: &str, task: &str) -> Tool {
    let binary = std::env::current_exe().expect("this test binary");
    let tool = project
        .program(binary)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(DO, task);
    let variables = exported.lines().filter_map(|line| line.split_once('='));
    variables.fold(tool, |tool, (name, value)| tool.env(name, value))
}

/// More than a statement takes, and less than anybody waits.
pub const AWHILE: Duration = Duration::from_millis(1_500);
