//! What tests leave open is found, and told with the test's name; who leaves nothing is left alone.

use crate::processes::child;
use crate::support::{DeadRun, FakeNextest, Outcome, Project, Server, replication_connection};

const LEFT: &str = "open on its database";

/// Runs a child on the fast path of a run whose `pool.leaks` is the given one.
fn in_a_run(leaks: &str, tasks: &[&str], check: impl Fn(&Project, &Server, &[Outcome])) {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_POOL_LEAKS", leaks);
    let nextest = FakeNextest::start(&project, "r");
    let run = |task: &&str| {
        let tool = child::command(&project, &nextest.exported, task);
        // What counts is what `run.json` says.
        let tool = tool.env_remove("KAPSEL_TESTDB_POOL_LEAKS");
        tool.env("NEXTEST_TEST_NAME", "orders::pays").run()
    };
    let outcomes: Vec<Outcome> = tasks.iter().map(run).collect();
    nextest.end();
    check(&project, &server, &outcomes);
}

#[test]
fn what_is_left_open_is_told_with_the_name_of_the_test() {
    let tasks = [
        "leaves a connection",
        "leaves all connections",
        "leaves a pool",
        "leaves a transaction",
        "leaves a query",
        "leaves a connection of the shared pool",
        "leaves a connection of a sandbox",
    ];
    in_a_run("warn", &tasks, |_, server, outcomes| {
        let [held, all, pool, transaction, query, common @ ..] = outcomes else {
            panic!("{outcomes:#?}")
        };
        held.code(0).says(&[
            "the test `orders::pays` left 1 connection open on its database",
            "; 1 from the test's pool",
            "idle for 0.",
            "application `orders::pays`, query: SELECT 'held'",
        ]);
        all.code(0)
            .says(&[" connections open", "; 5 from the test's pool"]);
        pool.code(0).says(&[
            "left 1 connection open on its database",
            "query: SELECT 'of the application'",
        ]);
        pool.never_says("from the test's pool");
        transaction.code(0).says(&[
            "left 1 connection open",
            "idle in transaction for 0.",
            "query: BEGIN; INSERT INTO users VALUES (1)",
        ]);
        query.code(0).says(&[
            "left 1 connection open",
            "active for 0.",
            "query: SELECT pg_sleep(60)",
        ]);
        assert_eq!(common.len(), 2);
        for outcome in common {
            outcome
                .code(0)
                .says(&["left 1 connection open", "1 from the test's pool"]);
        }
        assert!(server.databases_of("kept").is_empty());
    });
}

/// A test of this name that passes and leaves something open.
#[track_caller]
fn leaks(project: &Project, exported: &str, test: &str, task: &str) {
    let tool = child::command(project, exported, task);
    let tool = tool.env("NEXTEST_TEST_NAME", test);
    tool.env("NEXTEST_BINARY_ID", "shop::it").run().code(0);
}

/// What a command says about leaks, with fixed ages.
fn said(outcome: &Outcome) -> String {
    let said = outcome.code(0).stderr.lines();
    let said = said.skip_while(|line| !line.starts_with("kapsel-testdb: warning: "));
    let age = |line: &str| match line.split_once(" for ") {
        Some((state, rest)) if line.starts_with("    ") => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{state} for 0.0{rest}")
        }
        _ => line.to_owned(),
    };
    said.map(age).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_passing_tests_left_open_is_reported_once_by_the_next_command() {
    let server = Server::start();
    let project = Project::on(&server);
    let mut other = Project::named("other", &server);
    other.share_host_with(&project);
    let nextest = FakeNextest::start(&project, "r");
    leaks(
        &project,
        &nextest.exported,
        "orders::pays",
        "leaves a transaction",
    );
    leaks(
        &project,
        &nextest.exported,
        "orders::lists",
        "leaves a query",
    );
    leaks(
        &project,
        &nextest.exported,
        "orders::adds",
        "leaves nothing",
    );
    nextest.end();
    other
        .run("wait")
        .code(0)
        .never_says("left connections open");
    let waited = project.run("wait");
    insta::assert_snapshot!(said(&waited), @r#"
    kapsel-testdb: warning: 2 passing tests left connections open:
      shop::it orders::pays
        idle in transaction for 0.0 s, last query:
          BEGIN; INSERT INTO users VALUES (1)
      shop::it orders::lists
        active for 0.0 s, last query:
          SELECT pg_sleep(60)
    await spawned tasks, drop acquired connections, end transactions, and close your own pools;
    `leaks = "fail"` makes such a test fail, and `leaks = "off"` turns the check off
    "#);
    project
        .run("wait")
        .code(0)
        .never_says("left connections open");
    // Without a run, each process is one.
    leaks(&project, "", "one", "leaves a connection");
    let prepared = project.run("prepare");
    insta::assert_snapshot!(said(&prepared), @r#"
    kapsel-testdb: warning: 1 passing test left connections open:
      shop::it one
        1 connection of the test's pool
    await spawned tasks, drop acquired connections, end transactions, and close your own pools;
    `leaks = "fail"` makes such a test fail, and `leaks = "off"` turns the check off
    "#);
    project
        .run("prepare")
        .code(0)
        .never_says("left connections open");
    // The keeper was killed, so the sweep finds them.
    let dead = DeadRun::leave(&project, "dead");
    leaks(&project, &dead.exported, "swept", "leaves a connection");
    project.run("sweep --no-wait").code(0);
    assert!(said(&project.run("wait")).contains("  shop::it swept\n"));
    // `run` reports only its own.
    leaks(&project, "", "before", "leaves a connection");
    let binary = std::env::current_exe().expect("this test binary");
    let run = project.tool("run --").args([binary]);
    let run = run.args(["processes::child::child", "--exact", "--ignored"]);
    let ran = run.env(child::DO, "leaves a connection").run();
    assert!(
        said(&ran).contains("1 passing test left connections open:\n"),
        "{ran:#?}"
    );
    assert!(!said(&ran).contains("before"), "{ran:#?}");
    assert!(said(&project.run("wait")).contains("  shop::it before\n"));
}

#[test]
fn a_test_that_leaves_something_open_fails_where_that_is_asked_for_and_its_database_is_kept() {
    let tasks = [
        "leaves nothing",
        "leaves nothing in a sandbox",
        "leaves a connection of a sandbox",
        "leaves a transaction",
    ];
    in_a_run("fail", &tasks, |_, server, outcomes| {
        let [nothing, sandbox, held, transaction] = outcomes else {
            panic!("{outcomes:#?}")
        };
        nothing.code(0).never_says(LEFT);
        sandbox.code(0).never_says(LEFT);
        held.code(101).says(&["left 1 connection open"]);
        transaction.code(101).says(&[
            "the test `orders::pays` left 1 connection open",
            "kept the test's database",
        ]);
        let told = transaction.stderr.matches(LEFT).count();
        assert_eq!(told, 1, "{transaction:#?}");
        assert_eq!(server.databases_of("kept").len(), 1);
    });
}

#[test]
fn what_the_attribute_says_counts_for_its_test() {
    in_a_run("off", &["attribute"], |_, server, outcomes| {
        outcomes[0].code(101).says(&[
            "the test `orders::pays` left 1 connection open",
            "1 from the test's pool",
            "kept the test's database",
        ]);
        assert_eq!(server.databases_of("kept").len(), 1);
    });
}

#[test]
fn nobody_looks_where_nobody_asks() {
    in_a_run("off", &["leaves a transaction"], |_, _, outcomes| {
        outcomes[0].code(0).never_says(LEFT);
    });
}

#[test]
fn what_goes_in_the_last_moment_and_other_tests_sessions_are_not_told() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    for _ in 0..5 {
        let outcome = child::run(&project, &nextest.exported, "leaves nothing");
        outcome.code(0).never_says(LEFT);
    }
    child::run(&project, &nextest.exported, "shared").code(0);
    let [shared] = &*server.databases_of("shared") else {
        panic!("one shared clone")
    };
    let mut other = server.session_of_role(shared);
    other.execute("BEGIN; SELECT 1");
    let outcome = child::run(&project, &nextest.exported, "leaves nothing shared");
    outcome.code(0).never_says(LEFT);
    other.close();
    nextest.end();
}

#[test]
fn without_a_run_it_is_found_as_well() {
    let server = Server::start();
    let project = Project::on(&server);
    let outcome = child::run(&project, "", "leaves a transaction");
    outcome.code(0).says(&["idle in transaction for 0."]);
    let outcome = child::run(&project, "", "leaves nothing");
    outcome.code(0).never_says(LEFT);
}

#[test]
fn tests_may_count_and_assert() {
    in_a_run("warn", &["leaves and asserts"], |_, _, outcomes| {
        let outcome = &outcomes[0];
        outcome.code(101);
        outcome.says(&[
            "panicked at",
            "the test `orders::pays` left 1 connection open",
            "1 from the test's pool",
        ]);
        assert_eq!(outcome.stderr.matches(LEFT).count(), 1, "{outcome:#?}");
    });
}

#[test]
fn background_workers_and_replication_connections_are_no_leaks() {
    let server = Server::start_with(&["wal_level=logical"]);
    server.execute("ALTER ROLE app REPLICATION");
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_POOL_LEAKS", "fail");
    let nextest = FakeNextest::start(&project, "r");
    for task in [
        "leaves a replication connection",
        "leaves a background worker",
    ] {
        let outcome = child::run(&project, &nextest.exported, task);
        outcome.code(0).never_says(LEFT);
    }
    nextest.end();
}

#[test]
fn a_replication_connection_does_not_prevent_that_a_database_is_kept() {
    let server = Server::start();
    server.execute("ALTER ROLE app REPLICATION");
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let test = child::Holder::start(&project, &nextest.exported);
    let (folder, port) = (server.folder(), server.socket_port());
    let connection = replication_connection(folder, port, &test.database);
    test.kill();
    nextest.end();
    assert_eq!(server.databases_of("kept").len(), 1);
    drop(connection);
}
