//! Where migrations come from, and what a new or edited one costs.

use crate::support::{FakeNextest, Project, Server};

#[test]
fn a_missing_or_empty_directory_is_named() {
    let server = Server::start();
    let mut project = Project::new("app");
    project.set("DATABASE_URL", &server.url());
    let before = server.databases();
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "found no migrations directory at",
        "/app/migrations`",
        "`template.migrations`",
    ]);
    project.write("migrations/README.md", "not a migration");
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "/app/migrations` contains no migrations",
        "<version>_<description>.sql",
    ]);
    project.write("db/0001_a.sql", "CREATE TABLE a (id int);");
    project.config("[template]\nmigrations = \"dv\"\n");
    project.run("prepare").code(5).says(&["/app/dv`"]);
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
    project.config("[template]\nmigrations = \"db\"\n");
    project.run("prepare").code(0);
}

#[test]
fn an_empty_key_means_no_migrations() {
    let server = Server::start();
    let mut project = Project::new("app");
    project.set("DATABASE_URL", &server.url());
    project.config("[template]\nmigrations = \"\"\n");
    let template = project.prepared();
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert!(server.column_in("look", sql).is_empty());
}

#[test]
fn two_migrations_of_one_version_are_refused() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0002_comments", "CREATE TABLE comments (id int);");
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["version 2", "`posts`", "`comments`"]);
    assert!(server.databases_of("template").is_empty());
}

#[test]
fn a_second_prepare_builds_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    let first = project.run("prepare");
    first
        .code(0)
        .says(&["building the template: 2 files", "built"]);
    let second = project.run("prepare");
    second.code(0).says(&[" current,"]);
    assert!(!second.stderr.contains("building"), "{second:#?}");
    assert_eq!(server.databases_of("template").len(), 1);
    assert!(server.databases_of("building").is_empty());
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_new_migration_runs_on_top_of_the_old_template() {
    let server = Server::start();
    let project = Project::on(&server);
    let old = project.prepared();
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "building the template: 1 file on top of 2 unchanged migrations",
        "because migration 3 tags is new",
    ]);
    assert!(server.databases().contains(&old), "other branches need it");
}

#[test]
fn an_edited_migration_is_named_and_the_others_are_reused() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let old = project.prepared();
    project.migration("0003_tags", "CREATE TABLE tags (id bigint);");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "1 file on top of 2 unchanged migrations",
        "because migration 3 tags was edited",
    ]);
    assert!(!outcome.stderr.contains("migration 2"), "{outcome:#?}");
    let templates = server.databases_of("template");
    assert!(templates.contains(&old), "{templates:?}");
    assert_eq!(templates.len(), 3, "{templates:?}");
    // Back to the old text: its template is still there.
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    assert_eq!(project.prepared(), old);
    assert_eq!(server.databases_of("template").len(), 3);
}

#[test]
fn an_edited_first_migration_reuses_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    let old = project.prepared();
    project.migration("0001_users", "CREATE TABLE users (id bigint PRIMARY KEY);");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "building the template: 2 files\n",
        "because migration 1 users was edited",
    ]);
    assert_eq!(server.databases_of("template").len(), 2);
    assert!(server.databases().contains(&old));
}

#[test]
fn a_changed_seed_runs_on_top_of_all_migrations() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seeds/users.sql\"]\n");
    project.write("seeds/users.sql", "INSERT INTO users VALUES (1);");
    let template = project.prepared();
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    assert_eq!(
        server.column_in("look", "SELECT id::text FROM users"),
        ["1"]
    );
    project.write("seeds/users.sql", "INSERT INTO users VALUES (2);");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "1 file on top of 2 unchanged migrations",
        "because seed seeds/users.sql was edited",
    ]);
}

#[test]
fn down_migrations_are_not_run() {
    let server = Server::start();
    let project = Project::on(&server);
    project.write("migrations/0003_tags.up.sql", "CREATE TABLE tags (id int);");
    project.write("migrations/0003_tags.down.sql", "DROP TABLE tags;");
    let template = project.prepared();
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    let sql = "SELECT to_regclass('public.tags')::text";
    assert_eq!(server.column_in("look", sql), ["tags"]);
    // Editing what is not run changes nothing.
    project.write(
        "migrations/0003_tags.down.sql",
        "DROP TABLE IF EXISTS tags;",
    );
    project.run("prepare").code(0).says(&[" current,"]);
}

#[test]
fn sqlx_toml_says_where_they_are_and_where_they_are_noted() {
    let server = Server::start();
    let project = Project::on(&server);
    let plain = project.prepared();
    project.write("db/0001_a.sql", "CREATE TABLE app.a (id int);");
    let sqlx_toml = |ignored: &str| {
        let text = format!(
            "[migrate]\nmigrations-dir = 'db'\ntable-name = 'notes.applied'\ncreate-schemas = ['notes', 'app']\nignored-chars = [{ignored}]\n"
        );
        project.write("sqlx.toml", &text);
    };
    sqlx_toml("");
    let config = project.run("config");
    config.code(0);
    let line = config.stdout.lines().find(|l| l.contains("template.migr"));
    let line = line.unwrap_or_default();
    assert!(
        line.contains("\"db\"") && line.ends_with(" sqlx.toml"),
        "{line}"
    );
    project.config("[persistent]\ndatabase = \"app_dev\"\n");
    let template = project.prepared();
    assert_ne!(template, plain);
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    for database in ["look", "app_dev"] {
        let noted = "SELECT version::text FROM notes.applied WHERE success";
        assert_eq!(server.column_in(database, noted), ["1"]);
        let elsewhere =
            "SELECT tablename::text FROM pg_tables WHERE tablename = '_sqlx_migrations'";
        assert!(server.column_in(database, elsewhere).is_empty());
    }
    project.run("prepare").code(0).says(&["current"]);
    project.config("");
    // What it says of checksums counts too: spaces do, until they are ignored.
    project.write("db/0001_a.sql", "CREATE  TABLE app.a (id int);");
    assert_ne!(project.prepared(), template);
    sqlx_toml("' '");
    let ignoring = project.prepared();
    project.write("db/0001_a.sql", "CREATE   TABLE   app.a (id int);");
    assert_eq!(project.prepared(), ignoring);
    // Our own configuration has the last word.
    project.config("[template]\nmigrations = \"migrations\"\n");
    project.migration("0001_users", "CREATE TABLE app.users (id int);");
    project.migration("0002_posts", "CREATE TABLE app.posts (id int);");
    assert_ne!(project.prepared(), ignoring);
}

/// A lock file of an application with sqlx, with or without its feature `sqlx-toml`.
fn lock_file(project: &Project, with_feature: bool) {
    let toml = if with_feature { "\"toml\"" } else { "\"url\"" };
    let package = |name: &str, dependency: &str| {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"0.9.0\"\ndependencies = [\n {dependency},\n]\n\n"
        )
    };
    let packages = package("app", "\"sqlx\"") + &package("sqlx-core", toml);
    project.write("Cargo.lock", &format!("version = 4\n\n{packages}"));
}

#[test]
fn sqlx_toml_counts_only_if_sqlx_reads_it() {
    let server = Server::start();
    let project = Project::on(&server);
    let warning = "warning: ignored `sqlx.toml`, because the project's sqlx does";
    lock_file(&project, false);
    project.run("prepare").code(0).never_says(warning);
    let plain = project.prepared();
    project.write("db/0001_a.sql", "CREATE TABLE a (id int);");
    project.write("sqlx.toml", "[migrate]\nmigrations-dir = 'db'\n");
    project.run("prepare").code(0).says(&[warning, &*plain]);
    let run = FakeNextest::start(&project, "off");
    let says = "folder migrations";
    let found = crate::processes::schemas::tables(&project, &run.exported, ".", says);
    assert_eq!(found.0, "posts users");
    let inferred = crate::processes::schemas::tables(&project, &run.exported, ".", "inferred");
    assert_eq!(inferred.0, "posts users");
    run.end();
    lock_file(&project, true);
    let outcome = project.run("prepare");
    outcome.code(0).never_says(warning);
    assert_ne!(project.prepared(), plain);
}

#[test]
fn a_broken_sqlx_toml_is_named_with_the_line() {
    let server = Server::start();
    let project = Project::on(&server);
    project.write("sqlx.toml", "[migrate]\ntable-name = 7\n");
    let outcome = project.run("prepare");
    outcome.code(3).says(&["/app/sqlx.toml`", "line 2"]);
    // Of another package than the workspace's.
    project.write("sqlx.toml", "");
    project.write("db/sqlx.toml", "migrate = 7\n");
    project.write("db/migrations/0001_a.sql", "CREATE TABLE a (id int);");
    project.config("[template]\nmigrations = \"db/migrations\"\n");
    let outcome = project.run("prepare");
    outcome.code(3).says(&["/app/db/sqlx.toml`", "line 1"]);
    assert!(server.databases_of("template").is_empty());
}

#[test]
fn an_extension_that_only_template1_has_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_tags", "CREATE TABLE tags (name citext);");
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["type \"citext\" does not exist"])
        .never_says("template1");
    server.execute_in("template1", "CREATE EXTENSION citext");
    for configuration in ["", "[persistent]\ndatabase = \"app_dev\"\n"] {
        project.config(configuration);
        let outcome = project.run("prepare");
        outcome.code(5).says(&[
            "note: `template1` of this server has `citext`, but templates are made from `template0`",
            "`template.extensions = [\"citext\"]`",
            "`template.base = \"template1\"`",
        ]);
    }
    project.config("[template]\nbase = \"template1\"\n");
    project.run("prepare").code(0);
    project.config("[template]\nextensions = [\"citext\"]\n");
    project.run("prepare").code(0);
}

#[test]
fn the_line_that_hides_the_table_of_sqlx_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    let dump = "SET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n\
                CREATE TABLE public.users (id int);\n";
    project.migration("0001_users", dump);
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "relation \"_sqlx_migrations\" does not exist",
        "migrations/0001_users.sql:2",
        "note: line 2 leaves the search path of the session empty",
        "remove the line",
    ]);
    let fine = dump.replace("', '', false", "', 'public', false");
    project.migration("0001_users", &fine);
    project.run("prepare").code(0);
}

#[test]
fn a_migration_that_changes_another_database_by_its_name_is_reported() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "CREATE TABLE tags (id int);\nALTER DATABASE shop SET timezone = 'UTC';\n";
    project.migration("0003_tags", sql);
    let remedy = "EXECUTE format('ALTER DATABASE %I SET …', current_database())";
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["database \"shop\" does not exist", remedy]);
    server.execute("CREATE DATABASE shop OWNER app");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "warning: migrations/0003_tags.sql:2 has changed the database `shop` of this server",
        remedy,
    ]);
    let fixed = sql.replace(
        "ALTER DATABASE shop SET timezone = 'UTC';",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''UTC''', current_database()); END $$;",
    );
    project.migration("0003_tags", &fixed);
    project.run("prepare").code(0).never_says("has changed");
}
