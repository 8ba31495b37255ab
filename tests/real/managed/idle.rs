//! `server.idle_stop_secs`: the server goes when nobody has used it for that long, not before, and nobody waits for that.

use std::time::Duration;

use crate::support::{FakeNextest, PATIENCE, Project, Session, poll_until};

fn project(seconds: &str) -> Project {
    let mut project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project.set("KAPSEL_TESTDB_SERVER_IDLE_STOP_SECS", seconds);
    project
}

/// Looked at from the outside: a session of ours would be a client.
fn wait_until_stopped(project: &Project) {
    let dir = project.managed_dir().expect("a managed server");
    let pid_file = dir.join("data/postmaster.pid");
    poll_until("the server has stopped", PATIENCE, || {
        match pid_file.exists() {
            true => Err(format!("{} is there", pid_file.display())),
            false => Ok(()),
        }
    });
    project
        .run("server status")
        .code(0)
        .says(&["is not running"]);
}

#[test]
fn after_a_preparation_by_hand_it_stops_and_the_next_one_starts_it() {
    let project = project("1");
    let template = project.prepared();
    wait_until_stopped(&project);
    let log = project.run("server logs");
    assert!(log.stdout.contains("without runs or clients"), "{log:?}");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} current")]);
}

#[test]
fn after_a_run_it_stops_when_the_last_client_has_gone() {
    let project = project("1");
    let run = FakeNextest::start(&project, "one");
    let options = project.managed_options();
    let mut session = Session::open(&options);
    run.end();
    // Each look is a session: five of them take longer than the limit.
    let sql = "SELECT xact_commit::text FROM pg_stat_database WHERE datname = 'postgres'";
    let mut looks = 0;
    let mut last = session.column(sql);
    poll_until("somebody has looked often enough", PATIENCE, || {
        let sql = "SELECT backend_start::text FROM pg_stat_activity WHERE application_name = 'kapsel-testdb idle stop'";
        let now = session.column(sql);
        if !now.is_empty() && now != last {
            looks += 1;
            last = now;
        }
        if looks >= 5 {
            Ok(())
        } else {
            Err(format!("{looks} looks"))
        }
    });
    session.close();
    wait_until_stopped(&project);
}

#[test]
fn nobody_waits_for_it() {
    let project = project("3600");
    let run = FakeNextest::start(&project, "one");
    run.end();
    let begun = std::time::Instant::now();
    project.run("wait --timeout 60").code(0);
    assert!(begun.elapsed() < Duration::from_secs(30));
    let outcome = project.tool("run --no-keeper -- true").run();
    outcome.code(0);
    project
        .run("server status")
        .code(0)
        .never_says("is not running");
}
