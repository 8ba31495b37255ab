//! What is left when everything dies, and what is not touched when something lives.

use std::time::Duration;

use kapsel_testdb_core::platform::{self, Signal};

use crate::processes::child::{self, Holder};
use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

fn leftovers(server: &Server) -> Vec<String> {
    let mut names = server.transient_databases();
    names.retain(|name| name.starts_with("app_") && !name.contains("_kept_"));
    names
}

#[track_caller]
fn nothing_is_left(project: &Project, server: &Server) {
    assert_eq!(leftovers(server), [""; 0]);
    assert_eq!(project.run_dirs(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_killed_tests_database_is_kept_while_the_run_goes_on() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let victim = Holder::start(&project, &nextest.exported);
    let survivor = Holder::start(&project, &nextest.exported);
    let name = victim.database.clone();
    victim.kill();
    let kept = name.replace("_clone_", "_kept_");
    poll_until("the keeper has kept it", PATIENCE, || {
        match server.databases_of("kept") {
            names if names == [kept.clone()] => Ok(()),
            names => Err(format!("{names:?}")),
        }
    });
    assert!(!server.databases().contains(&name));
    assert!(server.databases().contains(&survivor.database));
    survivor.end();
    nextest.end();
    nothing_is_left(&project, &server);
}

#[test]
fn a_test_that_outlives_a_killed_nextest_keeps_its_database() {
    let server = Server::start();
    let project = Project::on(&server);
    let mut nextest = FakeNextest::start(&project, "r");
    let holder = Holder::start(&project, &nextest.exported);
    nextest.kill();
    // A sweep and another run come by while the test lives.
    project.run("sweep --no-wait").code(0);
    FakeNextest::start(&project, "other").end();
    assert!(server.databases().contains(&holder.database));
    holder.end();
    poll_until("the keeper has ended the run", PATIENCE, || {
        match project.run_dirs().as_slice() {
            [] => Ok(()),
            dirs => Err(format!("{dirs:?}")),
        }
    });
    nothing_is_left(&project, &server);
}

#[test]
fn tests_go_on_without_their_keeper_and_the_next_sweep_removes_what_it_left() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let before = Holder::start(&project, &nextest.exported);
    nextest.kill_keeper();
    child::run(&project, &nextest.exported, "once").code(0);
    child::run(&project, &nextest.exported, "shared").code(0);
    child::run(&project, &nextest.exported, "many").code(0);
    project.run("sweep --no-wait").code(0);
    assert!(
        server.databases().contains(&before.database),
        "swept while its test lived"
    );
    before.end();
    drop(nextest.without_keeper());
    project.run("sweep --no-wait").code(0);
    nothing_is_left(&project, &server);
}

#[test]
fn a_silent_test_whose_keeper_was_killed_is_alive_to_other_hosts() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let holder = Holder::start(&project, &nextest.exported);
    nextest.kill_keeper();
    let sql = "SELECT mode FROM pg_locks JOIN pg_stat_activity USING (pid) \
        WHERE locktype = 'advisory' AND granted AND application_name = 'kapsel-testdb test'";
    poll_until(
        "the test process holds the locks",
        PATIENCE,
        || match server.column_in("postgres", sql).as_slice() {
            [] => Err("no lock of a test process".to_owned()),
            _ => Ok(()),
        },
    );
    server.execute(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        holder.database
    ));
    server.wait_for_sessions(&holder.database, 0);
    // Another folder of run directories: as from another host.
    let mut there = Project::on(&server);
    there.set("KAPSEL_TESTDB_WATCH_SECS", "1");
    let outcome = there.run("sweep");
    outcome.code(0).says(&["0 databases", "1 run alive"]);
    holder.end();
    drop(nextest.without_keeper());
    project.run("sweep --no-wait").code(0);
    nothing_is_left(&project, &server);
}

#[test]
fn what_a_process_could_not_keep_is_kept_by_the_sweep() {
    let server = Server::start();
    let project = Project::on(&server);
    let holder = Holder::of(&project, child::command(&project, "", "late"));
    let ours =
        "SELECT pid::text FROM pg_stat_activity WHERE application_name LIKE 'kapsel-testdb %'";
    server.execute(&ours.replace("pid::text", "pg_terminate_backend(pid)"));
    poll_until(
        "its administrative session is gone",
        PATIENCE,
        || match server.column_in("postgres", ours).as_slice() {
            [] => Ok(()),
            pids => Err(format!("{pids:?}")),
        },
    );
    holder.end_with(101);
    assert_eq!(server.databases_of("clone").len(), 1);
    assert_eq!(project.run_dirs().len(), 1);
    project.run("sweep --no-wait").code(0);
    assert_eq!(server.databases_of("kept").len(), 1);
    nothing_is_left(&project, &server);
}

#[test]
fn a_killed_run_with_a_live_session_of_another_is_swept_by_the_next_prepare() {
    let server = Server::start();
    let project = Project::on(&server);
    let holder = Holder::start(&project, "");
    let name = holder.database.clone();
    holder.kill();
    assert!(
        server.databases().contains(&name),
        "a killed process cannot clean up"
    );
    // The keeper of the next run sweeps in the background.
    let nextest = FakeNextest::start(&project, "next");
    poll_until("the keeper has swept", PATIENCE, || {
        match project.run_dirs().as_slice() {
            [own] if *own == nextest.dir => Ok(()),
            dirs => Err(format!("{dirs:?}")),
        }
    });
    assert!(!server.databases().contains(&name));
    assert_eq!(server.databases_of("kept").len(), 1);
    nextest.end();
    nothing_is_left(&project, &server);
}

#[test]
fn prepare_killed_at_any_moment_leaves_nothing_that_the_next_one_cannot_remove() {
    let server = Server::start();
    let project = Project::on(&server);
    for n in 3..9 {
        let sql = format!("CREATE TABLE t{n} (id int); SELECT pg_sleep(0.02);");
        project.migration(&format!("{n:04}_slow"), &sql);
    }
    let other = "app_template_backup";
    server.create(&[other]);
    for step in 0..24 {
        // Each attempt builds anew, so that the kill meets another step of the build.
        project.migration("0009_step", &format!("SELECT {step};"));
        let mut prepare = project.tool("prepare").spawn();
        std::thread::sleep(Duration::from_millis(11 * step));
        let _ = prepare.kill();
        prepare.wait().expect("a killed child");
        let templates = server.databases_of("template");
        for name in templates.iter().filter(|name| *name != other) {
            let sealed = format!(
                "SELECT (datistemplate AND NOT datallowconn)::text FROM pg_database WHERE datname = '{name}'"
            );
            assert_eq!(
                server.column_in("postgres", &sealed),
                ["true"],
                "{name} is half-built"
            );
        }
    }
    let swept = project.run("sweep --no-wait");
    swept.code(0);
    nothing_is_left(&project, &server);
    assert!(server.databases().contains(&other.to_owned()));
    project.prepared();
    child::run(&project, "", "once").code(0);
}

#[test]
fn forty_processes_at_once_on_an_empty_server_build_one_template_and_leave_nothing() {
    let server = Server::start();
    server.execute("ALTER ROLE app SET log_statement = 'ddl'");
    let project = Project::on(&server);
    project.config("");
    let children: Vec<_> = (0..40)
        .map(|_| child::command(&project, "", "once").spawn())
        .collect();
    for child in children {
        Outcome::of(child).code(0);
    }
    let built = server
        .log()
        .matches("CREATE DATABASE \"app_building_")
        .count();
    assert_eq!(built, 1, "{}", server.log());
    assert_eq!(server.databases_of("template").len(), 1);
    nothing_is_left(&project, &server);
}

#[test]
fn a_run_outlives_a_restart_of_its_server_and_the_crash_of_a_session() {
    let mut server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "once").code(0);
    server.stop();
    server.go_on();
    child::run(&project, &nextest.exported, "once").code(0);
    // A backend that dies ends every session on the server, and with them every lock.
    let sql =
        "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'kapsel-testdb keeper'";
    let keeper = poll_until("the keeper is back", PATIENCE, || {
        let found = server.column_in("postgres", sql);
        found
            .first()
            .cloned()
            .ok_or("no session of the keeper".to_owned())
    });
    let pid = keeper.parse().expect("a process id");
    platform::signal(pid, Signal::KILL).expect("a backend to kill");
    // It may answer once more before it notices.
    poll_until("the server is back", PATIENCE, || {
        let log = server.log();
        let ups = log.matches("ready to accept connections").count();
        if ups == 2 { Ok(()) } else { Err(log) }
    });
    child::run(&project, &nextest.exported, "once").code(0);
    child::run(&project, &nextest.exported, "shared").code(0);
    nextest.end();
    nothing_is_left(&project, &server);
}

#[test]
fn a_frozen_keeper_that_was_swept_meanwhile_stops_and_drops_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let keeper = nextest.keeper_pid();
    poll_until(
        "the keeper is at work",
        PATIENCE,
        || match std::fs::read_dir(nextest.dir.join("ready")).map(Iterator::count) {
            Ok(0) => Err("no clone is ready".to_owned()),
            found => found.map_err(|error| error.to_string()),
        },
    );
    platform::signal(keeper, Signal::STOP).expect("a keeper to freeze");
    // As another host would: its session is gone, somebody else holds the run lock.
    let (run, _) = crate::support::read_run(&nextest.dir);
    let mut thief = server.session("postgres");
    let sql = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name LIKE 'kapsel-testdb keeper'";
    thief.execute(sql);
    let namespace = kapsel_testdb_core::protocol::Namespace::new("app").expect("valid");
    let key =
        kapsel_testdb_core::pg::lock::LockKey::run(&namespace, &run.parse().expect("a run id"));
    poll_until("the lock is free", PATIENCE, || {
        let sql = format!("SELECT pg_try_advisory_lock({})::text", key.as_i64());
        match thief.column(&sql)[0].as_str() {
            "true" => Ok(()),
            _ => Err("held".to_owned()),
        }
    });
    let before = server.databases();
    platform::signal(keeper, Signal::CONT).expect("a keeper to wake");
    poll_until("the keeper has stopped", PATIENCE, || {
        match nextest.has_keeper() {
            true => Err("it lives".to_owned()),
            false => Ok(()),
        }
    });
    assert_eq!(
        server.databases(),
        before,
        "a fenced-off keeper drops nothing"
    );
    assert!(
        nextest.keeper_log().contains("fenced off"),
        "{}",
        nextest.keeper_log()
    );
    thief.close();
    child::run(&project, &nextest.exported, "once").code(0);
    drop(nextest.without_keeper());
    project.run("sweep --no-wait").code(0);
    nothing_is_left(&project, &server);
}
