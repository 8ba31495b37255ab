//! A test process of a user's: this test binary, started again with one ignored test, which does as its environment says.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use futures_util::future::try_join_all;
use kapsel_testdb::testing::{Isolation, TestPlan};
use kapsel_testdb::{TestDb, TestDbOptions};
use kapsel_testdb_core::platform::{self, Signal};
use sqlx::AssertSqlSafe;
use tokio::signal::unix::{self, SignalKind};

use crate::processes::leaking;
use crate::processes::readme;
use crate::processes::swarm;
use crate::support::{Outcome, PATIENCE, Project, Tool, try_poll_until};

/// What the child does.
pub const DO: &str = "KT_DO";
/// How many connections it declares.
pub const CONNECTIONS: &str = "KT_CONNECTIONS";
/// What it does in the shared clone.
pub const SQL: &str = "KT_SQL";
/// The template that it asks for.
pub const TEMPLATE: &str = "KT_TEMPLATE";
/// Where it writes its database's name.
const NAME: &str = "KT_NAME";

#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    let Ok(task) = std::env::var(DO) else { return };
    if task == "err" {
        return fail_without_panic();
    }
    if task == "readme" {
        return readme::fail();
    }
    if let Some(isolation) = task.strip_prefix("fails ") {
        return fail_after_sql(isolation);
    }
    if let Some(how) = task.strip_prefix("exhausts ") {
        return exhaust_the_pool(how);
    }
    if task == "own-keys-sql" {
        return own_keys_sql();
    }
    if task == "attribute" {
        // It has a runtime of its own.
        return leaking::attribute();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        match task.as_str() {
            "once" => once(TestDb::lease().await.expect("a lease")).await,
            "shared" => once(TestDb::shared().await.expect("the shared clone")).await,
            "begin" => begin().await,
            "sandbox" => sandbox().await,
            "own-sql" => own_sql().await,
            "shared-sql" => shared_sql().await,
            "template-sql" => template_sql().await,
            "begin-sql" => begin_sql().await,
            "panic" => panic_with_a_lease().await,
            "late" => panic_after_a_release().await,
            "abort" => abort_with_a_lease().await,
            "exit" => exit_with_a_lease().await,
            "touch" => touch().await,
            "paused" => paused().await,
            "hold" => hold().await,
            "handles" => handle_signals().await,
            "dropped" => dropped().await,
            "many" => many().await,
            "crowd" => crowd().await,
            "together" => together().await,
            task if task.starts_with("leaves ") => leaking::leave(task).await,
            task if task.starts_with("swarm: ") => swarm::swarm(task).await,
            other => unreachable!("{other}"),
        }
    });
}

/// Reads an empty table, writes a row and gives the database back.
async fn once(db: TestDb) {
    if std::env::var(DO).is_ok_and(|task| task == "once") {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
            .fetch_one(db.pool())
            .await
            .expect("the table of the first migration");
        assert_eq!(count, 0, "a lease is a fresh clone");
    }
    let id = std::process::id().cast_signed();
    sqlx::query("INSERT INTO users VALUES ($1)")
        .bind(id)
        .execute(db.pool())
        .await
        .expect("a row");
    tell(db.name());
    db.release().await;
}

async fn begin() {
    let mut tx = TestDb::begin().await.expect("a transaction");
    sqlx::query("INSERT INTO users VALUES (7)")
        .execute(&mut *tx)
        .await
        .expect("a row that nobody else sees");
}

/// Nothing but a test ends its transaction, and nobody waits for another test for ever.
async fn sandbox() {
    let db = TestDb::sandbox().await.expect("a sandbox");
    let insert = sqlx::query("INSERT INTO users VALUES (7)");
    insert.execute(db.pool()).await.expect("a row");
    let time_outs = "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')";
    let time_outs: (String, String) = sqlx::query_as(time_outs)
        .fetch_one(db.pool())
        .await
        .expect("the session's time-outs");
    assert_eq!(time_outs, ("5s".to_owned(), "0".to_owned()));
    db.release().await;
}

/// In a clone of its own.
async fn own_sql() {
    let db = TestDb::lease().await.expect("a lease");
    tell(db.name());
    let ran = sqlx::raw_sql(sql()).execute(db.pool()).await;
    ran.expect("what the test wants");
    db.release().await;
}

/// In a clone of the template that the environment names.
async fn template_sql() {
    let name = std::env::var(TEMPLATE).expect("a template");
    let options = TestDbOptions::new().template(name.leak());
    let db = options.lease().await.expect("a lease");
    let ran = sqlx::raw_sql(sql()).execute(db.pool()).await;
    ran.expect("what the test wants");
    db.release().await;
}

async fn shared_sql() {
    let db = TestDb::shared().await.expect("the shared clone");
    let ran = sqlx::raw_sql(sql()).execute(db.pool()).await;
    ran.expect("what the test wants");
    db.release().await;
}

async fn begin_sql() {
    let mut tx = TestDb::begin().await.expect("a transaction");
    let ran = sqlx::raw_sql(sql()).execute(&mut *tx).await;
    ran.expect("what the test wants");
}

fn sql() -> AssertSqlSafe<String> {
    AssertSqlSafe(std::env::var(SQL).expect("what to do"))
}

async fn panic_with_a_lease() {
    let db = TestDb::lease().await.expect("a lease");
    sqlx::query("INSERT INTO users VALUES (42)")
        .execute(db.pool())
        .await
        .expect("a row");
    panic!("as a failing test does");
}

/// As `#[kapsel_testdb::test]` does it.
fn fail_without_panic() {
    let code = kapsel_testdb::testing::run(
        TestPlan::new("/nowhere"),
        |pool: sqlx::PgPool| async move {
            sqlx::query("INSERT INTO nowhere VALUES (1)")
                .execute(&pool)
                .await
                .map(drop)
        },
        |returned| returned.as_ref().err().map(ToString::to_string),
    );
    assert_eq!(code, ExitCode::SUCCESS, "as the harness reports an `Err`");
}

/// Holds all connections of its pool and waits for another one.
fn exhaust_the_pool(how: &str) {
    if how == "lease" {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.expect("a runtime").block_on(async {
            let db = TestDb::lease().await.expect("a lease");
            one_more(db.pool()).await.expect("one more connection");
        });
    }
    let plan = TestPlan::new("/nowhere");
    let plan = match how {
        "shared" => plan.isolation(Isolation::Shared),
        _ => plan,
    };
    let panics = how == "panic";
    let code = kapsel_testdb::testing::run(
        plan,
        |pool: sqlx::PgPool| async move {
            let more = one_more(&pool).await;
            if panics {
                more.expect("one more connection");
                return Ok(());
            }
            more
        },
        |_| None,
    );
    assert_eq!(code, ExitCode::SUCCESS, "as the harness reports an `Err`");
}

async fn one_more(pool: &sqlx::PgPool) -> sqlx::Result<()> {
    let size = pool.options().get_max_connections();
    let _all = try_join_all((0..size).map(|_| pool.acquire())).await?;
    pool.acquire().await.map(drop)
}

/// Commits into the shared clone, as a test that declares that it has keys of its own. `KEY` in the SQL stands for one.
fn own_keys_sql() {
    let plan = TestPlan::new("/nowhere").isolation(Isolation::Shared);
    kapsel_testdb::testing::run(
        plan.own_keys(),
        |pool: sqlx::PgPool| async move {
            let sql = sql().0.replace("KEY", &kapsel_testdb::test_id());
            let ran = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await;
            ran.expect("what the test wants");
        },
        |_| None,
    );
}

/// Runs the SQL and fails, as a test of the attribute or with a `TestDb` of its own.
fn fail_after_sql(isolation: &str) {
    let plan = TestPlan::new("/nowhere");
    let plan = match isolation {
        "own" => plan,
        "shared" => plan.isolation(Isolation::Shared),
        "sandbox" => plan.isolation(Isolation::Transaction),
        _ => return fail_without_attribute(isolation),
    };
    kapsel_testdb::testing::run(
        plan,
        |pool: sqlx::PgPool| async move {
            let ran = sqlx::raw_sql(sql()).execute(&pool).await;
            ran.expect("what the test wants");
            panic!("as a failing test does");
        },
        |_| None,
    );
}

fn fail_without_attribute(task: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        if task == "begin" {
            let mut tx = TestDb::begin().await.expect("a transaction");
            let ran = sqlx::raw_sql(sql()).execute(&mut *tx).await;
            ran.expect("what the test wants");
            panic!("as a failing test does");
        }
        let db = match task {
            "lease" => TestDb::lease().await,
            _ => TestDb::shared().await,
        };
        let db = db.expect("a database");
        let ran = sqlx::raw_sql(sql()).execute(db.pool()).await;
        ran.expect("what the test wants");
        panic!("as a failing test does");
    });
}

/// Fails with its second database, when it has given the first one back.
async fn panic_after_a_release() {
    drop(TestDb::lease().await.expect("a lease"));
    let db = TestDb::lease().await.expect("another lease");
    tell(db.name());
    standard_input_ends().await;
    panic!("as a failing test does");
}

async fn abort_with_a_lease() {
    let _db = TestDb::lease().await.expect("a lease");
    std::process::abort();
}

async fn exit_with_a_lease() {
    let _db = TestDb::lease().await.expect("a lease");
    std::process::exit(3);
}

/// One statement: sqlx's pool may open a second connection for a second one, before the first is given back.
async fn touch() {
    let db = TestDb::lease().await.expect("a lease");
    let answer: i32 = sqlx::query_scalar("SELECT 1")
        .fetch_one(db.pool())
        .await
        .expect("an answer");
    assert_eq!(answer, 1);
}

/// Stops tokio's clock, which then jumps to the next timer whenever the test waits for the server.
async fn paused() {
    let db = TestDb::lease().await.expect("a lease");
    let mut connection = db.pool().acquire().await.expect("a connection");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    sqlx::query("SELECT pg_sleep(0.2)")
        .execute(&mut *connection)
        .await
        .expect("an answer");
    let passed = begun.elapsed();
    tokio::time::resume();
    assert!(passed.as_secs() < 60, "{passed:?}");
}

/// Holds a lease until standard input ends, then uses it once more.
async fn hold() {
    let db = TestDb::lease().await.expect("a lease");
    tell(db.name());
    standard_input_ends().await;
    sqlx::query("INSERT INTO users VALUES (1)")
        .execute(db.pool())
        .await
        .expect("the database is still there");
    db.release().await;
}

/// Gets signals that it handles itself, as a test of a program's graceful end does.
async fn handle_signals() {
    let mut early = unix::signal(SignalKind::interrupt()).expect("a handler");
    let db = TestDb::lease().await.expect("a lease");
    let mut late = unix::signal(SignalKind::terminate()).expect("a handler");
    for (number, signal) in [(Signal::INT, &mut early), (Signal::TERM, &mut late)] {
        platform::signal(std::process::id(), number).expect("a signal to itself");
        assert_eq!(signal.recv().await, Some(()));
    }
    db.release().await;
}

/// Drops the future of a lease while its `CREATE DATABASE` waits for a lock, then takes another lease.
async fn dropped() {
    let first = TestDb::lease().await.expect("a lease");
    tell(first.name());
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'pg_database'::regclass AND mode = 'ShareLock'";
    some(&first, locked).await;
    let creates = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND wait_event_type = 'Lock'";
    tokio::select! {
        _ = TestDb::lease() => panic!("a lease in spite of the lock"),
        () = some(&first, creates) => {}
    }
    let inserted = sqlx::query("INSERT INTO users VALUES (77)").execute(first.pool());
    inserted.await.expect("a row");
    let next = TestDb::lease().await.expect("another lease");
    next.release().await;
    first.release().await;
}

/// Waits until a query counts something.
async fn some(db: &TestDb, count: &'static str) {
    let begun = std::time::Instant::now();
    loop {
        let counted = sqlx::query_scalar(count).fetch_one(db.pool()).await;
        let counted: i64 = counted.expect("an answer");
        if counted > 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "timed out: {count}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn standard_input_ends() {
    let wait = || std::io::stdin().read_to_end(&mut Vec::new());
    let waited = tokio::task::spawn_blocking(wait).await;
    waited.expect("no panic").expect("standard input");
}

/// Many leases one after the other, as a property test takes them.
async fn many() {
    for _ in 0..8 {
        let db = TestDb::lease().await.expect("a lease");
        let inserted = sqlx::query("INSERT INTO users VALUES (1)")
            .execute(db.pool())
            .await;
        inserted.expect("a fresh clone each time");
    }
}

/// Opens every connection that its pool may have, all at once, and says how many those are.
#[expect(
    clippy::print_stdout,
    reason = "the test that started this process reads it"
)]
async fn crowd() {
    let wanted = std::env::var(CONNECTIONS).ok().and_then(|n| n.parse().ok());
    let options = wanted.map_or(TestDbOptions::new(), |n| {
        TestDbOptions::new().connections(n)
    });
    let db = options.lease().await.expect("a lease");
    let size = db.pool().options().get_max_connections();
    let all = (0..size).map(|_| db.pool().acquire());
    let mut all = try_join_all(all).await.expect("all connections");
    for connection in &mut all {
        let answer = sqlx::query_scalar("SELECT 1").fetch_one(&mut **connection);
        let answer: i32 = answer.await.expect("an answer");
        assert_eq!(answer, 1);
    }
    println!("{size} connections at once");
    drop(all);
    db.release().await;
}

/// Many leases at once, each used again and again.
async fn together() {
    let mut leases = Vec::new();
    for _ in 0..32 {
        leases.push(TestDb::lease().await.expect("a lease"));
    }
    for round in 0..3 {
        for db in &leases {
            let inserted = sqlx::query("INSERT INTO users VALUES ($1)").bind(round);
            inserted.execute(db.pool()).await.expect("a row");
        }
    }
}

/// Tells whoever has started this process that it is so far.
pub fn tell(name: &str) {
    if let Some(path) = std::env::var_os(NAME).map(PathBuf::from) {
        let new = path.with_extension("new");
        std::fs::write(&new, name).expect("the name");
        std::fs::rename(new, path).expect("the name");
    }
}

/// The child as a command of a project; `exported` are the variables of a run, none for the slow path.
pub fn command(project: &Project, exported: &str, task: &str) -> Tool {
    let binary = std::env::current_exe().expect("this test binary");
    let tool = project
        .program(binary)
        .args([
            "processes::child::child",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(DO, task);
    let variables = exported.lines().filter_map(|line| line.split_once('='));
    variables.fold(tool, |tool, (name, value)| tool.env(name, value))
}

/// Runs the child to its end.
pub fn run(project: &Project, exported: &str, task: &str) -> Outcome {
    command(project, exported, task).run()
}

/// A child that holds a lease until it is told to end, or killed.
pub struct Holder {
    child: Child,
    /// The database that it holds.
    pub database: String,
}

impl Holder {
    /// Starts it and waits until it has its database.
    pub fn start(project: &Project, exported: &str) -> Self {
        Self::of(project, command(project, exported, "hold"))
    }

    /// [`Self::start`] in one of nextest's slots.
    pub fn start_in_slot(project: &Project, exported: &str, slot: usize) -> Self {
        let tool = command(project, exported, "hold");
        Self::of(
            project,
            tool.env("NEXTEST_TEST_GLOBAL_SLOT", slot.to_string()),
        )
    }

    /// [`Self::start`] with a command that holds a lease.
    pub fn of(project: &Project, tool: Tool) -> Self {
        let told = project.beside(&format!("name-{}", kapsel_testdb::test_id()));
        let mut command: Command = tool.env(NAME, &told).into_command();
        let piped = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().expect("a child");
        let database = try_poll_until(PATIENCE, || match child.try_wait() {
            Ok(None) => std::fs::read_to_string(&told).map_err(|e| e.to_string()),
            ended => Err(format!("{ended:?}")),
        });
        match database {
            Ok(database) => Self { child, database },
            Err(last) => {
                let _ = child.kill();
                panic!(
                    "the child has no database: {last}; {:#?}",
                    Outcome::of(child)
                );
            }
        }
    }

    /// Ends it by a signal, and returns the number of the signal that it died of.
    pub fn end_by(mut self, signal: Signal) -> Option<i32> {
        platform::signal(self.child.id(), signal).expect("a child to signal");
        let ended = self.child.wait().expect("a child that has ended");
        ended.signal()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a killed child");
    }

    /// Lets it use its database once more and end as a test that passes.
    #[track_caller]
    pub fn end(self) {
        self.end_with(0);
    }

    /// Lets it end, which it does with this exit code.
    #[track_caller]
    pub fn end_with(mut self, code: i32) {
        drop(self.child.stdin.take());
        Outcome::of(self.child).code(code);
    }
}
