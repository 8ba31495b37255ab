//! The managed server: started once by whoever comes first, found by the others, stopped on request.

use std::fs;

use kapsel_testdb_core::platform::{Signal, signal};

use crate::support::{Outcome, PATIENCE, Project, Session, poll_until};

fn project() -> Project {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project
}

/// How often the server was started, by its log.
fn starts(project: &Project) -> usize {
    let log = project.managed_dir().expect("a managed server").join("log");
    let text = fs::read_to_string(log).expect("its log");
    text.matches("LOG:  starting PostgreSQL").count()
}

#[test]
fn many_who_come_at_once_start_one() {
    let project = project();
    let children: Vec<_> = (0..8).map(|_| project.tool("prepare").spawn()).collect();
    let outcomes: Vec<Outcome> = children.into_iter().map(Outcome::of).collect();
    for outcome in &outcomes {
        outcome.code(0).says(&["managed PostgreSQL"]);
    }
    assert_eq!(starts(&project), 1);
    let built = outcomes
        .iter()
        .filter(|o| o.stderr.contains("building the template"));
    assert_eq!(built.count(), 1);
    assert!(project.run_dirs().is_empty());
    project.run("prepare").code(0).says(&[" current,"]);
    assert_eq!(starts(&project), 1);
}

#[test]
fn stopped_and_started_it_has_its_data() {
    let project = project();
    project.run("server stop").code(0).says(&["is not running"]);
    let template = project.prepared();
    project
        .run("server stop")
        .code(0)
        .says(&["stopped the managed server", "its data is kept"]);
    project.run("server stop").code(0).says(&["is not running"]);
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} current")]);
    assert_eq!(starts(&project), 2);
}

#[test]
fn the_run_that_starts_it_reports_that_once() {
    let mut project = project();
    let outcome = project.run("prepare");
    outcome.code(0);
    let dir = project.managed_dir().expect("a managed server");
    let line = format!(
        " in `{}`; it keeps running for the next run; `kapsel-testdb server stop` stops it\n",
        dir.display()
    );
    outcome.says(&["started PostgreSQL ", &line]);
    project.run("prepare").code(0).never_says("started");
    project.run("server stop").code(0);
    project.set("KAPSEL_TESTDB_SERVER_IDLE_STOP_SECS", "600");
    // Also if it fails afterwards.
    project.migration("0001_users", "CREATE TABLE nowhere.users (id int);");
    let outcome = project.run("run -- true");
    outcome.code(5).says(&["it stops after 600 s without use"]);
}

#[test]
fn the_configured_version_selects_the_programs() {
    let mut project = project();
    let installed: u32 = crate::support::binaries()
        .version()
        .and_then(|text| {
            let number = text.split(' ').nth(2)?;
            number.split('.').next()?.parse().ok()
        })
        .expect("a version");
    project.config("[server]\nmode = \"managed\"\nversion = \"99\"\n");
    let outcome = project.run("prepare");
    outcome.code(4).says(&[
        "found no PostgreSQL 99 (`server.version`) on this machine, only",
        &format!("{installed} in `"),
    ]);
    // A managed server needs no URL, and ignores it.
    project.set("DATABASE_URL", "postgres://me@%2Fnowhere/app");
    project.config(&format!(
        "[server]\nmode = \"managed\"\nversion = {installed}\n"
    ));
    project.run("prepare").code(0).says(&["managed PostgreSQL"]);
}

fn postmaster(project: &Project) -> u32 {
    let dir = project.managed_dir().expect("a managed server");
    let text = fs::read_to_string(dir.join("data/postmaster.pid")).expect("a pid file");
    let pid = text.lines().next().and_then(|line| line.parse().ok());
    pid.expect("a pid")
}

#[test]
fn killed_it_comes_back() {
    let project = project();
    let template = project.prepared();
    let pid = postmaster(&project);
    signal(pid, Signal::KILL).expect("a signal");
    poll_until("the server is dead", PATIENCE, || {
        match signal(pid, Signal::KILL) {
            Ok(()) => Err("it still lives".to_owned()),
            Err(_) => Ok(()),
        }
    });
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&template]);
    assert_eq!(starts(&project), 2);
}

#[test]
fn one_that_is_just_going_down_is_started_again() {
    let project = project();
    let template = project.prepared();
    let dir = project.managed_dir().expect("a managed server");
    let options = project.managed_options();
    let session = Session::open(&options);
    // A smart shutdown refuses new sessions and waits for ours.
    signal(postmaster(&project), Signal::TERM).expect("a signal");
    let prepare = project.tool("prepare").spawn();
    poll_until("prepare was refused", PATIENCE, || {
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        let refused = log.contains("FATAL:  the database system is shutting down");
        if refused { Ok(()) } else { Err(log) }
    });
    session.close();
    let outcome = Outcome::of(prepare);
    outcome.code(0).says(&[&format!("{template} current")]);
}

#[test]
fn a_path_that_is_too_long_is_named() {
    let mut project = project();
    let long = project.beside(&"x".repeat(90));
    project.set("KAPSEL_TESTDB_SERVER_STATE_DIR", &long.to_string_lossy());
    let outcome = project.run("prepare");
    outcome
        .code(4)
        .says(&["x/pg", "103 bytes", "`server.state_dir`"]);
    assert!(!long.exists());
}

#[test]
fn missing_programs_are_named_with_where_we_looked() {
    let project = project();
    let tool = project
        .tool("prepare")
        .env("KAPSEL_TESTDB_SERVER_BIN_DIR", "/nowhere/pg");
    tool.run().code(4).says(&[
        "found no PostgreSQL server binaries",
        "`/nowhere/pg`",
        "install PostgreSQL",
        "`server.bin_dir`",
        "DATABASE_URL",
    ]);
}

#[test]
fn somebody_elses_folder_is_refused() {
    let project = project();
    fs::create_dir(project.state_dir()).expect("a folder");
    use std::os::unix::fs::PermissionsExt;
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(project.state_dir(), open).expect("its mode");
    let outcome = project.run("prepare");
    let path = project.state_dir();
    outcome
        .code(4)
        .says(&[&format!("`{}`", path.display()), "server.state_dir"]);
}

/// The server outlives who started it: a pipe that it kept open would never end.
#[test]
fn the_server_keeps_no_pipe_of_whoever_started_it() {
    let project = project();
    let shell = r#"exec 3>&1; "$0" prepare"#;
    let tool = project
        .program("sh")
        .args(["-c", shell, crate::support::BINARY]);
    tool.run().code(0);
}
