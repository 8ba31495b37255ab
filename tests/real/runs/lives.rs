//! A run from its beginning to its end, when nothing dies.

use std::path::Path;

use kapsel_testdb_core::protocol::PROTOCOL;

use super::reuse;
use crate::processes::child;
use crate::support::{FakeNextest, PATIENCE, Project, Server, poll_until, read_run};

#[test]
fn a_test_on_the_fast_path_opens_one_connection_and_no_other() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    poll_until("a clone is ready", PATIENCE, || ready(&nextest.dir));
    server.execute("ALTER SYSTEM SET log_connections = on");
    server.execute("SELECT pg_reload_conf()");
    poll_until("the server logs connections", PATIENCE, || {
        server.execute("SELECT 1");
        match server
            .log()
            .contains("connection authorized: user=postgres")
        {
            true => Ok(()),
            false => Err(server.log()),
        }
    });
    child::run(&project, &nextest.exported, "touch").code(0);
    let log = server.log();
    let of_the_child = |line: &&str| {
        line.contains("connection authorized") && line.contains("application_name=processes::child")
    };
    let connections: Vec<&str> = log.lines().filter(of_the_child).collect();
    assert_eq!(connections.len(), 1, "{log}");
    assert!(connections[0].contains("database=app_clone_"), "{log}");
    let helpers = log
        .lines()
        .filter(|line| line.contains("application_name=kapsel-testdb test"));
    assert_eq!(
        helpers.count(),
        0,
        "an administrative session on the fast path: {log}"
    );
    nextest.end();
}

fn ready(dir: &Path) -> Result<(), String> {
    let entries = std::fs::read_dir(dir.join("ready")).map_err(|e| e.to_string())?;
    match entries.count() {
        0 => Err("none is ready".to_owned()),
        _ => Ok(()),
    }
}

#[test]
fn every_isolation_works_on_the_fast_and_on_the_slow_path() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("");
    let nextest = FakeNextest::start(&project, "r");
    for exported in ["", nextest.exported.as_str()] {
        for task in ["once", "shared", "begin", "many"] {
            child::run(&project, exported, task).code(0);
        }
    }
    nextest.end();
    assert!(server.databases_of("clone").is_empty());
    assert!(server.databases_of("shared").is_empty());
}

#[test]
fn a_failed_tests_database_is_kept_and_its_output_says_how_to_look_at_it() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("");
    let nextest = FakeNextest::start(&project, "r");
    for exported in ["", nextest.exported.as_str()] {
        let before = server.databases_of("kept");
        let failed = child::run(&project, exported, "panic");
        failed
            .code(101)
            .says(&["kept the test's database", "kapsel-testdb kept psql "]);
        let name = poll_until("the database has its kept name", PATIENCE, || {
            let mut kept = server.databases_of("kept");
            kept.retain(|name| !before.contains(name));
            kept.pop()
                .ok_or_else(|| format!("{:?}", server.databases()))
        });
        assert_eq!(
            server.column_in(&name, "SELECT id::text FROM users"),
            ["42"]
        );
    }
    nextest.end();
    project.run("sweep --no-wait").code(0);
    assert_eq!(
        server.databases_of("kept").len(),
        2,
        "kept within the bounds"
    );
    project.config("[keep]\nmax = 1\n");
    project.run("sweep --no-wait").code(0);
    assert_eq!(server.databases_of("kept").len(), 1);
    project.config("[keep]\nfailed = false\n");
    child::run(&project, "", "panic")
        .code(101)
        .never_says("kept the test");
    assert_eq!(server.databases_of("kept").len(), 1);
}

#[test]
fn a_second_prepare_joins_the_run_and_gives_it_a_fresh_shared_clone() {
    let server = Server::start();
    let project = Project::on(&server);
    let first = FakeNextest::start(&project, "same");
    child::run(&project, &first.exported, "shared").code(0);
    let keeper = first.keeper_pid();
    let old = shared(&first.dir).expect("a shared clone");
    let second = FakeNextest::start(&project, "same");
    assert_eq!(first.dir, second.dir, "one run");
    assert_eq!(first.exported, second.exported);
    assert_eq!(second.keeper_pid(), keeper, "one keeper");
    // The first test that needs one makes it.
    child::run(&project, &second.exported, "shared").code(0);
    assert_ne!(shared(&first.dir).expect("a shared clone"), old);
    let counts = reuse::settled(&first, 1);
    assert_eq!((counts.recycled, counts.dropped), (0, 1), "{counts}");
    drop(second.without_keeper());
    first.end();
    assert!(server.databases_of("shared").is_empty());
}

fn shared(dir: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(dir.join("shared"));
    let name = |text: String| text.lines().next().unwrap_or_default().to_owned();
    text.map(name).map_err(|e| e.to_string())
}

#[test]
fn a_keeper_whose_template_is_gone_tries_no_more() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    poll_until("a clone is ready", PATIENCE, || ready(&nextest.dir));
    let (_, template) = read_run(&nextest.dir);
    server.execute(&format!("ALTER DATABASE {template} IS_TEMPLATE false"));
    server.execute(&format!("DROP DATABASE {template}"));
    let holder = child::Holder::start(&project, &nextest.exported);
    // The second test shows that there are many.
    child::run(&project, &nextest.exported, "once").code(0);
    let said = || nextest.keeper_log().matches("ahead of demand").count();
    poll_until("the keeper has said so", PATIENCE, || match said() {
        0 => Err(nextest.keeper_log()),
        _ => Ok(()),
    });
    child::run(&project, &nextest.exported, "once").code(0);
    // Both workers may have tried once.
    assert!(said() <= 2, "{}", nextest.keeper_log());
    holder.end();
    nextest.end();
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn a_keeper_that_cannot_write_entries_leaves_no_databases_and_stops_creating() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    poll_until("a clone is ready", PATIENCE, || ready(&nextest.dir));
    // Impossible to write to, also for root.
    let entries = nextest.dir.join("ready");
    std::fs::rename(&entries, nextest.dir.join("ready.old")).expect("renamed");
    std::fs::write(&entries, "").expect("a file");
    let warnings = || {
        nextest
            .keeper_log()
            .matches("cannot write to the run")
            .count()
    };
    poll_until("the keeper has warned", PATIENCE, || match warnings() {
        0 => Err(nextest.keeper_log()),
        _ => Ok(()),
    });
    let log = nextest.keeper_log();
    for part in [&*nextest.dir.to_string_lossy(), "KAPSEL_TESTDB_RUNTIME_DIR"] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(warnings(), 1, "{log}");
    assert_eq!(
        server.databases_of("clone").len(),
        1,
        "only the first one is left: {log}"
    );
    nextest.end();
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn a_shared_clone_that_cannot_be_recorded_is_dropped() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    poll_until("a clone is ready", PATIENCE, || ready(&nextest.dir));
    // A file cannot replace a directory.
    std::fs::create_dir(nextest.dir.join("shared")).expect("a directory");
    child::run(&project, &nextest.exported, "shared")
        .code(101)
        .says(&["shared`"]);
    assert!(server.databases_of("shared").is_empty());
    nextest.end();
}

#[test]
fn a_test_may_stop_tokios_clock() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "paused").code(0);
    nextest.end();
}

#[test]
fn prepare_returns_though_its_keeper_lives_on() {
    let server = Server::start();
    let project = Project::on(&server);
    let file = project.beside("nextest-env");
    std::fs::write(&file, "").expect("nextest's file");
    // `run` waits for the end of both pipes: one that the keeper had inherited would hang it.
    let prepare = project
        .tool("prepare -v")
        .env("NEXTEST_ENV", &file)
        .env("NEXTEST_RUN_ID", "pipes");
    prepare.run().code(0);
    let dirs = project.run_dirs();
    let run = kapsel_testdb_core::protocol::RunDir::join(&dirs[0]).expect("the run lives");
    assert!(run.has_keeper());
    drop(run);
    let pid = poll_until("the keeper listens", PATIENCE, || {
        crate::support::keeper_of(&dirs[0]).ok_or("not yet".to_owned())
    });
    kapsel_testdb_core::platform::signal(pid, kapsel_testdb_core::platform::Signal::TERM)
        .expect("told");
    project.run("wait").code(0);
    assert!(project.run_dirs().is_empty(), "SIGTERM ends it cleanly");
}

#[test]
fn a_stale_run_directory_is_said_and_the_test_passes_all_the_same() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("");
    let gone = project.beside("rt/runs/000000000000000");
    let exported = format!("KAPSEL_TESTDB_RUN_DIR={}", gone.display());
    let outcome = child::run(&project, &exported, "once");
    outcome
        .code(0)
        .says(&["has ended", "KAPSEL_TESTDB_RUN_DIR", "slower"]);
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn without_a_keeper_tests_make_and_drop_their_databases_by_themselves() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = crate::support::DeadRun::leave(&project, "alone");
    for task in ["once", "shared", "many", "panic"] {
        let code = if task == "panic" { 101 } else { 0 };
        child::run(&project, &run.exported, task).code(code);
    }
    assert!(server.databases_of("clone").is_empty());
    assert_eq!(server.databases_of("kept").len(), 1);
    project.run("sweep --no-wait").code(0);
    assert!(server.databases_of("shared").is_empty());
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_run_of_another_version_is_refused_with_the_remedy() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = crate::support::DeadRun::leave(&project, "old");
    let path = run.dir.join("run.json");
    let text = std::fs::read_to_string(&path).expect("run.json");
    let (id, _) = read_run(&run.dir);
    for (damaged, says) in [
        (
            text.replace(&format!("\"protocol\": {PROTOCOL}"), "\"protocol\": 99"),
            "protocol version is 99",
        ),
        ("{ not json".to_owned(), "is not usable"),
    ] {
        std::fs::write(&path, damaged).expect("run.json");
        let outcome = child::run(&project, &run.exported, "once");
        outcome.code(101).says(&[says, &id, "same version"]);
    }
}

#[test]
fn a_port_that_never_answers_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("its address").port();
    let mut project = Project::new("app");
    project.migration("0001_users", "SELECT 1;");
    project.set(
        "DATABASE_URL",
        &format!("postgres://me@127.0.0.1:{port}/postgres"),
    );
    let outcome = project.run("prepare");
    outcome
        .code(4)
        .says(&["cannot reach PostgreSQL", "timed out"]);
}

#[test]
fn a_disk_budget_that_is_too_small_is_said_and_tests_pass_all_the_same() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[run]\ndisk_budget_mb = 1\n");
    let nextest = FakeNextest::start(&project, "r");
    for task in ["once", "many", "shared"] {
        child::run(&project, &nextest.exported, task).code(0);
    }
    let log = nextest.keeper_log();
    assert!(
        log.contains("too little disk space") && log.contains("raise `run.disk_budget_mb`"),
        "{log}"
    );
    assert!(
        ready(&nextest.dir).is_err(),
        "none is created ahead of demand"
    );
    nextest.end();
    assert!(server.databases_of("clone").is_empty());
}
