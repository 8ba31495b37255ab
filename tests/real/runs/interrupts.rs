//! Ctrl-C and SIGTERM while a command prepares a run.

use std::time::{Duration, Instant};

use kapsel_testdb_core::platform::{self, Signal};

use crate::support::{Outcome, PATIENCE, Project, Server, Tool, poll_until};

/// Statements take this long, so a command that ends before did not wait for them.
const STATEMENT_SECS: u64 = 600;

fn count(server: &Server, condition: &str) -> usize {
    let sql = format!(
        "SELECT pid::text FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND {condition}"
    );
    server.column_in("postgres", &sql).len()
}

fn poll_count(server: &Server, condition: &str, is_expected: impl Fn(usize) -> bool) {
    poll_until(condition, PATIENCE, || match count(server, condition) {
        n if is_expected(n) => Ok(()),
        n => Err(format!("{n} sessions")),
    });
}

/// Interrupts a command while a session satisfies `condition`. Afterwards no session of the command remains, and the sweep finds the rest.
#[track_caller]
fn interrupt(project: &Project, server: &Server, tool: Tool, signal: Signal, condition: &str) {
    let command = tool.spawn();
    poll_count(server, condition, |n| n > 0);
    let begun = Instant::now();
    platform::signal(command.id(), signal).expect("a command to interrupt");
    let outcome = Outcome::of(command);
    outcome
        .code(128 + signal.as_raw())
        .says(&["interrupted by SIG", "sweep"]);
    assert!(begun.elapsed() < Duration::from_secs(STATEMENT_SECS / 10));
    poll_count(server, "usename = 'app'", |n| n == 0);
    project.run("sweep --no-wait").code(0);
    let left = server.transient_databases();
    assert!(
        !left.iter().any(|name| name.starts_with("app_")),
        "{left:?}"
    );
    assert!(project.run_dirs().is_empty(), "{:?}", project.run_dirs());
}

fn slow_project(server: &Server) -> Project {
    let project = Project::on(server);
    project.migration("0003_slow", &format!("SELECT pg_sleep({STATEMENT_SECS});"));
    project
}

#[test]
fn a_signal_ends_a_migration_of_the_template() {
    let server = Server::start();
    let project = slow_project(&server);
    let sleeps = "wait_event = 'PgSleep'";
    for signal in [Signal::INT, Signal::TERM] {
        let run = project.tool("run -- true");
        interrupt(&project, &server, run, signal, sleeps);
    }
    let file = project.beside("nextest-env");
    std::fs::write(&file, "").expect("nextest's file");
    let prepare = project
        .tool("prepare")
        .env("NEXTEST_ENV", &file)
        .env("NEXTEST_RUN_ID", "r");
    interrupt(&project, &server, prepare, Signal::TERM, sleeps);
}

#[test]
fn a_signal_ends_the_wait_for_another_build() {
    let server = Server::start();
    let project = Project::on(&server);
    let other = slow_project(&server);
    let building = other.tool("prepare").spawn();
    poll_count(&server, "wait_event = 'PgSleep'", |n| n == 1);
    let waiting = project.tool("run -- true").spawn();
    poll_count(&server, "wait_event = 'advisory'", |n| n == 1);
    platform::signal(waiting.id(), Signal::INT).expect("a command to interrupt");
    Outcome::of(waiting).code(130);
    poll_count(&server, "wait_event = 'advisory'", |n| n == 0);
    platform::signal(building.id(), Signal::HUP).expect("a command to interrupt");
    Outcome::of(building).code(129);
}

#[test]
fn a_signal_ends_a_migration_of_the_persistent_database() {
    let server = Server::start();
    let project = Project::on(&server);
    // Takes no time in the template, which is built first.
    project.migration(
        "0003_slow",
        &format!("SELECT pg_sleep({STATEMENT_SECS}) WHERE current_database() = 'lasting';"),
    );
    project.config("[persistent]\ndatabase = \"lasting\"\n");
    let prepare = project.tool("prepare");
    interrupt(
        &project,
        &server,
        prepare,
        Signal::INT,
        "wait_event = 'PgSleep'",
    );
}
