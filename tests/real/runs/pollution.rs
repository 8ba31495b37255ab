//! What tests commit into the shared clone is found at the run's end, and nothing else is.

use std::path::PathBuf;

use kapsel_testdb_core::platform::{self, Signal};

use crate::processes::child;
use crate::support::{DeadRun, FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

/// Tables, a sequence and rows.
fn project(server: &Server) -> Project {
    let project = Project::on(server);
    let sql = "CREATE SEQUENCE numbers; CREATE TABLE places (id int PRIMARY KEY, name text); \
               INSERT INTO places VALUES (1, 'one'), (2, 'two'), (3, 'three');";
    project.migration("0003_places", sql);
    project
}

/// A test of that name that runs this in the shared clone.
#[track_caller]
fn test(project: &Project, nextest: &FakeNextest, name: &str, task: &str, sql: &str) {
    let child = child::command(project, &nextest.exported, task).env(child::SQL, sql);
    let child = child.env("NEXTEST_TEST_NAME", name);
    child.env("NEXTEST_BINARY_ID", "shop::it").run().code(0);
}

/// The same on the shared clone.
fn shared_test(project: &Project, nextest: &FakeNextest, name: &str, sql: &str) {
    test(project, nextest, name, "shared-sql", sql);
}

/// A run with one test; what `wait` says afterwards.
#[track_caller]
fn run_with(project: &Project, id: &str, task: &str, sql: &str) -> Outcome {
    let nextest = FakeNextest::start(project, id);
    test(project, &nextest, "the_test", task, sql);
    nextest.end();
    project.run("wait")
}

fn reports(project: &Project) -> Vec<PathBuf> {
    let folder = project.beside("rt/pollution");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn a_committed_row_is_reported_with_its_table_and_the_tests_that_could_have_done_it() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    for (name, task, sql) in [
        (
            "commits::a_row",
            "shared-sql",
            "INSERT INTO places VALUES (42, 'it''s new')",
        ),
        ("reads::only", "shared-sql", "SELECT count(*) FROM places"),
        ("undoes::it", "begin-sql", "DELETE FROM places"),
    ] {
        test(&project, &nextest, name, task, sql);
    }
    let said = [
        "modified the shared clone",
        "public.places: 1 added",
        "+ id='42', name='it's new'",
        "tests that used it:\n  shop::it commits::a_row\n  shop::it reads::only\n",
        "in a transaction (only a COMMIT in SQL can end it):\n  shop::it undoes::it\n",
    ];
    let log = project.beside("rt/logs");
    nextest.end();
    let log = std::fs::read_dir(log)
        .expect("logs")
        .flatten()
        .next()
        .expect("a log");
    let log = std::fs::read_to_string(log.path()).expect("the keeper's log");
    assert!(log.contains("public.places: 1 added"), "{log}");
    let waited = project.run("wait");
    waited.code(0).says(&said);
    let report = waited
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("this report is stored in "));
    let text = std::fs::read_to_string(report.expect("a path")).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        report["difference"]["tables"][0]["rows"][0]["values"][0]["value"],
        "42"
    );
    assert_eq!(report["tests"]["shared"][1], "shop::it reads::only");
    project.run("wait").code(0).never_says("shared clone");
    assert!(server.databases_of("shared").is_empty() && server.databases_of("clone").is_empty());
}

#[test]
fn whatever_stays_is_reported_and_what_does_not_is_not() {
    let server = Server::start();
    let project = project(&server);
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "shared-sql",
            "UPDATE places SET name = 'uno' WHERE id = 1",
            &["public.places: 1 changed", "~ id='1': name 'one' → 'uno'"],
        ),
        (
            "shared-sql",
            "DELETE FROM places WHERE id > 1",
            &["public.places: 2 removed", "- id='2', name='two'"],
        ),
        (
            "shared-sql",
            "TRUNCATE places",
            &["public.places: 3 removed"],
        ),
        (
            "shared-sql",
            "CREATE TABLE left_over (id int)",
            &["+ table public.left_over"],
        ),
        (
            "shared-sql",
            "ALTER TABLE users ADD COLUMN name text",
            &["+ column public.users.name"],
        ),
        (
            "shared-sql",
            "SELECT lo_from_bytea(77, '\\x01')",
            &["large objects: 1 added"],
        ),
        (
            "shared-sql",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database()); END $$",
            &["+ setting work_mem"],
        ),
        (
            "begin-sql",
            "INSERT INTO users VALUES (7); COMMIT",
            &["public.users: 1 added", "in a transaction", "the_test"],
        ),
        (
            "begin-sql",
            "INSERT INTO users VALUES (7); CREATE TABLE undone (id int); DELETE FROM places",
            &[],
        ),
        (
            "shared-sql",
            "BEGIN; UPDATE places SET name = 'x'; TRUNCATE users; ROLLBACK",
            &[],
        ),
        (
            "shared-sql",
            "SELECT nextval('numbers'); CREATE TEMPORARY TABLE t AS SELECT 1; ANALYZE",
            &[],
        ),
        (
            "shared-sql",
            "INSERT INTO users VALUES (9); DELETE FROM users; UPDATE places SET name = name; TRUNCATE users",
            &[],
        ),
        (
            "shared-sql",
            "CREATE TABLE gone (id int); DROP TABLE gone",
            &[],
        ),
    ];
    for (i, (task, sql, says)) in cases.iter().enumerate() {
        let waited = run_with(&project, &format!("r{i}"), task, sql);
        waited.code(0);
        match says {
            [] => drop(waited.never_says("shared clone")),
            says => drop(waited.says(says)),
        }
    }
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn a_run_that_wrote_nothing_is_not_compared_with_anything() {
    let server = Server::start();
    server.execute("ALTER SYSTEM SET log_connections = on");
    server.execute("SELECT pg_reload_conf()");
    let project = project(&server);
    run_with(
        &project,
        "r",
        "shared-sql",
        "SELECT count(*), nextval('numbers') FROM places",
    )
    .code(0);
    let log = server.log();
    assert!(log.contains("application_name=the_test"), "{log}");
    assert!(
        !log.contains("application_name=kapsel-testdb compare"),
        "{log}"
    );
    // What was rolled back is compared, with a clone that was there anyway.
    run_with(&project, "s", "begin-sql", "DELETE FROM places").code(0);
    let log = server.log();
    assert!(
        log.contains("application_name=kapsel-testdb compare"),
        "{log}"
    );
    assert!(reports(&project).is_empty());
}

#[test]
fn fail_fails_wait_and_run_but_not_the_next_prepare() {
    let server = Server::start();
    let mut project = project(&server);
    let path = std::env::var("PATH").unwrap_or_default();
    let binaries = crate::support::binaries();
    project.set("PATH", &format!("{}:{path}", binaries.dir.display()));
    project.config("[shared]\npollution = \"fail\"\n");
    let sql = "INSERT INTO users VALUES (1)";
    run_with(&project, "r", "shared-sql", sql)
        .code(9)
        .says(&["public.users: 1 added"]);
    project.run("wait").code(0);
    for flags in ["", "--no-keeper"] {
        let psql = |script: &str| {
            project
                .tool(&format!("run {flags} --"))
                .args(["sh", "-c", script])
                .run()
        };
        let insert = "psql -qc 'INSERT INTO users VALUES (1)'";
        psql(insert).code(9).says(&[
            "public.users: 1 added",
            "no test recorded that it used the clone",
        ]);
        psql(&format!("{insert}; exit 7"))
            .code(7)
            .says(&["public.users: 1 added"]);
        psql("psql -qc 'TABLE users'")
            .code(0)
            .never_says("shared clone");
    }
    let nextest = FakeNextest::start(&project, "s");
    test(&project, &nextest, "the_test", "shared-sql", sql);
    nextest.end();
    project.run("prepare").code(0).says(&[
        "kapsel-testdb: warning: tests of run",
        "public.users: 1 added",
        "the_test",
    ]);
    project.run("prepare").code(0).never_says("shared clone");
    project.run("wait").code(0).never_says("shared clone");
}

#[test]
fn off_is_off() {
    let server = Server::start();
    let mut project = project(&server);
    project.set("KAPSEL_TESTDB_SHARED_POLLUTION", "off");
    let nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "the_test", "DELETE FROM places");
    assert!(
        !nextest.dir.join("shared.uses").exists(),
        "nobody would read it"
    );
    nextest.end();
    project.run("wait").code(0).never_says("shared clone");
    assert!(reports(&project).is_empty());
}

#[test]
fn where_the_keeper_was_killed_nobody_looks() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "the_test", "DELETE FROM places");
    nextest.kill_keeper();
    drop(nextest.without_keeper());
    let run = DeadRun::leave(&project, "alone");
    let child = child::command(&project, &run.exported, "shared-sql");
    child.env(child::SQL, "DELETE FROM places").run().code(0);
    project.run("sweep --no-wait").code(0);
    assert!(server.databases_of("shared").is_empty() && project.run_dirs().is_empty());
    project.run("wait").code(0).never_says("shared clone");
}

#[test]
fn the_shared_clone_of_an_earlier_round_is_judged_too() {
    let server = Server::start();
    let project = project(&server);
    let first = FakeNextest::start(&project, "same");
    shared_test(&project, &first, "of_the_first_round", "DELETE FROM places");
    let second = FakeNextest::start(&project, "same");
    poll_until("it was judged", PATIENCE, || {
        match reports(&project).len() {
            1 => Ok(()),
            n => Err(format!("{n} reports: {}", first.keeper_log())),
        }
    });
    shared_test(&project, &second, "of_the_second_round", "SELECT 1");
    drop(second.without_keeper());
    first.end();
    project
        .run("wait")
        .code(0)
        .says(&["of_the_first_round"])
        .never_says("of_the_second_round");
    assert_eq!(reports(&project).len(), 1);
}

#[test]
fn where_the_server_keeps_the_times_of_commits_only_the_tests_of_that_time_are_named() {
    let server = Server::start_with(&["track_commit_timestamp=on"]);
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "before", "SELECT 1");
    // Not a wait for something: without a moment between them, both count.
    let moment = || std::thread::sleep(std::time::Duration::from_millis(50));
    moment();
    shared_test(
        &project,
        &nextest,
        "commits",
        "INSERT INTO users VALUES (1)",
    );
    moment();
    shared_test(&project, &nextest, "after", "SELECT 1");
    nextest.end();
    let waited = project.run("wait");
    waited
        .code(0)
        .says(&["tests that used it at the time of the commits:\n  shop::it commits\n"]);
    waited.never_says("before").never_says("after");
}

#[test]
fn counters_that_are_lost_or_not_kept_make_everything_suspect() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "the_test", "DELETE FROM places");
    // The counters must have begun clearly later than the run.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let sql =
        "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'kapsel-testdb keeper'";
    let pid = server.column_in("postgres", sql)[0]
        .parse()
        .expect("a process id");
    platform::signal(pid, Signal::KILL).expect("a backend to kill");
    poll_until("the server is back", PATIENCE, || {
        let log = server.log();
        let ups = log.matches("ready to accept connections").count();
        if ups == 2 { Ok(()) } else { Err(log) }
    });
    nextest.end();
    project
        .run("wait")
        .code(0)
        .says(&["public.places: 3 removed", "the_test"]);

    let server = Server::start_with(&["track_counts=off"]);
    let project = self::project(&server);
    run_with(&project, "r", "shared-sql", "DELETE FROM places").says(&["public.places: 3 removed"]);
    run_with(&project, "s", "shared-sql", "SELECT 1")
        .code(0)
        .never_says("shared clone");
}

#[test]
fn what_could_not_be_compared_counts_as_a_difference() {
    let server = Server::start();
    let project = project(&server);
    project.config("[shared]\npollution = \"fail\"\n");
    let sql = "CREATE TABLE secrets (id int); REVOKE SELECT ON secrets FROM app";
    project.migration("0004_secrets", sql);
    run_with(
        &project,
        "r",
        "shared-sql",
        "INSERT INTO secrets VALUES (1)",
    )
    .code(9)
    .says(&[
        "may have modified the shared clone; it could not be compared",
        "public.secrets: ",
        "permission denied for table secrets",
        "the_test",
        "GRANT SELECT",
    ]);
    // A table that no test wrote to need not be read.
    run_with(&project, "s", "shared-sql", "SELECT 1").code(0);
}

#[test]
fn rows_that_a_policy_hides_from_their_owner_are_found() {
    let server = Server::start();
    let project = project(&server);
    project.config("[shared]\npollution = \"fail\"\n");
    let sql = "CREATE TABLE tenants (id int PRIMARY KEY); ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
               CREATE POLICY inserts ON tenants FOR INSERT WITH CHECK (true)";
    project.migration("0004_tenants", sql);
    let insert = "INSERT INTO tenants VALUES (1)";
    run_with(&project, "r", "shared-sql", insert)
        .code(9)
        .says(&["public.tenants: 1 added"]);
    run_with(&project, "s", "begin-sql", insert).code(0);
}

#[test]
fn a_comparison_that_fails_is_reported() {
    let server = Server::start();
    let project = project(&server);
    project.config("[shared]\npollution = \"fail\"\n");
    let nextest = FakeNextest::start(&project, "r");
    shared_test(
        &project,
        &nextest,
        "the_test",
        "INSERT INTO users VALUES (1)",
    );
    let [shared] = &*server.databases_of("shared") else {
        panic!("one shared clone")
    };
    server.execute(&format!(
        "ALTER DATABASE \"{shared}\" ALLOW_CONNECTIONS false"
    ));
    nextest.end();
    project.run("wait").code(9).says(&[
        "may have modified the shared clone; it could not be compared",
        "everything: ",
        "not currently accepting connections",
        "the_test",
    ]);
}

#[test]
fn counters_that_a_session_may_still_add_to_are_not_trusted() {
    let server = Server::start();
    server.execute("CREATE ROLE other LOGIN");
    let project = project(&server);
    let sql = "GRANT INSERT, SELECT ON places TO PUBLIC";
    project.migration("0004_grants", sql);
    let mut nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "the_test", "SELECT 1");
    let [shared] = &*server.databases_of("shared") else {
        panic!("one shared clone")
    };
    // A session flushes its counters at once, and then not for a second.
    let mut other = server.session_as("other", shared);
    other.execute("SELECT 1");
    other.execute("INSERT INTO places VALUES (42, 'unseen')");
    nextest.kill();
    poll_until("it was judged", PATIENCE, || {
        match reports(&project).len() {
            1 => Ok(()),
            n => Err(format!("{n} reports: {}", nextest.keeper_log())),
        }
    });
    other.close();
    poll_until("the keeper is done", PATIENCE, || {
        match nextest.has_keeper() {
            true => Err(nextest.keeper_log()),
            false => Ok(()),
        }
    });
    drop(nextest.without_keeper());
    project
        .run("wait")
        .code(0)
        .says(&["public.places: 1 added", "id='42'"]);
}

/// A test that declares that it commits only under keys of its own.
#[track_caller]
fn own_keys_test(project: &Project, nextest: &FakeNextest, name: &str, sql: &str) {
    test(project, nextest, name, "own-keys-sql", sql);
}

const ADDS: &str = "INSERT INTO notes VALUES ('of KEY'); INSERT INTO notes VALUES ('of KEY'); INSERT INTO users VALUES (17)";

fn project_with_notes(server: &Server) -> Project {
    let project = project(server);
    project.migration("0004_notes", "CREATE TABLE notes (text text);");
    project
}

#[test]
fn rows_of_tests_with_keys_of_their_own_are_not_reported_with_commit_times_or_without() {
    for settings in [&["track_commit_timestamp=on"][..], &[]] {
        let server = Server::start_with(settings);
        let project = project_with_notes(&server);
        let nextest = FakeNextest::start(&project, "r");
        own_keys_test(&project, &nextest, "adds", ADDS);
        test(
            &project,
            &nextest,
            "undoes",
            "begin-sql",
            "DELETE FROM places",
        );
        nextest.end();
        project.run("wait").code(0).never_says("shared clone");
        assert!(reports(&project).is_empty());
        // Rows of the template belong to no test.
        let nextest = FakeNextest::start(&project, "s");
        let changes = format!(
            "{ADDS}; UPDATE places SET name = 'KEY' WHERE id = 1; DELETE FROM places WHERE id = 2"
        );
        own_keys_test(&project, &nextest, "changes", &changes);
        nextest.end();
        let waited = project.run("wait");
        waited.code(0).says(&[
            "public.places: 1 removed, 1 changed\n",
            "shop::it changes\n",
        ]);
        waited.never_says("public.notes").never_says("public.users");
    }
}

#[test]
fn rows_of_other_tests_are_reported_and_only_these_tests_are_named() {
    let server = Server::start_with(&["track_commit_timestamp=on"]);
    let project = project_with_notes(&server);
    let nextest = FakeNextest::start(&project, "r");
    // Not a wait for something: without a moment between them, both count.
    let moment = || std::thread::sleep(std::time::Duration::from_millis(50));
    own_keys_test(&project, &nextest, "declares", ADDS);
    moment();
    let sql = "INSERT INTO notes VALUES ('mine'); INSERT INTO places VALUES (9)";
    shared_test(&project, &nextest, "does_not", sql);
    moment();
    own_keys_test(
        &project,
        &nextest,
        "declares_too",
        &ADDS.replace("17", "18"),
    );
    nextest.end();
    let waited = project.run("wait");
    waited.code(0).says(&[
        "public.notes: 1 added\n",
        "+ text='mine'\n",
        "public.places: 1 added\n",
        "the time of the commits:\n  shop::it does_not\n",
    ]);
    waited.never_says("declares").never_says("public.users");
    let last = waited.stderr.lines().last().expect("a line");
    assert!(last.contains("`shared.own_keys = true`"), "{waited:#?}");
    assert!(
        waited.stderr.starts_with("kapsel-testdb: warning: "),
        "{waited:#?}"
    );
}

#[test]
fn rows_with_a_key_of_their_test_are_its_own_beside_any_other_test() {
    for settings in [&["track_commit_timestamp=on"][..], &[]] {
        let server = Server::start_with(settings);
        let project = project_with_notes(&server);
        let nextest = FakeNextest::start(&project, "r");
        own_keys_test(&project, &nextest, "declares", ADDS);
        // Another test uses the shared clone all the time.
        let name = std::fs::read_to_string(nextest.dir.join("shared")).expect("its name");
        let name = name.lines().next().expect("a line");
        let line = format!(
            "{{\"event\":\"open\",\"use\":\"x\",\"database\":\"{name}\",\"mode\":\"shared\",\"test\":\"other\",\"at\":1.5}}\n"
        );
        let mut file = std::fs::OpenOptions::new();
        let file = file.append(true).open(nextest.dir.join("shared.uses"));
        std::io::Write::write_all(&mut file.expect("the file"), line.as_bytes()).expect("a line");
        nextest.end();
        let waited = project.run("wait");
        // Only the row without a key may be of the other test.
        waited
            .code(0)
            .says(&["public.users: 1 added\n", "  other\n"]);
        waited.never_says("public.notes").never_says("declares");
    }
}

#[test]
fn a_suite_can_declare_that_all_of_its_tests_have_keys_of_their_own() {
    let server = Server::start();
    let project = project_with_notes(&server);
    project.config("[shared]\nown_keys = true\npollution = \"fail\"\n");
    let nextest = FakeNextest::start(&project, "r");
    shared_test(&project, &nextest, "adds", "INSERT INTO users VALUES (1)");
    nextest.end();
    project.run("wait").code(0).never_says("shared clone");
    let waited = run_with(&project, "s", "shared-sql", "DELETE FROM places");
    waited.code(9).says(&["public.places: 3 removed"]);
}
