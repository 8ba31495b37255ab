//! Scripts: what psql makes of them, in one transaction, with errors that are found by their line.

use std::path::Path;

use kapsel_testdb_core::pg::script::{self, ScriptError, ScriptPosition};
use sqlx::{Connection, PgConnection};

use crate::support::{ClientPrograms, Outcome, PATIENCE, Project, Server, Session, poll_until};

/// Runs a script in a database as superuser.
fn run(server: &Server, database: &str, text: &str) -> Result<(), ScriptError> {
    let mut session = server.session(database);
    let ran = session.with(async |connection| script::run_text(connection, "x.sql", text).await);
    session.close();
    ran
}

/// Runs a script that fails; its message.
#[track_caller]
fn fails(session: &mut Session, text: &str) -> String {
    let ran = session.with(async |connection| script::run_text(connection, "x.sql", text).await);
    ran.expect_err("the script is wrong").to_string()
}

fn runs(session: &mut Session, text: &str) {
    let ran = session.with(async |connection| script::run_text(connection, "x.sql", text).await);
    ran.unwrap_or_else(|error| panic!("{error}"));
}

const NASTY: &str = include_str!("nasty.sql");

#[test]
fn psql_makes_the_same_of_a_nasty_script() {
    let server = Server::start();
    let programs = ClientPrograms::of(&server);
    for (name, text) in [
        ("unix", NASTY.to_owned()),
        ("dos", NASTY.replace('\n', "\r\n")),
    ] {
        let (ours, theirs) = (format!("ours_{name}"), format!("theirs_{name}"));
        server.create(&[&ours, &theirs]);
        let file = server.folder().join(format!("{name}.sql"));
        std::fs::write(&file, &text).expect("a file");
        programs.psql(&theirs, &file);
        run(&server, &ours, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let dump = programs.dump(&ours, &[]);
        assert!(dump.contains("it's; here"), "{dump}");
        assert_eq!(dump, programs.dump(&theirs, &[]), "{name}");
    }
}

/// Where psql, which reads line by line, sees something else than the server.
#[test]
fn a_string_goes_on_in_the_next_line_as_it_began() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(
        &mut session,
        "CREATE TABLE t AS SELECT E'a' -- ;\n '\\';b' AS s; INSERT INTO t VALUES ('c');",
    );
    assert_eq!(session.column("SELECT s FROM t"), ["a';b", "c"]);
}

#[test]
fn a_string_whose_end_the_session_decides_is_refused() {
    let server = Server::start();
    let mut session = server.session("postgres");
    session.execute("SET standard_conforming_strings = off");
    let error = fails(&mut session, "SELECT 1;\nSELECT 'it\\'s; here';");
    assert!(
        error.starts_with("`x.sql` failed at line 2: `standard_conforming_strings` is off"),
        "{error}"
    );
    let on = "SET standard_conforming_strings = on;\nCREATE TABLE t AS SELECT 'a\\' AS s;";
    runs(&mut session, on);
    assert_eq!(session.column("SELECT s FROM t"), ["a\\"]);
}

/// What the demo's suite is made of, with rows that are hard to carry.
const ROWS: &str = r"
INSERT INTO tenants (slug, name, plan) SELECT 't' || n, E'tab\t, line\n, \\. and \\N ' || n, 'team' FROM generate_series(1, 200) n;
INSERT INTO endpoints (tenant_id, url) SELECT id, 'https://hooks.example.com/' || slug FROM tenants;
UPDATE tenants t SET default_endpoint_id = e.id FROM endpoints e WHERE e.tenant_id = t.id;
SELECT publish_event(id, 'invoice.paid', jsonb_build_object('text', E'\\.\n;''$$', 'n', id), 'key') FROM tenants;
SELECT issue_api_key(id, 'first') FROM tenants;
";

#[test]
fn a_dump_of_the_demo_comes_back_as_it_was() {
    let server = Server::start();
    let available = "SELECT name::text FROM pg_available_extensions WHERE name = 'pgcrypto'";
    if server.column_in("postgres", available).is_empty() {
        return;
    }
    let programs = ClientPrograms::of(&server);
    server.create(&["demo"]);
    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"))
            .expect("the demo's migrations")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.to_string_lossy().ends_with(".down.sql"))
            .collect();
    files.sort();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a migration");
        run(&server, "demo", &text).unwrap_or_else(|error| panic!("{error}"));
    }
    run(&server, "demo", ROWS).unwrap_or_else(|error| panic!("{error}"));
    for (copy, form) in [
        ("copied", &[][..]),
        ("inserted", &["--inserts"]),
        ("many", &["--rows-per-insert=50"]),
    ] {
        let dump = programs.dump("demo", form);
        server.create(&[copy]);
        run(&server, copy, &dump).unwrap_or_else(|error| panic!("{copy}: {error}"));
        assert_eq!(programs.dump(copy, form), dump, "{copy}");
    }
}

#[test]
fn constraints_are_checked_when_the_script_says_they_are() {
    let server = Server::start();
    let mut session = server.session("postgres");
    let schema = "CREATE TABLE a (id int PRIMARY KEY);\n\
        CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\n";
    runs(&mut session, schema);
    runs(
        &mut session,
        "INSERT INTO b VALUES (1);\nCOPY a FROM stdin;\n1\n\\.\n",
    );
    let error = fails(
        &mut session,
        "SELECT 1;\nINSERT INTO b VALUES (7);\nSELECT 2;",
    );
    assert!(
        error.starts_with("`x.sql` failed at the commit after its last statement: "),
        "{error}"
    );
    assert!(
        error.contains("(SQLSTATE 23503); detail: Key (a)=(7) is not present"),
        "{error}"
    );
    assert_eq!(session.column("SELECT a::text FROM b"), ["1"]);
    let set_local = "SET LOCAL work_mem = '7MB';\nCOPY a FROM stdin;\n\\.\n\
        CREATE TABLE seen AS SELECT current_setting('work_mem') AS at_the_end;";
    runs(&mut session, set_local);
    assert_eq!(session.column("SELECT at_the_end FROM seen"), ["7MB"]);
    assert_ne!(session.column("SHOW work_mem"), ["7MB"]);
}

#[test]
fn nothing_stays_of_a_script_that_fails_and_the_session_goes_on() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(&mut session, "CREATE TABLE t (a int)");
    let beginning = "INSERT INTO t VALUES (1);\nCOPY t FROM stdin;\n2\n\\.\n";
    let ends = [
        "SELECT 1 / 0;",
        "SELEC;",
        "\\q",
        "COPY t FROM stdin;\n3\n",
        "COPY t FROM stdin;\nx\n\\.\n",
        "COPY t TO stdout;",
    ];
    for end in ends {
        let error = fails(&mut session, &format!("{beginning}{end}"));
        assert!(
            session.column("SELECT a::text FROM t").is_empty(),
            "{error}"
        );
    }
    let binary = "COPY t FROM stdin (FORMAT binary);\nx\n\\.\n";
    assert!(fails(&mut session, binary).contains("text or CSV, not binary"));
    let nowhere = fails(&mut session, "COPY nowhere FROM stdin;\n1\n\\.\n");
    assert!(
        nowhere.contains("in statement 1, which begins at line 1: relation"),
        "{nowhere}"
    );
    runs(&mut session, beginning);
    assert_eq!(
        session.column("SELECT a::text FROM t ORDER BY a"),
        ["1", "2"]
    );
}

#[test]
fn what_a_script_commits_itself_stays() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(&mut session, "CREATE TABLE t (a int)");
    let script = "BEGIN;\nINSERT INTO t VALUES (1);\nCOMMIT;\nINSERT INTO t VALUES (2);\nROLLBACK;\n\
        INSERT INTO t VALUES (3);\nSAVEPOINT s;\nINSERT INTO t VALUES (4);\nROLLBACK TO s;\nCOMMIT AND CHAIN;\n\
        INSERT INTO t VALUES (5);\nINSERT INTO t VALUES ('x');\n";
    let error = fails(&mut session, script);
    assert!(
        error.contains("at line 12, column 23 in statement 12"),
        "{error}"
    );
    assert_eq!(
        session.column("SELECT a::text FROM t ORDER BY a"),
        ["1", "3"]
    );
    // A BEGIN that nothing ends.
    runs(
        &mut session,
        "BEGIN ISOLATION LEVEL SERIALIZABLE;\nINSERT INTO t VALUES (6);",
    );
    assert_eq!(session.column("SELECT max(a)::text FROM t"), ["6"]);
    let idle =
        "SELECT count(*)::text FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(session.column(idle), ["0"]);
}

#[test]
fn in_a_transaction_of_the_callers_a_script_is_part_of_it() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(&mut session, "CREATE TABLE t (a int)");
    let seen = session.with(async |connection: &mut PgConnection| {
        let mut transaction = connection.begin().await.expect("a transaction");
        let text = "INSERT INTO t VALUES (1);\nCOPY t FROM stdin;\n2\n\\.\n";
        let ran = script::run_text(&mut transaction, "x.sql", text).await;
        ran.unwrap_or_else(|error| panic!("{error}"));
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM t")
            .fetch_one(&mut *transaction)
            .await
            .expect("a number");
        transaction.rollback().await.expect("a rollback");
        seen
    });
    assert_eq!(seen, 2);
    assert!(session.column("SELECT a::text FROM t").is_empty());
}

#[test]
fn what_refuses_transactions_runs_alone() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(&mut session, "-- only this\nVACUUM;\n-- and nothing else\n");
    runs(&mut session, "CREATE DATABASE more");
    let error = fails(&mut session, "SELECT 1;\n\nVACUUM;\n");
    assert!(
        error.contains("in statement 2, which begins at line 3: VACUUM cannot"),
        "{error}"
    );
}

#[test]
fn the_place_of_an_error_is_the_files() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(&mut session, "CREATE TABLE t (a int PRIMARY KEY)");
    let lines: Vec<String> = (0..10_000)
        .map(|n| format!("INSERT INTO t VALUES ({n}); -- ü\n"))
        .collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line.to_owned();
        lines.concat()
    };
    let cases = [
        (
            with(7_776, "INSERT INTO t VALUES (0);\n"),
            "in statement 7777, which begins at line 7777: duplicate key",
        ),
        (
            with(7_776, "INSERT INTO\n t VALUES ('ü', 'ö', x);\n"),
            "at line 7778, column 22 in statement 7777: column \"x\"",
        ),
        (
            with(9_999, "INSERT INTOO t;\n"),
            "at line 10000, column 8 in statement 10000: syntax error",
        ),
        (
            with(0, "/* ü\n */ INSERT\n INTO t VALUES (1, 2);"),
            "at line 3, column 20 in statement 1: INSERT has more",
        ),
        (
            with(5_000, "COPY t FROM stdin;\n-1\n-2\n-3\nx\n\\.\n"),
            "at line 5005 in statement 5001: invalid input syntax for type integer: \"x\"",
        ),
        (
            with(5_000, "COPY t FROM stdin;\n-1\n-2\n-3\nx\n\\.\n"),
            "; context: COPY t, line 4, column a: \"x\"",
        ),
        (
            with(9_999, "SELECT 'open"),
            "at line 10000, column 8 in statement 10000: unterminated quoted string",
        ),
    ];
    for (script, expected) in cases {
        let error = fails(&mut session, &script);
        assert!(error.contains(expected), "{error}, not {expected}");
    }
    let mut session = server.session("postgres");
    let ran = session.with(async |connection| {
        script::run_text(connection, "x.sql", "SELECT 1;\n SELECT x").await
    });
    let error = ran.expect_err("there is no x");
    assert_eq!(
        error.position,
        ScriptPosition::Within {
            number: 2,
            line: 2,
            column: Some(9)
        }
    );
    assert_eq!(error.code.as_deref(), Some("42703"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let server = Server::start();
    let mut session = server.session("postgres");
    let path = server.folder().join("gone.sql");
    let ran =
        session.with(async |connection| script::run_file(connection, &path, "gone.sql").await);
    let error = ran.expect_err("there is no file").to_string();
    assert!(
        error.starts_with("`gone.sql` failed: failed to read the file: No such file"),
        "{error}"
    );
}

#[test]
fn a_trigger_that_has_much_to_say_holds_up_no_data() {
    let server = Server::start();
    let mut session = server.session("postgres");
    runs(
        &mut session,
        "CREATE TABLE t (a text);\n\
         CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', repeat('x', 1000); RETURN NULL; END $$;\n\
         CREATE TRIGGER say BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION say();",
    );
    // More in each direction than a socket holds.
    let rows = format!("{}\n", "x".repeat(1000)).repeat(3_000);
    runs(
        &mut session,
        &format!("SET client_min_messages = log;\nCOPY t FROM stdin;\n{rows}\\.\n"),
    );
    assert_eq!(session.column("SHOW client_min_messages"), ["log"]);
}

#[test]
fn a_dump_may_be_a_seed_and_another_seed_may_follow_it() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/dump.sql\", \"seeds/more.sql\"]\n");
    let dump = "\\restrict abc\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n\
        COPY public.users (id) FROM stdin;\n1\n2\n\\.\n\n\\unrestrict abc\n";
    project.write("seeds/dump.sql", dump);
    project.write("seeds/more.sql", "INSERT INTO users VALUES (3);");
    let template = project.prepared();
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    assert_eq!(
        server.column_in("look", "SELECT id::text FROM users ORDER BY id"),
        ["1", "2", "3"]
    );
    project.write("seeds/dump.sql", &dump.replace("2\n", "2\nzwei\n"));
    project.run("prepare").code(5).says(&[
        "`seeds/dump.sql` failed: invalid input syntax for type integer: \"zwei\" (SQLSTATE 22P02)\n --> seeds/dump.sql:7:1\n",
        "context: COPY users, line 3, column id: \"zwei\"",
    ]);
}

/// As in a clone: the session of a seed ends with it.
#[test]
fn what_a_seed_leaves_in_its_session_ends_with_it() {
    let server = Server::start();
    server.execute("CREATE ROLE other SUPERUSER");
    let mut project = Project::on(&server);
    project.set("DATABASE_URL", &server.url_of("postgres"));
    project.config("[template]\nseeds = [\"seeds/a.sql\", \"seeds/b.sql\"]\n");
    project.write(
        "seeds/a.sql",
        "CREATE TEMP TABLE scratch (id int); CREATE TEMP SEQUENCE numbers; PREPARE p AS SELECT 1; LISTEN news;\n\
         SET SESSION AUTHORIZATION other; SET ROLE postgres; SET work_mem = '7MB'; SET app.tenant = 'x';",
    );
    project.write(
        "seeds/b.sql",
        "CREATE TABLE found AS SELECT concat_ws('|', session_user, current_user, to_regclass('scratch'), to_regclass('numbers'),\n\
           current_setting('work_mem'), current_setting('app.tenant', true), (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),\n\
           (SELECT count(*) FROM pg_listening_channels())) AS state;",
    );
    let template = project.prepared();
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    assert_eq!(
        server.column_in("look", "SELECT state FROM found"),
        ["postgres|postgres|4MB||0|0"]
    );
}

#[test]
fn a_seed_that_changes_during_the_build_is_noticed() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/a.sql\", \"seeds/b.sql\"]\n");
    project.write(
        "seeds/a.sql",
        "DO $$ BEGIN FOR n IN 1..6000 LOOP\n\
         EXIT WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'go_on');\n\
         PERFORM pg_sleep(0.01); END LOOP; END $$;",
    );
    project.write("seeds/b.sql", "INSERT INTO users VALUES (1);");
    let child = project.tool("prepare").spawn();
    let mut session = server.session("postgres");
    let runs = "SELECT pid::text FROM pg_stat_activity WHERE query LIKE 'DO $$ BEGIN FOR n%' AND state = 'active'";
    poll_until("the first seed runs", PATIENCE, || {
        match session.column(runs).len() {
            0 => Err("it does not".to_owned()),
            _ => Ok(()),
        }
    });
    project.write("seeds/b.sql", "INSERT INTO users VALUES (2);");
    session.execute("CREATE ROLE go_on");
    session.close();
    let outcome = Outcome::of(child);
    outcome
        .code(5)
        .says(&["seeds/b.sql` changed while the template was being built; run the command again"]);
    assert!(server.databases_of("building").is_empty());
    project.run("prepare").code(0);
}
