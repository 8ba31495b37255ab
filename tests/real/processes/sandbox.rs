//! Sandboxes that do not hold, or that another test keeps waiting: what the test is told; and what is left of a sandbox.

use crate::processes::child::{self, Holder};
use crate::processes::sandbox_child::{AWHILE, by_hand_command, command, run, two};
use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

const REMEDY: &str = "`isolation = \"database\"`";
/// Where the child's statements are.
const PLACE: &str = "tests/real/processes/sandbox_child.rs:";

/// A project with a run.
struct Run {
    server: Server,
    project: Project,
    nextest: FakeNextest,
}

impl Run {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let server = Server::start();
        let mut project = Project::on(&server);
        for (name, value) in settings {
            project.set(name, value);
        }
        let nextest = FakeNextest::start(&project, "r");
        Self {
            server,
            project,
            nextest,
        }
    }

    fn run(&self, task: &str) -> Outcome {
        run(&self.project, &self.nextest.exported, task)
    }

    /// Fails, and says why, where and what to do.
    #[track_caller]
    fn loses(&self, task: &str, says: &str) -> Outcome {
        let outcome = self.run(task);
        let lost = "the test's sandbox was lost";
        outcome.code(101).says(&[lost, says, PLACE, REMEDY]);
        outcome
    }

    /// How many users there are on the shared clone, for everybody.
    fn users(&self) -> String {
        let databases = self.server.databases();
        let shared = databases.iter().find(|name| name.contains("_shared_"));
        let shared = shared.expect("the shared clone");
        let mut session = self.server.session(shared);
        session.column("SELECT count(*)::text FROM users").remove(0)
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        // The server notices a killed client when it reads from it.
        poll_until("the rows are gone", PATIENCE, || match &*self.users() {
            "0" => Ok(()),
            users => Err(format!("{users} users")),
        });
    }
}

#[test]
fn a_raw_commit_is_told_with_what_it_leaves() {
    let run = Run::start();
    for task in ["commit", "commit in the last statement"] {
        let outcome = run.loses(task, "a raw `COMMIT` ended its transaction");
        outcome.says(&["in the shared clone `app_shared_"]);
        assert_eq!(run.users(), "1", "{task}");
        let mut session = run.server.session(&shared(&run));
        session.execute("DELETE FROM users");
    }
    run.nextest.end();
}

fn shared(run: &Run) -> String {
    let databases = run.server.databases();
    let shared = databases.into_iter().find(|name| name.contains("_shared_"));
    shared.expect("the shared clone")
}

#[test]
fn a_raw_commit_among_other_statements_is_found() {
    let run = Run::start();
    run.loses("begin and commit", "a raw `COMMIT` ended its transaction");
    assert_eq!(run.users(), "2");
    run.server
        .session(&shared(&run))
        .execute("DELETE FROM users");
    run.loses("commit and begin", "a raw `COMMIT` ended its transaction");
    run.nextest.end();
}

#[test]
fn a_raw_rollback_or_prepare_and_a_connection_that_goes_are_told() {
    let run = Run::start();
    run.loses("rollback", "a raw `ROLLBACK`");
    run.loses("rollback and write", "a raw `ROLLBACK`");
    run.loses("prepare", "`PREPARE TRANSACTION` ended it");
    run.server
        .session(&shared(&run))
        .execute("ROLLBACK PREPARED 'sandbox'");
    run.loses("terminate", "its connection broke");
    run.loses("detach", "taken out of the pool");
    run.loses("close", "taken out of the pool");
    run.nothing_is_left();
    run.nextest.end();
}

#[test]
fn after_a_loss_nothing_goes_on_in_a_second_sandbox() {
    let run = Run::start();
    let outcome = run.run("commit late");
    outcome.code(101).says(&[
        "no second connection in a sandbox",
        "a raw `COMMIT` ended its transaction",
        REMEDY,
    ]);
    assert_eq!(run.users(), "1");
    run.server
        .session(&shared(&run))
        .execute("DELETE FROM users");
    let failed = run.run("fail after a commit");
    failed.code(101).says(&["as a failing test does"]);
    run.nextest.end();
}

#[test]
fn a_sandbox_by_hand_says_the_same() {
    let run = Run::start();
    for task in ["release", "drop"] {
        let outcome = by_hand_command(&run.project, &run.nextest.exported, task).run();
        outcome
            .code(101)
            .says(&["a raw `COMMIT` ended its transaction", REMEDY]);
        run.server
            .session(&shared(&run))
            .execute("DELETE FROM users");
    }
    run.nextest.end();
}

#[test]
fn a_second_connection_is_refused_and_the_place_of_the_first_told() {
    let run = Run::with(&[("KAPSEL_TESTDB_POOL_SANDBOX_ACQUIRE_TIMEOUT_MS", "300")]);
    let outcome = run.run("second");
    outcome.code(101).says(&[
        "PoolTimedOut",
        "the sandbox's only connection was in use for",
        "after 0.3 s",
        "the first was acquired at",
        PLACE,
        REMEDY,
    ]);
    run.nextest.end();
}

#[test]
fn a_connection_that_is_long_in_use_is_nobodys_concern() {
    let run = Run::start();
    let outcome = run.run("wait and get it");
    outcome.code(0).never_says("kapsel-testdb:");
    run.nextest.end();
}

#[test]
fn a_test_that_waits_for_another_ones_lock_is_told_which() {
    let wait = AWHILE.as_millis().to_string();
    let run = Run::with(&[("KAPSEL_TESTDB_POOL_SANDBOX_LOCK_TIMEOUT_MS", &wait)]);
    let holder = command(&run.project, &run.nextest.exported, "hold");
    let holder = holder.env("NEXTEST_TEST_NAME", "the_one_that_holds");
    let holder = Holder::of(&run.project, holder);
    let outcome = run.run("want");
    outcome.code(101).says(&[
        "waits for a lock of `the_one_that_holds`: `INSERT INTO users VALUES ($1)`",
        REMEDY,
        // The statement's own error.
        "55P03",
    ]);
    holder.end();
    run.nothing_is_left();
    run.nextest.end();
}

#[test]
fn a_test_that_gets_the_lock_in_time_passes() {
    let run = Run::start();
    let holder = command(&run.project, &run.nextest.exported, "hold");
    let holder = Holder::of(&run.project, holder);
    let waiting = command(&run.project, &run.nextest.exported, "want").spawn();
    let mut session = run.server.session("postgres");
    poll_until("the other one waits", PATIENCE, || {
        let sql = "SELECT 'x' FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        match session.column(sql).len() {
            0 => Err("nobody waits".to_owned()),
            _ => Ok(()),
        }
    });
    holder.end();
    Outcome::of(waiting).code(0);
    run.nothing_is_left();
    run.nextest.end();
}

#[test]
fn a_deadlock_of_two_tests_names_both() {
    let run = Run::start();
    let [first, second] = two(&run.project, &run.nextest.exported);
    let codes = [first.code, second.code];
    assert!(
        codes == [0, 101] || codes == [101, 0],
        "{first:#?} {second:#?}"
    );
    let (victim, other) = match first.code {
        101 => (first, "second of two"),
        _ => (second, "first of two"),
    };
    let lock = format!("waits for a lock of `{other}`");
    victim.says(&["40P01", &lock, REMEDY]);
    run.nothing_is_left();
    run.nextest.end();
}

#[test]
fn nothing_is_left_of_a_sandbox_however_its_test_ends() {
    let run = Run::start();
    run.run("write").code(0);
    run.nothing_is_left();
    run.run("panic").code(101);
    run.nothing_is_left();
    let holder = command(&run.project, &run.nextest.exported, "hold");
    Holder::of(&run.project, holder).kill();
    run.nothing_is_left();
    run.nextest.end();
}

#[test]
fn without_a_run_a_sandbox_is_on_a_shared_clone_of_its_own() {
    let server = Server::start();
    let project = Project::on(&server);
    // The attribute knows the directory that this package was compiled in, which is another workspace.
    let run = |task| {
        let child = command(&project, "", task);
        child.env("KAPSEL_TESTDB_ROOT", project.root()).run()
    };
    run("write").code(0);
    run("rollback").code(101);
}

#[test]
fn a_time_out_of_the_servers_does_not_end_it() {
    let server = Server::start_with(&["idle_in_transaction_session_timeout=100ms"]);
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "sandbox").code(0);
    nextest.end();
}
