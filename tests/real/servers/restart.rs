//! Servers that go and come back between and during commands.

use crate::support::{DeadRun, Outcome, Project, Server};

#[test]
fn a_restart_between_two_prepares_changes_nothing() {
    let mut server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    server.stop();
    project.run("prepare").code(4).says(&["cannot reach"]);
    assert!(project.run_dirs().is_empty());
    server.go_on();
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} current")]);
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let mut server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "60");
    server.stop();
    let waiting = project.tool("prepare -v").spawn();
    server.go_on();
    Outcome::of(waiting).code(0);
}

#[test]
fn a_dead_run_from_before_a_restart_is_swept() {
    let mut server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let run = DeadRun::leave(&project, "before");
    server.stop();
    server.go_on();
    let shared = server.databases_of("shared");
    assert_eq!(shared.len(), 1);
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {}", shared[0])]);
    assert!(server.databases_of("shared").is_empty());
    assert!(!run.dir.exists());
}
