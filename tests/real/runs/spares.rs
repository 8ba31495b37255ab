//! Clones that wait for the next run, and the runs that adopt them.

use kapsel_testdb_core::protocol::{ReuseCounts, RunDir};

use crate::processes::child;
use crate::runs::reuse::{project, settled, test};
use crate::support::{DeadRun, FakeNextest, PATIENCE, Project, Server, poll_until};

/// A run with these tests, one after the other; what happened to its clones.
fn run(project: &Project, id: &str, tests: &[&str]) -> ReuseCounts {
    let nextest = FakeNextest::start(project, id);
    for sql in tests {
        test(project, &nextest, sql).code(0);
    }
    let counts = settled(&nextest, tests.len());
    nextest.end();
    counts
}

/// Statements of this kind in the server's log.
fn statements(server: &Server, words: &str) -> usize {
    server.log().matches(words).count()
}

#[test]
fn the_second_run_creates_and_drops_nothing() {
    let server = Server::start_with(&["log_statement=ddl"]);
    let project = project(&server);
    run(
        &project,
        "first",
        &["INSERT INTO visits (place) VALUES (1)"],
    );
    let before = ["CREATE DATABASE", "DROP DATABASE"].map(|words| statements(&server, words));
    let counts = run(
        &project,
        "second",
        &["INSERT INTO visits (place) VALUES (1)"],
    );
    assert_eq!(
        (counts.created, counts.recycled, counts.dropped),
        (0, 1, 0),
        "{counts}"
    );
    let after = ["CREATE DATABASE", "DROP DATABASE"].map(|words| statements(&server, words));
    assert_eq!(before, after);
}

#[test]
fn a_spare_is_ready_when_prepare_ends() {
    let server = Server::start();
    let project = project(&server);
    run(&project, "first", &["SELECT 1"]);
    let dead = DeadRun::leave(&project, "second");
    let ready = std::fs::read_dir(dead.dir.join("ready")).expect("the directory");
    assert_eq!(ready.count(), 1);
    project.run("sweep --no-wait").code(0);
}

#[test]
fn a_spare_that_somebody_visited_is_not_used() {
    let server = Server::start();
    let project = project(&server);
    run(&project, "first", &["SELECT 1"]);
    let spares = server.databases_of("spare");
    assert!(!spares.is_empty());
    for spare in &spares {
        server.execute_in(spare, "INSERT INTO users VALUES (1)");
        server.wait_for_sessions(spare, 0);
    }
    let nextest = FakeNextest::start(&project, "second");
    child::run(&project, &nextest.exported, "once").code(0);
    let counts = RunDir::reuse_counts(&nextest.dir);
    assert_eq!(counts.adopted, 0, "{counts}");
    nextest.end();
    let left = server.databases_of("spare");
    assert!(spares.iter().all(|spare| !left.contains(spare)), "{left:?}");
}

/// A crash resets all counters to zero, and a clone that was written to would look unused.
#[test]
fn no_spare_outlives_a_crash_of_the_server() {
    let server = Server::start();
    let project = project(&server);
    run(&project, "first", &["SELECT 1"]);
    let spares = server.databases_of("spare");
    server.crash();
    let nextest = FakeNextest::start(&project, "second");
    child::run(&project, &nextest.exported, "once").code(0);
    assert_eq!(RunDir::reuse_counts(&nextest.dir).adopted, 0);
    nextest.end();
    let left = server.databases_of("spare");
    assert!(spares.iter().all(|spare| !left.contains(spare)), "{left:?}");
}

#[test]
fn spares_can_be_limited_and_dropped() {
    let server = Server::start();
    let project = project(&server);
    run(&project, "first", &["SELECT 1"]);
    assert!(!server.databases_of("spare").is_empty());
    let status = project.run("status");
    assert!(
        status.code(0).stdout.contains("\nspares     "),
        "{status:?}"
    );
    project.run("sweep").code(0);
    assert!(!server.databases_of("spare").is_empty());
    project.run("sweep --spares").code(0);
    assert_eq!(server.databases_of("spare"), [""; 0]);
    project.config("[run]\nspares = 0\n");
    run(&project, "second", &["SELECT 1"]);
    assert_eq!(server.databases_of("spare"), [""; 0]);
}

#[test]
fn the_shared_clone_is_reused_although_tests_wrote_to_it() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "first");
    child::run(&project, &nextest.exported, "begin").code(0);
    nextest.end();
    let nextest = FakeNextest::start(&project, "second");
    // It is there before a test asks.
    let shared = std::fs::read_to_string(nextest.dir.join("shared")).expect("a shared clone");
    let name = shared.lines().next().expect("a name");
    assert_eq!(
        server.column_in(name, "SELECT count(*)::text FROM users"),
        ["0"]
    );
    let counts = RunDir::reuse_counts(&nextest.dir);
    assert!(counts.adopted > 0, "{counts}");
    nextest.end();
}

/// Each round of a stress run calls `prepare` again, which replaces the shared clone.
#[test]
fn rounds_of_a_stress_run_reuse_the_shared_clone() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "stress");
    child::run(&project, &nextest.exported, "begin").code(0);
    let shared = || std::fs::read_to_string(nextest.dir.join("shared"));
    let first = shared().expect("a shared clone");
    for round in 1..9 {
        // Without `--no-keeper` it would look for a nextest above itself.
        DeadRun::leave(&project, "stress");
        settled(&nextest, round);
        child::run(&project, &nextest.exported, "begin").code(0);
        assert_ne!(shared().expect("a shared clone"), first);
    }
    let counts = RunDir::reuse_counts(&nextest.dir);
    // The first shared one, and as many as the keeper has ready for two threads, and one on the way; not one more per round.
    assert!(counts.created <= 6, "{counts}\n{}", nextest.keeper_log());
    nextest.end();
}

#[test]
fn runs_at_the_same_time_share_spares() {
    let server = Server::start();
    let first = project(&server);
    let mut second = project(&server);
    second.share_host_with(&first);
    run(&first, "first", &["SELECT 1", "SELECT 1", "SELECT 1"]);
    let projects = [&first, &second];
    std::thread::scope(|scope| {
        for (at, project) in projects.into_iter().enumerate() {
            scope.spawn(move || {
                for round in 0..3 {
                    let nextest = FakeNextest::start(project, &format!("{at}-{round}"));
                    for _ in 0..4 {
                        child::run(project, &nextest.exported, "once").code(0);
                    }
                    nextest.end();
                }
            });
        }
    });
    project_is_clean(&server, &first);
}

fn project_is_clean(server: &Server, project: &Project) {
    poll_until("only spares and templates are left", PATIENCE, || {
        project.run("sweep --no-wait").code(0);
        let mut names = server.transient_databases();
        names.retain(|name| name.starts_with("app_"));
        if names.is_empty() {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
}

/// Without a run, a test process adopts a spare and leaves one.
#[test]
fn the_slow_path_reuses_clones_too() {
    let server = Server::start_with(&["log_statement=ddl"]);
    let project = project(&server);
    child::run(&project, "", "once").code(0);
    assert_eq!(server.databases_of("spare").len(), 1);
    let before = statements(&server, "CREATE DATABASE");
    child::run(&project, "", "once").code(0);
    child::run(&project, "", "many").code(0);
    assert_eq!(statements(&server, "CREATE DATABASE"), before);
    assert_eq!(statements(&server, "DROP DATABASE"), 0);
    assert_eq!(server.databases_of("spare").len(), 1);
}

#[test]
fn a_template_takes_its_spares_with_it() {
    let server = Server::start();
    let project = project(&server);
    project.config("[template]\nkeep = 1\n");
    run(&project, "first", &["SELECT 1"]);
    let old = server.databases_of("spare");
    project.migration("0004_more", "CREATE TABLE more (id int)");
    run(&project, "second", &["SELECT 1"]);
    project.run("sweep").code(0);
    let left = server.databases_of("spare");
    assert!(old.iter().all(|spare| !left.contains(spare)), "{left:?}");
    assert_eq!(server.databases_of("template").len(), 1);
}
