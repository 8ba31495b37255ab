//! What tests leave open is found, and told with the test's name; who leaves nothing is left alone.

use crate::processes::child;
use crate::support::{FakeNextest, Outcome, Project, Server, replication_connection};

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
