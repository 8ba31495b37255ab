//! Migrations and seeds that fail: file, line, statement and the server's message; no trace on the server.

use crate::support::{Outcome, Project, Server};

/// A project whose third migration is this; `prepare` fails with exit code 5 and leaves the server as it was.
#[track_caller]
fn fails(server: &Server, sql: &str, says: &[&str]) -> Outcome {
    let project = Project::on(server);
    project.migration("0003_tags", sql);
    let before = server.databases();
    let outcome = project.run("prepare");
    outcome.code(5).says(&["`0003_tags.sql` failed"]).says(says);
    assert_eq!(outcome.stdout, "");
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
    outcome
}

#[test]
fn an_unknown_table_is_found_by_line_column_and_statement() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\n\nINSERT INTO\n  nowhere VALUES (1);\n";
    fails(
        &server,
        sql,
        &[
            "at line 4, column 3 in statement 2",
            "relation \"nowhere\" does not exist",
            "42P01",
        ],
    );
}

#[test]
fn a_syntax_error_is_found_by_line_and_column() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\nCREATE TABEL more (id int);\n";
    let outcome = fails(
        &server,
        sql,
        &[
            "at line 2, column 8",
            "syntax error at or near \"TABEL\"",
            "42601",
        ],
    );
    // The server parses the whole text first, so none has run; the one that is wrong is the second.
    assert!(!outcome.stderr.contains("statement 1"), "{outcome:#?}");
}

#[test]
fn an_error_without_position_is_found_by_its_statement() {
    let server = Server::start();
    let sql = "CREATE TABLE tags (id int);\nINSERT INTO tags VALUES (0);\n\
               INSERT INTO tags SELECT 1 / id FROM tags;\nSELECT 1;\n";
    fails(
        &server,
        sql,
        &["in statement 3", "division by zero", "22012"],
    );
}

#[test]
fn the_detail_of_the_server_is_there() {
    let server = Server::start();
    let sql = "INSERT INTO users VALUES (1);\nINSERT INTO users VALUES (1);\n";
    fails(
        &server,
        sql,
        &[
            "in statement 2",
            "users_pkey",
            "detail: Key (id)=(1) already exists.",
        ],
    );
}

#[test]
fn a_migration_without_transaction_fails_like_any_other() {
    let server = Server::start();
    let sql = "-- no-transaction\nCREATE INDEX CONCURRENTLY tags_id ON tags (id);\n";
    fails(&server, sql, &["relation \"tags\" does not exist"]);
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
    outcome.code(5).says(&[
        "`seeds/users.sql` failed at line 3, column 9 in statement 2",
        "invalid input syntax",
    ]);
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
fn under_nextest_nothing_is_exported() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_tags", "CREATE TABLE tags (id no_such_type);");
    project.write("nextest-env", "");
    let before = server.databases();
    let tool = project.tool("prepare").env("NEXTEST_RUN_ID", "failing");
    let file = project.root().join("nextest-env");
    tool.env("NEXTEST_ENV", &file).run().code(5);
    assert_eq!(std::fs::read_to_string(file).expect("the file"), "");
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
}
