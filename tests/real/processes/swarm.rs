//! What a child process of [`crate::processes::many`] does: a test that uses very much at once, or very much one after the other.

use futures_util::future::{join_all, try_join_all};
use kapsel_testdb::{Leaks, TestDb, TestDbOptions};
use sqlx::{Executor, PgPool};

/// Does what the task says.
pub async fn swarm(task: &str) {
    match task {
        "swarm: 200 tasks on one pool" => tasks().await,
        "swarm: 40 databases, all used at once" => all_used().await,
        "swarm: 50 leases at once" => drop(at_once(50).await),
        "swarm: 60 leases, one after the other" => one_after_the_other().await,
        "swarm: 100 databases" => {
            databases(100).await;
            tell("peak", memory("VmHWM"));
        }
        "swarm: 10 cycles of 12 databases" => {
            for _ in 0..10 {
                databases(12).await;
                tell("memory", memory("VmRSS"));
            }
        }
        other => unreachable!("{other}"),
    }
}

async fn lease() -> TestDb {
    let lease = TestDbOptions::new().leaks(Leaks::Fail).lease().await;
    lease.expect("a lease")
}

async fn tasks() {
    let db = lease().await;
    let insert = |id: i32, pool: PgPool| async move {
        for round in 0..10 {
            let row = sqlx::query("INSERT INTO users VALUES ($1)").bind(id * 10 + round);
            row.execute(&pool).await.expect("a row");
        }
    };
    let tasks = (0..200).map(|id| tokio::spawn(insert(id, db.pool().clone())));
    for ended in join_all(tasks).await {
        ended.expect("a task that ends");
    }
    assert_eq!(count(&db, "users").await, 2000);
    db.assert_no_connections().await;
    db.release().await;
}

async fn at_once(number: usize) -> Vec<TestDb> {
    let leases = join_all((0..number).map(|_| lease())).await;
    let mut names: Vec<&str> = leases.iter().map(TestDb::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), number, "each lease has a database of its own");
    leases
}

/// More statements at once than there are connections, each on a pool of its own.
async fn all_used() {
    let leases = at_once(40).await;
    for round in 0..5 {
        let rows = leases.iter().map(|db| {
            let row = sqlx::query("INSERT INTO users VALUES ($1)").bind(round);
            row.execute(db.pool())
        });
        try_join_all(rows).await.expect("rows");
    }
    for db in leases {
        db.release().await;
    }
}

async fn one_after_the_other() {
    for _ in 0..60 {
        let db = lease().await;
        let inserted = db.pool().execute("INSERT INTO users VALUES (1)").await;
        inserted.expect("a fresh clone each time");
        db.release().await;
    }
}

/// Databases as tenants have them: all of them open, each used twice, so that pools have been closed meanwhile where connections
/// are few.
async fn databases(number: usize) {
    let mut leases = Vec::new();
    for _ in 0..number {
        leases.push(lease().await);
    }
    for round in 0..2 {
        for db in &leases {
            let row = sqlx::query("INSERT INTO users VALUES ($1)").bind(round);
            row.execute(db.pool()).await.expect("a row");
        }
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'processes::child::child'";
        let open: i64 = sqlx::query_scalar(ours)
            .fetch_one(leases[0].pool())
            .await
            .expect("a count");
        tell("connections", open.cast_unsigned());
    }
    // And several at once.
    let used = leases
        .iter()
        .take(5)
        .map(|db| db.pool().execute("SELECT 1"));
    try_join_all(used).await.expect("answers");
    for db in leases {
        assert_eq!(count(&db, "users").await, 2);
        db.release().await;
    }
}

async fn count(db: &TestDb, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
    count.fetch_one(db.pool()).await.expect("a count")
}

/// A line of /proc/self/status, in kB; 0 where there is no such file.
fn memory(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[expect(
    clippy::print_stdout,
    reason = "the test that started this process reads it"
)]
fn tell(what: &str, number: u64) {
    println!("{what} = {number}");
}
