//! Runs of other hosts: no directory here says whether they live, so they are watched before anything is dropped.

use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{Namespace, RunId};

use crate::support::{FakeNextest, Project, Server};

const RUN: &str = "000000000000001";
const CLONES: [&str; 2] = [
    "app_clone_0123456789abc_000000000000001_000001",
    "app_clone_0123456789abc_000000000000001_000002",
];

fn project(server: &Server, watch_secs: &str) -> Project {
    let mut project = Project::on(server);
    project.set("KAPSEL_TESTDB_WATCH_SECS", watch_secs);
    server.create(&CLONES);
    project
}

fn dropped() -> [String; 2] {
    CLONES.map(|name| format!("dropped {name}"))
}

#[test]
fn a_quiet_one_is_dropped() {
    let server = Server::start();
    let project = project(&server, "1");
    let begun = std::time::Instant::now();
    project.run("sweep").code(0).says(&dropped());
    assert!(begun.elapsed().as_secs() >= 1, "it was watched");
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn nobody_waits_on_request() {
    let server = Server::start();
    let project = project(&server, "600");
    let outcome = project.run("sweep --no-wait");
    outcome.code(0).says(&[RUN, "appears dead", "--no-wait"]);
    assert_eq!(server.databases_of("clone"), CLONES);
}

#[test]
fn one_with_a_session_is_left() {
    let server = Server::start();
    let project = project(&server, "1");
    let session = server.session_of_role(CLONES[0]);
    let outcome = project.run("sweep");
    outcome.code(0).says(&["0 databases", "1 run alive"]);
    assert_eq!(server.databases_of("clone"), CLONES);
    session.close();
    server.wait_for_sessions(CLONES[0], 0);
    project.run("sweep").code(0).says(&dropped());
}

#[test]
fn one_whose_run_lock_is_held_is_left() {
    let server = Server::start();
    let project = project(&server, "1");
    let namespace = Namespace::new("app").expect("valid");
    let run: RunId = RUN.parse().expect("valid");
    let key = LockKey::run(&namespace, &run).as_i64();
    let mut session = server.session_of_role("postgres");
    session.execute(&format!("SELECT pg_advisory_lock_shared({key})"));
    let outcome = project.run("sweep");
    outcome.code(0).says(&["0 databases", "1 run alive"]);
    assert_eq!(server.databases_of("clone"), CLONES);
    session.close();
    project.run("sweep").code(0).says(&dropped());
}

#[test]
fn a_sign_of_life_while_it_is_watched_saves_it() {
    let server = Server::start();
    let project = project(&server, "600");
    let sweep = project.tool("sweep -v").spawn();
    // The sweep's own session is the first thing to be seen of it.
    let sql = "SELECT application_name FROM pg_stat_activity WHERE application_name = 'kapsel-testdb sweep'";
    crate::support::poll_until(
        "the sweep watches",
        crate::support::PATIENCE,
        || match server.column_in("postgres", sql).len() {
            0 => Err("no sweep yet".to_owned()),
            _ => Ok(()),
        },
    );
    server.session_of_role(CLONES[1]).close();
    let session = server.session_of_role(CLONES[0]);
    let outcome = crate::support::Outcome::of(sweep);
    outcome.code(0).says(&["1 run alive"]);
    assert_eq!(server.databases_of("clone"), CLONES);
    drop(session);
}

#[test]
fn a_living_run_of_this_host_seen_from_another_one_is_left() {
    let server = Server::start();
    let mut here = Project::on(&server);
    here.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let live = FakeNextest::start(&here, "live");
    // The same namespace and server, but another folder of run directories: as from another host.
    let mut there = Project::on(&server);
    there.set("KAPSEL_TESTDB_WATCH_SECS", "1");
    let outcome = there.run("sweep");
    outcome.code(0).says(&["0 databases", "1 run alive"]);
    assert_eq!(server.databases_of("shared").len(), 1);
    live.end();
}
