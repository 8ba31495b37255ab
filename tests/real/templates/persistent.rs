//! The persistent database: kept current by `prepare` by hand, and never harmed.

use crate::support::{Project, Server};

fn project(server: &Server) -> Project {
    let project = Project::on(server);
    project.config("[persistent]\ndatabase = \"app_dev\"\n");
    project
}

#[test]
fn it_is_created_and_then_kept_current() {
    let server = Server::start();
    let project = project(&server);
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["database `app_dev`: 2 migrations applied"]);
    server.execute_in("app_dev", "INSERT INTO users VALUES (7)");
    project
        .run("prepare")
        .code(0)
        .says(&["database `app_dev` is current"]);
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["database `app_dev`: 1 migration applied"]);
    assert_eq!(
        server.column_in("app_dev", "SELECT id::text FROM users"),
        ["7"]
    );
    project.run("sweep").code(0);
    assert!(server.databases().contains(&"app_dev".to_owned()));
}

#[test]
fn it_has_what_templates_begin_with() {
    let server = Server::start();
    server.execute("CREATE DATABASE base IS_TEMPLATE true");
    server.execute_in("base", "CREATE TABLE of_base (id int)");
    let project = project(&server);
    project.config(
        "[persistent]\ndatabase = \"app_dev\"\n[template]\nbase = \"base\"\nextensions = [\"citext\"]\n",
    );
    project.migration("0003_names", "CREATE TABLE names (name citext);");
    project.run("prepare").code(0);
    let there = "SELECT coalesce(to_regclass('of_base')::text, 'none')";
    assert_eq!(server.column_in("app_dev", there), ["of_base"]);
    // One that an older configuration made has no extensions yet.
    server.execute_in("app_dev", "DROP EXTENSION citext CASCADE");
    project.run("prepare").code(0);
    let extension = "SELECT extname::text FROM pg_extension WHERE extname = 'citext'";
    assert_eq!(server.column_in("app_dev", extension), ["citext"]);
}

#[test]
fn an_edited_migration_leaves_it_untouched() {
    let server = Server::start();
    let project = project(&server);
    project.run("prepare").code(0);
    server.execute_in("app_dev", "INSERT INTO users VALUES (7)");
    project.migration("0001_users", "CREATE TABLE users (id bigint PRIMARY KEY);");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "`migrations/0001_users.sql`",
        "was edited",
        "`app_dev`",
        "undo the edit, or run `kapsel-testdb prepare --reset`",
    ]);
    let users = "SELECT id::text FROM users";
    assert_eq!(server.column_in("app_dev", users), ["7"]);
    let tags = "SELECT coalesce(to_regclass('public.tags')::text, 'none')";
    assert_eq!(server.column_in("app_dev", tags), ["none"]);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_migration_that_is_gone_leaves_it_untouched() {
    let server = Server::start();
    let project = project(&server);
    project.run("prepare").code(0);
    std::fs::remove_file(project.root().join("migrations/0002_posts.sql")).expect("a file");
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "`2`",
        "it was applied to the database `app_dev`",
        "restore the file, or run `kapsel-testdb prepare --reset`",
    ]);
    let posts = "SELECT coalesce(to_regclass('public.posts')::text, 'none')";
    assert_eq!(server.column_in("app_dev", posts), ["posts"]);
}

#[test]
fn its_url_is_what_prepare_prints() {
    let server = Server::start();
    let project = project(&server);
    let outcome = project.run("prepare --format json");
    outcome.code(0);
    let url = outcome.json()["DATABASE_URL"].clone();
    assert!(
        url.as_str().is_some_and(|u| u.ends_with("/app_dev")),
        "{url}"
    );
}

#[test]
fn under_nextest_it_is_left_alone() {
    let server = Server::start();
    let project = project(&server);
    crate::support::DeadRun::leave(&project, "persistent");
    assert!(!server.databases().contains(&"app_dev".to_owned()));
}

#[test]
fn after_a_change_of_branches_it_is_reset() {
    let server = Server::start();
    let project = project(&server);
    project.run("prepare").code(0);
    server.execute_in("app_dev", "INSERT INTO users VALUES (7)");
    std::fs::remove_file(project.root().join("migrations/0002_posts.sql")).expect("a file");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    project.run("prepare").code(5).says(&["--reset"]);
    let others = server.databases();
    let outcome = project.run("prepare --reset");
    outcome
        .code(0)
        .says(&["database `app_dev` was reset: 2 migrations applied"]);
    assert_eq!(
        server.column_in("app_dev", "SELECT count(*)::text FROM users"),
        ["0"]
    );
    let tables = "SELECT coalesce(to_regclass('posts')::text, to_regclass('tags')::text)";
    assert_eq!(server.column_in("app_dev", tables), ["tags"]);
    let now = server.databases();
    assert!(others.iter().all(|name| now.contains(name)), "{now:?}");
    project
        .run("prepare")
        .code(0)
        .says(&["`app_dev` is current"]);
    // A missing one is created.
    server.execute("DROP DATABASE app_dev");
    project.run("prepare --reset").code(0);
}

#[test]
fn a_database_that_prepare_has_not_created_is_never_reset() {
    let server = Server::start();
    let project = project(&server);
    for (create, reason) in [
        (
            "CREATE DATABASE app_dev OWNER app",
            "has not created it for this project",
        ),
        (
            "CREATE DATABASE app_dev",
            "it belongs to the role `postgres`",
        ),
        (
            "CREATE DATABASE app_dev OWNER app; COMMENT ON DATABASE app_dev IS 'kapsel-testdb: persistent database of `shop`'",
            "has not created it for this project",
        ),
    ] {
        for statement in create.split("; ") {
            server.execute(statement);
        }
        server.execute_in("app_dev", "CREATE TABLE mine ()");
        let outcome = project.run("prepare --reset");
        outcome
            .code(5)
            .says(&["the database `app_dev` was not reset", reason]);
        let mine = "SELECT to_regclass('mine')::text";
        assert_eq!(server.column_in("app_dev", mine), ["mine"]);
        server.wait_for_sessions("app_dev", 0);
        server.execute("DROP DATABASE app_dev");
    }
    server.execute("CREATE DATABASE app_dev OWNER app");
    project.run("prepare").code(0);
    project.migration("0001_users", "CREATE TABLE users (id bigint PRIMARY KEY);");
    let outcome = project.run("prepare");
    outcome
        .code(5)
        .says(&["undo the edit, or drop the database"])
        .never_says("--reset");
}

#[test]
fn it_is_not_reset_while_it_is_used_or_without_being_configured() {
    let server = Server::start();
    let project = project(&server);
    project.run("prepare").code(0);
    let session = server.session("app_dev");
    let outcome = project.run("prepare --reset");
    outcome
        .code(5)
        .says(&["was not reset: other sessions use it; close them"]);
    session.close();
    server.wait_for_sessions("app_dev", 0);
    let nextest = project.tool("prepare --reset");
    let outcome = nextest.env("NEXTEST_ENV", "/nowhere/env").run();
    outcome.code(2).says(&["only outside nextest"]);
    project.config("");
    let outcome = project.run("prepare --reset");
    outcome.code(2).says(&["`persistent.database` is not set"]);
    assert!(server.databases().contains(&"app_dev".to_owned()));
}
