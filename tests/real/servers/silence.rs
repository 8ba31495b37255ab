//! Servers and backends that stop answering: a lost network, a machine that is switched off, a lock that is never released.

use std::time::Duration;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::pg::session::Session;
use kapsel_testdb_core::platform::process_exists;
use kapsel_testdb_core::protocol::{EntryState, RunDir};

use crate::processes::child;
use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

fn wait_for_a_clone(nextest: &FakeNextest) {
    let run = RunDir::join(&nextest.dir).expect("a run that lives");
    poll_until("a clone is ready", PATIENCE, || {
        match run.list(EntryState::Ready).is_empty() {
            true => Err(nextest.keeper_log()),
            false => Ok(()),
        }
    });
}

/// The dead run is no danger to the next one.
fn swept(project: &Project, server: &Server) {
    poll_until("the sweep has removed the run", PATIENCE, || {
        project.run("sweep").code(0);
        match server.databases_of("clone") {
            left if left.is_empty() && project.run_dirs().is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
}

#[test]
fn a_statement_that_takes_too_long_names_itself_and_ends_its_session() {
    let server = Server::start();
    let (address, _) = Address::parse(&server.url()).expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (late, afterwards) = runtime.block_on(async {
        let options = address.options("postgres");
        let session = Session::connect(&address, &options, RetryLimits::RUNNING).await;
        let mut session = session.expect("a session");
        let sleep = "SELECT pg_sleep(1000)";
        let limit = Duration::from_secs(1);
        let late = session.execute(sleep, limit, || "sleep".to_owned()).await;
        let next = session.rows("SELECT 1", limit, || "go on".to_owned()).await;
        (late.expect_err("a limit"), next.expect_err("no session"))
    });
    let late = late.to_string();
    assert!(
        late.starts_with("failed to sleep: PostgreSQL at `")
            && late.contains("` did not answer within 1 s"),
        "{late}"
    );
    let afterwards = afterwards.to_string();
    assert!(
        afterwards.starts_with("failed to go on:") && afterwards.contains("an earlier statement"),
        "{afterwards}"
    );
}

#[test]
fn a_keeper_gives_up_a_server_that_falls_silent_during_its_last_job() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let keeper = nextest.keeper_pid();
    wait_for_a_clone(&nextest);
    // The keeper's next job waits for this lock, which no other statement needs.
    let mut holder = server.session("postgres");
    holder.execute("BEGIN; LOCK TABLE pg_catalog.pg_database IN SHARE MODE");
    let reads = child::command(&project, &nextest.exported, "own-sql").env(child::SQL, "SELECT 1");
    reads.run().code(0);
    poll_until("the keeper waits", PATIENCE, || {
        let sql = "SELECT query FROM pg_stat_activity WHERE application_name = 'kapsel-testdb keeper' AND wait_event_type = 'Lock'";
        match server.column_in("postgres", sql).is_empty() {
            true => Err(nextest.keeper_log()),
            false => Ok(()),
        }
    });
    let mut nextest = nextest.without_keeper();
    nextest.kill();
    poll_until("the keeper ends its run", PATIENCE, || {
        let log = nextest.keeper_log();
        match log.contains("stops its work") {
            true => Ok(()),
            false => Err(log),
        }
    });
    let frozen = server.freeze();
    poll_until(
        "the keeper has given up",
        PATIENCE,
        || match process_exists(keeper) {
            true => Err(nextest.keeper_log()),
            false => Ok(()),
        },
    );
    drop(frozen);
    holder.execute("ROLLBACK");
    holder.close();
    swept(&project, &server);
}

#[test]
fn a_test_whose_server_falls_silent_fails_and_says_so() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    wait_for_a_clone(&nextest);
    let frozen = server.freeze();
    let leased = child::run(&project, &nextest.exported, "once");
    drop(frozen);
    leased.code(101).says(&["timed out"]);
    let mut nextest = nextest.without_keeper();
    nextest.kill();
    poll_until("the keeper has ended", PATIENCE, || {
        match nextest.has_keeper() {
            true => Err(nextest.keeper_log()),
            false => Ok(()),
        }
    });
    swept(&project, &server);
}

#[test]
fn a_builder_waits_for_another_one_for_longer_than_one_statement_does() {
    let server = Server::start();
    let project = Project::on(&server);
    let mut builder = server.session("postgres");
    let key = LockKey::build().as_i64();
    builder.execute(&format!("SELECT pg_advisory_lock({key})"));
    let waiting = project.tool("prepare").spawn();
    poll_until("a statement has reached its limit", PATIENCE, || {
        let log = server.log();
        match log.contains("due to lock timeout") {
            true => Ok(()),
            false => Err(log),
        }
    });
    builder.execute(&format!("SELECT pg_advisory_unlock({key})"));
    Outcome::of(waiting)
        .code(0)
        .says(&["for another process to build the template: "]);
}
