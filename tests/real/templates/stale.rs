//! What makes a template stale besides its files: it no longer holds what a build would give now.

use serde_json::Value;

use crate::support::{Project, Server};

#[track_caller]
fn is_current(project: &Project) {
    let outcome = project.run("prepare");
    outcome.code(0).says(&[" current,"]);
    outcome.never_says("building");
}

fn column(server: &Server, template: &str, sql: &str) -> Vec<String> {
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
    let found = server.column_in("look", sql);
    server.execute("DROP DATABASE look");
    found
}

fn comment(server: &Server, template: &str) -> Value {
    let sql = format!(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{template}'"
    );
    let comment = server.column_in("postgres", &sql).remove(0);
    serde_json::from_str(&comment).expect("JSON")
}

fn set_comment(server: &Server, template: &str, text: &str) {
    let text = text.replace('\'', "''");
    server.execute(&format!("COMMENT ON DATABASE {template} IS '{text}'"));
}

#[test]
fn a_crash_of_the_server_empties_unlogged_tables_so_they_are_filled_again() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    // Without it, the server loses what it has not written yet.
    server.execute("CHECKPOINT");
    server.crash();
    // Nothing of it is unlogged.
    is_current(&project);
    let cache = "CREATE UNLOGGED TABLE cache (id int GENERATED ALWAYS AS IDENTITY); \
        INSERT INTO cache SELECT FROM generate_series(1, 3);";
    project.migration("0003_cache", cache);
    project.config("[template]\nseeds = [\"seeds/cache.sql\"]\n");
    project.write(
        "seeds/cache.sql",
        "INSERT INTO cache SELECT FROM generate_series(1, 4);",
    );
    project.prepared();
    server.execute("CHECKPOINT");
    is_current(&project);
    server.crash();
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "2 files on top of 2 unchanged migrations\n",
        "because the server has recovered from a crash, which empties unlogged tables",
    ]);
    let rows = "SELECT count(*)::text FROM cache";
    assert_eq!(column(&server, &project.prepared(), rows), ["7"]);
    is_current(&project);
    // Nor is a template that is stale the beginning of another one.
    server.execute("CHECKPOINT");
    server.crash();
    project.config("");
    project.migration("0004_more", "CREATE TABLE more (id int);");
    assert_eq!(column(&server, &project.prepared(), rows), ["3"]);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_template_without_a_readable_comment_is_built_again() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''7s''', current_database()); END $$;";
    project.migration("0003_patience", sql);
    let template = project.prepared();
    for text in ["mine", "{}"] {
        set_comment(&server, &template, text);
        let outcome = project.run("prepare");
        outcome.code(0).says(&[
            "building the template: 3 files\n",
            "because its comment cannot be read",
        ]);
        is_current(&project);
        let settings = &comment(&server, &template)["settings"];
        assert!(settings.to_string().contains("lock_timeout"), "{settings}");
    }
    set_comment(&server, &template, "mine");
    let doctor = project.run("doctor");
    doctor.never_says(&format!("{template} is current"));
    // It is no beginning of another one either.
    project.migration("0004_more", "CREATE TABLE more (id int);");
    let outcome = project.run("prepare");
    outcome.code(0).says(&["building the template: 4 files\n"]);
}

#[test]
fn an_extension_with_a_newer_version_is_installed_again() {
    let server = Server::start();
    let project = Project::on(&server);
    if !has_trigrams(&server) {
        return;
    }
    project.prepared();
    project.migration("0003_trigrams", "CREATE EXTENSION pg_trgm;");
    let template = project.prepared();
    is_current(&project);
    // As if the server had got a newer version of it since.
    let mut info = comment(&server, &template);
    let version = info["contents"]["extensions"]["pg_trgm"].take();
    assert!(version.is_string(), "{info}");
    info["contents"]["extensions"]["pg_trgm"] = "0.9".into();
    set_comment(&server, &template, &info.to_string());
    let because = format!(
        "because the server has version {} of the extension `pg_trgm`, not 0.9 any more",
        version.as_str().unwrap_or_default()
    );
    project.run("prepare").code(0).says(&[
        "building the template: 1 file on top of 2 unchanged migrations\n",
        &because,
    ]);
    is_current(&project);
}

fn has_trigrams(server: &Server) -> bool {
    let available = "SELECT name::text FROM pg_available_extensions WHERE name = 'pg_trgm'";
    !server.column_in("postgres", available).is_empty()
}

#[test]
fn another_base_of_the_same_name_is_another_base() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nbase = \"base\"\n");
    server.execute("CREATE DATABASE base TEMPLATE template0 OWNER app");
    project.prepared();
    is_current(&project);
    server.execute("DROP DATABASE base");
    server.execute("CREATE DATABASE base TEMPLATE template0 OWNER app");
    server.execute_in("base", "CREATE TABLE of_the_base (id int)");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "building the template: 2 files\n",
        "because base identity changed",
    ]);
    is_current(&project);
    if !has_trigrams(&server) {
        return;
    }
    server.execute_in("base", "CREATE EXTENSION pg_trgm VERSION '1.3'");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["because extensions of the base changed from `` to `pg_trgm 1.3`"]);
    server.execute_in("base", "ALTER EXTENSION pg_trgm UPDATE TO '1.4'");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["from `pg_trgm 1.3` to `pg_trgm 1.4`"]);
    is_current(&project);
    // A database that accepts no connections cannot be changed.
    server.execute("ALTER DATABASE base IS_TEMPLATE true ALLOW_CONNECTIONS false");
    project.prepared();
    is_current(&project);
}

#[test]
fn settings_of_the_role_belong_to_the_template() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0001_users", "CREATE SCHEMA app;");
    project.prepared();
    server.execute("ALTER ROLE app SET search_path = app, public");
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "building the template: 2 files\n",
        "because role settings changed from `` to `search_path=app, public`",
    ]);
    let schema = "SELECT schemaname::text FROM pg_tables WHERE tablename = 'posts'";
    assert_eq!(column(&server, &project.prepared(), schema), ["app"]);
    is_current(&project);
    server.execute("ALTER ROLE ALL SET work_mem = '7MB'");
    project.run("prepare").code(0).says(&["work_mem=7MB"]);
    // Those of another role do not.
    server.execute("ALTER ROLE postgres SET work_mem = '8MB'");
    is_current(&project);
}

#[test]
fn the_version_of_icu_belongs_to_the_template() {
    let server = Server::start();
    let known = "SELECT collname::text FROM pg_collation WHERE collname = 'de-AT-x-icu' AND current_setting('server_version_num')::int >= 150000";
    if server.column_in("postgres", known).is_empty() {
        return;
    }
    server.execute(
        "CREATE DATABASE base TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' OWNER app",
    );
    let project = Project::on(&server);
    let version =
        "SELECT pg_collation_actual_version(oid) FROM pg_collation WHERE collname = 'de-AT-x-icu'";
    let version = server.column_in("postgres", version).remove(0);
    let locale = |base: &str| {
        project.config(&format!("[template]\nbase = \"{base}\"\n"));
        let info = comment(&server, &project.prepared());
        let inputs = info["inputs"].as_array().expect("inputs").clone();
        let locale = inputs.iter().find(|input| input["label"] == "locale");
        locale.expect("the locale")["value"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(locale("base").contains(&version));
    assert!(!locale("template0").contains(&version));
}
