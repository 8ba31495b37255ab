//! What happens to a managed server, its files and its machine: each is handled, or told with the remedy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use kapsel_testdb_core::platform::{Signal, process_exists, signal, user_ids};

use crate::support::{FakeBin, PATIENCE, Project, Session, poll_until};

fn project() -> Project {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project
}

/// A process id that is gone or a zombie that nobody has waited for yet.
fn wait_until_gone(pid: u32) {
    poll_until("the process is gone", PATIENCE, || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match process_exists(pid) && !state.contains(") Z ") {
            true => Err(format!("process {pid} lives")),
            false => Ok(()),
        }
    });
}

fn pid_of_server(project: &Project) -> u32 {
    let status = project.run("server status --json");
    let pid = status.code(0).json()["pid"].as_u64().expect("a pid");
    u32::try_from(pid).expect("a pid")
}

#[test]
fn data_that_was_deleted_under_a_running_server_is_made_anew() {
    let project = project();
    let template = project.prepared();
    let pid = pid_of_server(&project);
    let dir = project.managed_dir().expect("a managed server");
    fs::remove_dir_all(dir.join("data")).expect("its data");
    project.run("status").code(0).says(&["is not running"]);
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} built")]);
    wait_until_gone(pid);
    assert_ne!(pid_of_server(&project), pid);
}

#[test]
fn a_server_without_data_is_stopped_like_any_other() {
    let project = project();
    project.prepared();
    let pid = pid_of_server(&project);
    let dir = project.managed_dir().expect("a managed server");
    fs::remove_dir_all(dir.join("data")).expect("its data");
    project.run("server stop").code(0).says(&["stopped"]);
    wait_until_gone(pid);
}

#[test]
fn everything_that_was_deleted_is_made_anew_and_the_orphan_ends() {
    let project = project();
    let template = project.prepared();
    let pid = pid_of_server(&project);
    fs::remove_dir_all(project.state_dir()).expect("the state");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} built")]);
    // Not a minute later by itself: it would take the new socket with it.
    wait_until_gone(pid);
    project.run("prepare").code(0).says(&[" current,"]);
}

#[test]
fn data_that_was_deleted_while_it_was_stopped_is_made_anew() {
    let project = project();
    let template = project.prepared();
    project.run("server stop").code(0);
    let dir = project.managed_dir().expect("a managed server");
    fs::remove_dir_all(dir.join("data")).expect("its data");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} built")]);
}

#[test]
fn data_that_lack_a_file_are_set_aside() {
    let project = project();
    let template = project.prepared();
    let dir = project.managed_dir().expect("a managed server");
    let (data, aside) = (dir.join("data"), dir.join("data.damaged"));
    for file in ["PG_VERSION", "global/pg_control"] {
        project.run("server stop").code(0);
        fs::remove_file(data.join(file)).expect("a file");
        let outcome = project.run("prepare");
        outcome.code(0).says(&[
            &format!("{template} built"),
            &format!("files are missing in `{}`", data.display()),
            &format!("`{}`", aside.display()),
            "`server.state_dir`",
        ]);
        assert!(aside.join("postgresql.conf").is_file());
        assert!(!aside.join(file).exists());
        project.run("prepare").code(0).never_says("missing");
    }
}

#[test]
fn a_server_that_runs_goes_on_without_a_file() {
    let project = project();
    let template = project.prepared();
    let pid = pid_of_server(&project);
    let dir = project.managed_dir().expect("a managed server");
    let options = project.managed_options();
    let mut session = Session::open(&options);
    fs::remove_file(dir.join("data/PG_VERSION")).expect("a file");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[&format!("{template} current")]);
    assert_eq!(pid_of_server(&project), pid);
    assert_eq!(session.column("SELECT 'still here'"), ["still here"]);
}

#[test]
fn the_directory_of_a_server_that_runs_is_locked_against_programs_that_clean_up() {
    let project = project();
    project.prepared();
    let state = fs::File::open(project.state_dir()).expect("the state directory");
    assert!(state.try_lock().is_err(), "systemd-tmpfiles would get it");
    project.run("server stop").code(0);
    assert!(state.try_lock().is_ok());
}

#[test]
fn data_that_is_damaged_is_named_with_the_remedy() {
    let project = project();
    project.prepared();
    project.run("server stop").code(0);
    let data = project
        .managed_dir()
        .expect("a managed server")
        .join("data");
    fs::write(data.join("global/pg_control"), "").expect("a file");
    let remedy = format!("remove `{}`", data.display());
    let outcome = project.run("prepare");
    outcome
        .code(4)
        .says(&["did not start", "pg_control", &remedy]);
}

/// A program of the server's user that is no server, and lives until it is dropped.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = user_ids("postgres").expect("the user `postgres`");
            command.gid(gid).uid(uid);
        }
        Self(command.spawn().expect("cat"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_of_a_dead_server_whose_number_another_program_has_are_cleared() {
    let project = project();
    let template = project.prepared();
    let pid = pid_of_server(&project);
    signal(pid, Signal::KILL).expect("a signal");
    wait_until_gone(pid);
    let stranger = Stranger::start();
    let dir = project.managed_dir().expect("a managed server");
    for file in ["data/postmaster.pid", "s/.s.PGSQL.5432.lock"] {
        let file = dir.join(file);
        let text = fs::read_to_string(&file).expect("a file of the dead");
        let text = text.replacen(&pid.to_string(), &stranger.0.id().to_string(), 1);
        fs::write(&file, text).expect("its new text");
    }
    let outcome = project.run("prepare");
    // Commits of the last moments are lost with a killed server: then it was built again.
    outcome.code(0).says(&[&template]);
}

#[test]
fn a_backend_that_outlives_its_killed_postmaster_is_ended() {
    let project = project();
    let template = project.prepared();
    let pid = pid_of_server(&project);
    let options = project.managed_options();
    // Sees no interrupt for as long as it counts.
    let busy = std::thread::spawn(move || {
        let mut session = Session::open(&options);
        session.execute(
            "SET application_name = 'busy'; SELECT count(*) FROM generate_series(1, 100000000000)",
        );
    });
    poll_until("the backend is busy", PATIENCE, || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'busy' AND state = 'active'";
        let count = project.tool("server psql -Atc").args([sql]).run();
        match count.stdout.trim() {
            "1" => Ok(()),
            _ => Err(format!("{count:?}")),
        }
    });
    signal(pid, Signal::KILL).expect("a signal");
    wait_until_gone(pid);
    project.run("prepare").code(0).says(&[&template]);
    // Its session was lost.
    busy.join().expect_err("an ended session");
}

#[test]
fn without_its_locale_it_takes_the_plain_one_and_says_so_once() {
    let mut project = project();
    let bin = FakeBin::of(&mut project);
    let refusal = r#"case "$*" in *C.UTF-8*) echo 'initdb: error: invalid locale name "C.UTF-8"' >&2; exit 1;; esac
exec "$real" "$@""#;
    bin.replace("initdb", refusal);
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["no locale `C.UTF-8`", "uses `C`", "managed PostgreSQL"]);
    project.run("prepare").code(0).never_says("locale");
    let status = project.run("server status --json").code(0).json();
    assert_eq!(status["locale"], "UTF8/C");
    // The cache has the plain one under its own name.
    project.run("server stop").code(0);
    fs::remove_dir_all(project.state_dir()).expect("the state");
    project.run("prepare").code(0);
}

#[test]
fn a_server_older_than_the_binaries_is_named() {
    let mut project = project();
    let bin = FakeBin::of(&mut project);
    project.run("server start").code(0).says(&["started"]);
    project
        .run("server status")
        .code(0)
        .never_says("older than the installed binaries");
    let newer = r#"[ "$1" != --version ] || { "$real" --version | sed 's/\([0-9]\)\.[0-9]*/\1.999/g'; exit 0; }
exec "$real" "$@""#;
    bin.replace("postgres", newer);
    let outcome = project.run("server status");
    outcome
        .code(0)
        .says(&["is older", "`kapsel-testdb server restart`"]);
    assert!(outcome.stdout.contains(".999"), "{outcome:?}");
    assert!(bin.dir().is_dir());
    let before = pid_of_server(&project);
    let outcome = project.run("server restart");
    outcome.code(0).says(&["stopped", "started"]);
    assert_ne!(pid_of_server(&project), before);
}
