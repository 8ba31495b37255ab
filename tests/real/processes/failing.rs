//! Migrations and seeds that fail: file, line, statement and the server's message; no trace on the server.

use crate::support::{Outcome, Project, Server};

/// A project whose third migration is this; `prepare` fails with exit code 5 and leaves the server as it was.
#[track_caller]
fn fails(server: &Server, sql: &str, says: &[&str]) -> Outcome {
    let project = Project::on(server);
    project.migration("0003_tags", sql);
    let before = server.databases();
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["`migrations/0003_tags.sql` failed"])
        .says(says);
    assert_eq!(outcome.stdout, "");
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
    outcome
}

/// The error, without what comes before it.
fn error(outcome: &Outcome) -> &str {
    let start = outcome.stderr.find("error: ");
    &outcome.stderr[start.unwrap_or_else(|| panic!("no error: {outcome:#?}"))..]
}

#[test]
fn an_unknown_table_is_found_by_line_column_and_statement() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\n\nINSERT INTO\n  nowhere VALUES (1);\n";
    let outcome = fails(&server, sql, &[]);
    insta::assert_snapshot!(error(&outcome), @r#"
    error: `migrations/0003_tags.sql` failed: relation "nowhere" does not exist (SQLSTATE 42P01)
     --> migrations/0003_tags.sql:4:3
      |
    2 |
    3 | INSERT INTO
    4 |   nowhere VALUES (1);
      |   ^^^^^^^
    "#);
}

#[test]
fn a_syntax_error_is_found_by_line_and_column() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\nCREATE TABEL more (id int);\n";
    let says = [
        " --> migrations/0003_tags.sql:2:8\n",
        "syntax error at or near \"TABEL\" (SQLSTATE 42601)\n",
    ];
    fails(&server, sql, &says);
}

#[test]
fn an_error_without_position_is_found_by_its_statement() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\nINSERT INTO tags VALUES (0);\n\
               -- The third\n  INSERT INTO tags\n  SELECT 1 / id FROM tags;\nSELECT 1;\n";
    let outcome = fails(&server, sql, &[]);
    insta::assert_snapshot!(error(&outcome), @r"
    error: `migrations/0003_tags.sql` failed: division by zero (SQLSTATE 22012)
     --> migrations/0003_tags.sql:4:3
      |
    2 | INSERT INTO tags VALUES (0);
    3 | -- The third
    4 |   INSERT INTO tags
      |   ^^^^^^^^^^^^^^^^
    5 |   SELECT 1 / id FROM tags;
    6 | SELECT 1;
    ");
}

#[test]
fn the_detail_of_the_server_is_there() {
    let server = Server::start();
    let sql = "INSERT INTO users VALUES (1);\nINSERT INTO users VALUES (1);\n";
    let outcome = fails(&server, sql, &[]);
    insta::assert_snapshot!(error(&outcome), @r#"
    error: `migrations/0003_tags.sql` failed: duplicate key value violates unique constraint "users_pkey" (SQLSTATE 23505)
     --> migrations/0003_tags.sql:2:1
      |
    1 | INSERT INTO users VALUES (1);
    2 | INSERT INTO users VALUES (1);
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = detail: Key (id)=(1) already exists.
    "#);
}

#[test]
fn what_is_checked_at_the_commit_has_the_last_line() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int PRIMARY KEY, parent int REFERENCES tags DEFERRABLE INITIALLY DEFERRED);\n\
               INSERT INTO tags VALUES (1, 2);\nINSERT INTO tags VALUES (3, 3);\n\n";
    let outcome = fails(&server, sql, &[]);
    insta::assert_snapshot!(error(&outcome), @r#"
    error: `migrations/0003_tags.sql` failed at the commit after its last statement: insert or update on table "tags" violates foreign key constraint "tags_parent_fkey" (SQLSTATE 23503)
     --> migrations/0003_tags.sql:3:1
      |
    1 | CREATE TABLE tags (id int PRIMARY KEY, parent int REFERENCES tags DEFE…
    2 | INSERT INTO tags VALUES (1, 2);
    3 | INSERT INTO tags VALUES (3, 3);
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = detail: Key (parent)=(2) is not present in table "tags".
    "#);
}

#[test]
fn a_migration_without_transaction_has_a_line_too() {
    let server = Server::start();
    let sql = "-- no-transaction\nCREATE INDEX CONCURRENTLY tags_id ON tags (id);\n";
    let says = [
        "relation \"tags\" does not exist",
        " --> migrations/0003_tags.sql:2:1\n",
    ];
    fails(&server, sql, &says);
    let sql = "-- no-transaction\nSELECT 1;\nSELECT 1 / 0;\nSELECT 2;\n";
    let outcome = fails(&server, sql, &[]);
    insta::assert_snapshot!(error(&outcome), @r"
    error: `migrations/0003_tags.sql` failed: division by zero (SQLSTATE 22012)
     --> migrations/0003_tags.sql:2:1
      |
    1 | -- no-transaction
    2 | SELECT 1;
      | ^^^^^^^^^
    3 | SELECT 1 / 0;
    4 | SELECT 2;
      = note: the server reports no place; the error is in one of 3 statements
    ");
}

#[test]
fn a_migration_that_ends_its_transaction_itself_is_not_repeated() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\nCOMMIT;\nSELECT 1 / 0;\n";
    let says = [
        "division by zero",
        " --> migrations/0003_tags.sql:1:1\n",
        "one of 3 statements",
    ];
    fails(&server, sql, &says);
}

#[test]
fn the_persistent_database_shows_the_same_place() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[persistent]\ndatabase = \"app_dev\"\n");
    project.run("prepare").code(0);
    // A database of the user's has rows that a template has not.
    server.execute_in("app_dev", "INSERT INTO users VALUES (0)");
    project.migration(
        "0003_tags",
        "CREATE TABLE tags (id int);\nINSERT INTO tags SELECT 1 / id FROM users;\n",
    );
    project.run("prepare").code(5).says(&[
        "`migrations/0003_tags.sql` failed: division by zero (SQLSTATE 22012)\n",
        " --> migrations/0003_tags.sql:2:1\n",
    ]);
}

#[test]
fn verbose_output_has_the_time_of_each_file() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/users.sql\"]\n");
    project.write("seeds/users.sql", "INSERT INTO users VALUES (1);\n");
    let outcome = project.run("-v prepare");
    let ran = outcome.code(0).stderr.lines().filter_map(|line| {
        let (file, time) = line.strip_prefix("  ran ")?.split_once(" in ")?;
        time.strip_suffix(" ms")?.parse::<u64>().ok()?;
        Some(file)
    });
    let files = [
        "migrations/0001_users.sql",
        "migrations/0002_posts.sql",
        "seeds/users.sql",
    ];
    assert_eq!(ran.collect::<Vec<_>>(), files, "{outcome:#?}");
}

#[test]
fn an_extension_that_is_not_there_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nextensions = [\"no_such_thing\"]\n");
    let before = server.databases();
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["`template.extensions` failed", "no_such_thing"]);
    assert_eq!(server.databases(), before);
}

#[test]
fn the_next_prepare_after_the_fix_succeeds() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_tags", "CREATE TABLE tags (id no_such_type);");
    project.run("prepare").code(5).says(&["no_such_type"]);
    project.run("prepare").code(5).says(&["no_such_type"]);
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let template = project.prepared();
    assert_eq!(server.databases_of("template"), [template]);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_failing_seed_leaves_the_template_of_the_migrations_at_most() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/users.sql\"]\n");
    project.write(
        "seeds/users.sql",
        "INSERT INTO users VALUES (1);\nINSERT INTO users\nVALUES ('x');\n",
    );
    let outcome = project.run("prepare");
    insta::assert_snapshot!(error(outcome.code(5)), @r#"
    error: `seeds/users.sql` failed: invalid input syntax for type integer: "x" (SQLSTATE 22P02)
     --> seeds/users.sql:3:9
      |
    1 | INSERT INTO users VALUES (1);
    2 | INSERT INTO users
    3 | VALUES ('x');
      |         ^^^
    "#);
    assert!(server.databases_of("template").len() <= 1);
    assert!(server.databases_of("building").is_empty());
    assert!(project.run_dirs().is_empty());
    project.write("seeds/users.sql", "INSERT INTO users VALUES (1);");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["1 file on top of 2 unchanged migrations"]);
}

#[test]
fn a_seed_that_is_not_there_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/gone.sql\"]\n");
    let before = server.databases();
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["seeds/gone.sql`", "`template.seeds`"]);
    assert_eq!(server.databases(), before);
}

#[test]
fn under_nextest_only_the_error_is_exported() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_tags", "CREATE TABLE tags (id no_such_type);");
    project.write("nextest-env", "");
    let before = server.databases();
    let tool = project.tool("prepare").env("NEXTEST_RUN_ID", "failing");
    let file = project.root().join("nextest-env");
    let outcome = tool.env("NEXTEST_ENV", &file).run();
    let says = ["no_such_type", "the others run"];
    outcome.code(0).says(&says);
    let exported = std::fs::read_to_string(file).expect("the file");
    let error = exported.strip_prefix("KAPSEL_TESTDB_UNPREPARED=");
    let error: String = serde_json::from_str(error.expect("only the error")).expect("a text");
    assert!(error.contains("no_such_type"), "{error}");
    assert!(error.contains('\n'), "{error}");
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
}
