//! What takes longer than half a second is named, with its limit.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;

use crate::support::{DeadRun, Project, Server, Tool};

/// Reads standard error up to a line with this text.
#[track_caller]
fn wait_for_line(child: &mut Child, text: &str) {
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut all = String::new();
    while !all.contains(text) {
        let read = stderr.read_line(&mut all).expect("a line");
        assert!(read > 0, "`{text}` is missing: {all}");
    }
    // The child must not be stopped by a full or closed pipe.
    std::thread::spawn(move || stderr.read_to_string(&mut String::new()));
}

#[track_caller]
fn succeeds_after(tool: Tool, line: &str, release: impl FnOnce()) {
    let mut child = tool.spawn();
    wait_for_line(&mut child, line);
    release();
    assert!(child.wait().expect("a child").success());
}

#[test]
fn a_lock_of_another_process_is_named() {
    let project = Project::new("app");
    project.run("server start").code(0);
    let lock = File::open(project.state_dir().join("start.lock")).expect("the lock");
    lock.lock().expect("a lock");
    let line =
        "waiting at most 10 min for another process that starts or stops the managed server\n";
    succeeds_after(project.tool("server stop"), line, || drop(lock));
}

#[test]
fn a_run_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "live");
    let lock = run.join();
    let line = "waiting at most 60 s for the runs of this project to end\n";
    succeeds_after(project.tool("wait"), line, || drop(lock));
}

#[test]
fn a_server_that_does_not_listen_is_named_unless_the_command_is_quiet() {
    let mut project = Project::new("app");
    project.set("DATABASE_URL", "postgres://me@%2Fnowhere/app");
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "1");
    let line = "waiting at most 1 s for PostgreSQL at `me@/nowhere:5432`: No such file";
    let outcome = project.run("prepare");
    outcome.code(4).says(&[line]);
    let quiet = project.run("prepare --quiet");
    quiet.code(4).never_says(line);
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "0");
    project.run("prepare").code(4).never_says(line);
}
