//! What the output of a failed test says about its database: the rows that it left, and how to look at them; or why nothing is kept.

use crate::processes::child::{self, SQL};
use crate::support::{Attempt, FakeNextest, Outcome, Project, Server, wait_for_kept};

/// Columns of a narrow terminal.
const NARROW: usize = 60;

/// Seeded tables, and more empty ones than are listed.
const SCHEMA: &str = "CREATE TABLE plans (id int PRIMARY KEY, price int); INSERT INTO plans SELECT n, n FROM generate_series(1, 9) n; \
     CREATE SCHEMA billing; CREATE TABLE billing.\"Invoices of the last and of this year\" (id int); \
     CREATE TABLE currencies (code text); INSERT INTO currencies VALUES ('EUR'), ('USD'); \
     DO $$ BEGIN FOR n IN 10 .. 29 LOOP EXECUTE format('CREATE TABLE t%s (id int)', n); END LOOP; END $$";

/// What the helper says in the output of a test that does this and fails.
fn said(project: &Project, exported: &str, task: &str, sql: &str) -> String {
    let attempt = Attempt::first(exported, "billing::pays").command(project, task);
    helper_lines(attempt.env(SQL, sql).run().code(101))
}

fn helper_lines(outcome: &Outcome) -> String {
    let start = outcome.stderr.find("kapsel-testdb: ");
    let start = start.unwrap_or_else(|| panic!("the helper says nothing: {outcome:#?}"));
    let lines = outcome.stderr[start..].lines();
    // The panic that reports an `Err`.
    let lines = lines.take_while(|line| !line.is_empty() && !line.starts_with("thread '"));
    lines.collect::<Vec<_>>().join("\n")
}

fn project_with_seeds(server: &Server) -> Project {
    let project = Project::on(server);
    project.migration("0003_billing", SCHEMA);
    project
}

#[test]
fn the_rows_that_a_failed_test_left_come_first_then_the_commands() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    let nextest = FakeNextest::start(&project, "r");
    let sql = "INSERT INTO users VALUES (1), (2); \
         INSERT INTO plans VALUES (10, 0), (11, 0), (12, 0); UPDATE plans SET price = 0 WHERE id IN (1, 2); DELETE FROM plans WHERE id = 9; \
         INSERT INTO billing.\"Invoices of the last and of this year\" VALUES (1); TRUNCATE currencies; \
         CREATE TABLE notes (id int); INSERT INTO notes VALUES (1); \
         INSERT INTO posts VALUES (1); DELETE FROM posts";
    let with_keeper = said(&project, &nextest.exported, "fails own", sql);
    insta::assert_snapshot!(with_keeper, @r#"
    kapsel-testdb: kept the test's database
    rows that the test left in it:
      table                             added  changed  removed
      public.plans                          3        2        1
      public.currencies                     -        -        2
      public.users                          2        -        -
      billing."Invoic… of this year"        1        -        -
      public.notes                          1        -        -
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    "#);
    let lines = with_keeper.lines();
    assert!(lines.into_iter().all(|line| line.chars().count() <= NARROW));
    // Without a keeper the process keeps the database itself; a destructor says the same as the end of an attribute's test.
    assert_eq!(said(&project, "", "fails own", sql), with_keeper);
    let dropped = said(&project, &nextest.exported, "fails lease", sql);
    assert_eq!(dropped, with_keeper);
    wait_for_kept(&project, &[("billing::pays", 1); 3]);
    nextest.end();
}

#[test]
fn work_that_was_rolled_back_or_is_not_committed_does_not_count() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    let nextest = FakeNextest::start(&project, "r");
    let rolled_back = "BEGIN; INSERT INTO users VALUES (1); DELETE FROM plans; ROLLBACK; BEGIN; INSERT INTO posts VALUES (1)";
    let nothing = said(&project, &nextest.exported, "fails own", rolled_back);
    insta::assert_snapshot!(nothing, @r"
    kapsel-testdb: kept the test's database
    its tables have the same rows as before the test
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
    // The same number of rows as before is no proof that the same rows are there.
    let sql = "BEGIN; DELETE FROM plans; ROLLBACK; UPDATE plans SET price = 0 WHERE id < 4; INSERT INTO plans VALUES (10, 0); \
         UPDATE plans SET price = 1 WHERE id = 10; DELETE FROM plans WHERE id = 9";
    let range = said(&project, &nextest.exported, "fails own", sql);
    insta::assert_snapshot!(range, @r"
    kapsel-testdb: kept the test's database
    rows that the test left in it:
      table           added  changed  removed
      public.plans      0–1      3–4      0–1
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
    nextest.end();
}

#[test]
fn a_clone_that_was_used_before_shows_only_the_last_test() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    let nextest = FakeNextest::start(&project, "r");
    let used = "INSERT INTO users VALUES (7); INSERT INTO plans VALUES (20, 0)";
    for _ in 0..3 {
        let passed = child::command(&project, &nextest.exported, "own-sql");
        passed.env(SQL, used).run().code(0);
    }
    let last = "INSERT INTO users VALUES (1); DELETE FROM plans WHERE id < 3";
    let failed = said(&project, &nextest.exported, "fails own", last);
    insta::assert_snapshot!(failed, @r"
    kapsel-testdb: kept the test's database
    rows that the test left in it:
      table           added  changed  removed
      public.plans        -        -        2
      public.users        1        -        -
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
    nextest.end();
}

#[test]
fn the_table_is_bounded() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    let sql = "DO $$ BEGIN FOR n IN 10 .. 29 LOOP EXECUTE format('INSERT INTO t%s SELECT generate_series(1, %s)', n, n * n * n); END LOOP; END $$";
    insta::assert_snapshot!(said(&project, "", "fails own", sql), @r"
    kapsel-testdb: kept the test's database
    rows that the test left in it:
      table         added  changed  removed
      public.t29    24389        -        -
      public.t28    21952        -        -
      public.t27    19683        -        -
      public.t26    17576        -        -
      public.t25    15625        -        -
      public.t24    13824        -        -
      public.t23    12167        -        -
      public.t22    10648        -        -
      public.t21     9261        -        -
      public.t20     8000        -        -
      and 10 more tables
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
}

#[test]
fn without_counters_of_the_clone_the_rows_are_still_counted() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    project.config("[run]\nrecycle = \"off\"\n");
    let sql = "INSERT INTO users VALUES (1); UPDATE plans SET price = 0 WHERE id = 1; DELETE FROM plans WHERE id = 9";
    insta::assert_snapshot!(said(&project, "", "fails own", sql), @r"
    kapsel-testdb: kept the test's database
    rows that the test left in it:
      table           added  changed  removed
      public.plans        -        1        1
      public.users        1        -        -
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
}

#[test]
fn a_test_on_the_shared_clone_says_why_nothing_is_kept() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    let nextest = FakeNextest::start(&project, "r");
    let sql = "INSERT INTO users VALUES (1)";
    for exported in [&nextest.exported, ""] {
        let sandbox = said(&project, exported, "fails sandbox", sql);
        let begin = said(&project, exported, "fails begin", sql);
        insta::allow_duplicates! {
            insta::assert_snapshot!(sandbox, @r#"
    kapsel-testdb: nothing is kept: the test's transaction was rolled back
    to keep a database, use `isolation = "database"` or `TestDb::lease()`
    "#);
            insta::assert_snapshot!(begin, @r#"
    kapsel-testdb: nothing is kept: the test's transaction was rolled back
    to keep a database, use `isolation = "database"` or `TestDb::lease()`
    "#);
        }
        for task in ["fails shared", "fails shared lease"] {
            let shared = said(&project, exported, task, "SELECT 1");
            insta::allow_duplicates! { insta::assert_snapshot!(shared, @r#"
    kapsel-testdb: nothing is kept: other tests use the shared clone too
    to keep a database, use `isolation = "database"` or `TestDb::lease()`
    "#) };
        }
    }
    nextest.end();
    // Nothing would be kept anyway.
    project.config("[keep]\nfailed = false\n");
    for task in ["fails sandbox", "fails shared", "fails own"] {
        let failed = child::command(&project, "", task).env(SQL, sql).run();
        failed.code(101).never_says("kapsel-testdb: ");
    }
}

/// What the helper says, with a fixed time.
fn said_without_times(outcome: &Outcome) -> String {
    let said = helper_lines(outcome.code(101));
    match said.split_once("were in use for ") {
        Some((before, after)) => {
            let (_, after) = after.split_once(" s,").expect("seconds");
            format!("{before}were in use for 1.0 s,{after}")
        }
        None => said,
    }
}

#[test]
fn a_pool_that_had_too_few_connections_names_its_limit_and_the_remedy() {
    let server = Server::start();
    let project = project_with_seeds(&server);
    project.config("[pool]\nmax_connections = 2\nacquire_timeout_secs = 1\n");
    let nextest = FakeNextest::start(&project, "r");
    let exhausts = |exported: &str, task: &str| {
        let outcome = Attempt::first(exported, "billing::pays").run(&project, task);
        said_without_times(&outcome)
    };
    // The output of an `Err` is not known; the pool is.
    for task in ["exhausts err", "exhausts lease"] {
        let said = exhausts(&nextest.exported, task);
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r"
        kapsel-testdb: all 2 connections of the test's pool were in use for 1.0 s,
        so a request for another one fails with `PoolTimedOut` after 1 s
        return connections earlier, or declare how many the test needs at once:
        `connections = N` (`TestDbOptions::connections`); `pool.max_connections` is for all tests
        kapsel-testdb: kept the test's database
        its tables have the same rows as before the test
        to compare it with its template, or to open it:
          kapsel-testdb kept diff billing::pays
          kapsel-testdb kept psql billing::pays
        ") };
    }
    insta::assert_snapshot!(exhausts(&nextest.exported, "exhausts panic"), @r"
    kapsel-testdb: all 2 connections of the test's pool were in use for 1.0 s,
    so a request for another one failed with `PoolTimedOut` after 1 s
    return connections earlier, or declare how many the test needs at once:
    `connections = N` (`TestDbOptions::connections`); `pool.max_connections` is for all tests
    kapsel-testdb: kept the test's database
    its tables have the same rows as before the test
    to compare it with its template, or to open it:
      kapsel-testdb kept diff billing::pays
      kapsel-testdb kept psql billing::pays
    ");
    insta::assert_snapshot!(exhausts(&nextest.exported, "exhausts shared"), @r#"
    kapsel-testdb: all 2 connections of the test's pool were in use for 1.0 s,
    so a request for another one fails with `PoolTimedOut` after 1 s
    return connections earlier, or declare how many the test needs at once:
    `connections = N` (`TestDbOptions::connections`); `pool.max_connections` is for all tests
    kapsel-testdb: nothing is kept: other tests use the shared clone too
    to keep a database, use `isolation = "database"` or `TestDb::lease()`
    "#);
    nextest.end();
}
