//! What `CREATE DATABASE … TEMPLATE` does not copy: database-level settings and grants reach every clone all the same.

use crate::processes::child;
use crate::support::{
    BINARY, ClientPrograms, FakeNextest, Outcome, PATIENCE, Project, SUPERUSER, Server, binaries,
    poll_until,
};

const SETTINGS: &str = "DO $$ DECLARE d text := current_database(); BEGIN \
    EXECUTE format('ALTER DATABASE %I SET work_mem = ''7MB''', d); \
    EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', d); \
    EXECUTE format('ALTER DATABASE %I SET application_name = ''it''''s \\ here''', d); \
    EXECUTE format('ALTER ROLE app IN DATABASE %I SET statement_timeout = ''77s''', d); \
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', d); \
    EXECUTE format('GRANT CREATE ON DATABASE %I TO \"some Role\" WITH GRANT OPTION', d); END $$;";

const SEEN: &str = "SELECT concat_ws('|', current_setting('work_mem'), current_setting('search_path'), \
    (SELECT string_agg(c, ';' ORDER BY c) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) c \
     WHERE d.datname = current_database()), \
    has_database_privilege('public', current_database(), 'TEMP')::text, \
    has_database_privilege('some Role', current_database(), 'CREATE WITH GRANT OPTION')::text)";

const EXPECTED: &str = "7MB|public, pg_catalog|application_name=it's \\ here;search_path=public, pg_catalog;statement_timeout=77s;\
    work_mem=7MB|false|true";

#[test]
fn settings_and_grants_of_the_template_are_those_of_each_clone() {
    let server = Server::start();
    server.execute("CREATE ROLE \"some Role\"");
    let project = Project::on(&server);
    project.migration("0003_settings", SETTINGS);
    for round in ["built at once", "built on top of a template that has them"] {
        let nextest = FakeNextest::start(&project, round);
        for kind in ["clone", "shared"] {
            if kind == "shared" {
                // The first test that needs one makes it.
                child::run(&project, &nextest.exported, "shared").code(0);
            }
            let name = poll_until("the clone is there", PATIENCE, || {
                let names = server.databases_of(kind);
                names.first().cloned().ok_or("there is none".to_owned())
            });
            let seen = poll_until("the settings are there", PATIENCE, || {
                let seen = server.column_in(&name, SEEN).remove(0);
                match seen == EXPECTED {
                    true => Ok(seen),
                    false => Err(seen),
                }
            });
            assert_eq!(seen, EXPECTED, "{name}, {round}");
        }
        nextest.end();
        project.migration("0004_more", "CREATE TABLE more (id int);");
    }
}

#[test]
fn an_empty_search_path_is_one() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = ''''', current_database()); END $$;";
    project.migration("0003_settings", sql);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "touch").code(0);
    nextest.end();
}

/// Runs a shell script as the command of a run; `$T` is the program, `$0` the server's URL.
fn run_script(project: &Project, server: &Server, script: &str) -> Outcome {
    let psql = binaries().dir;
    let path = std::env::var("PATH").unwrap_or_default();
    let tool = project.tool("run --no-keeper --").env("T", BINARY);
    let tool = tool.env("PATH", format!("{}:{path}", psql.display()));
    tool.args(["sh", "-c", script, &server.url()]).run()
}

/// A role that is not a superuser may set them only in a session that has loaded the extension.
#[test]
fn settings_of_an_extension_reach_the_clones_of_an_ordinary_role() {
    let server = Server::start();
    let available = "SELECT name::text FROM pg_available_extensions WHERE name = 'pg_trgm'";
    if server.column_in("postgres", available).is_empty() {
        return;
    }
    let project = Project::on(&server);
    project.migration("0003_trigrams", "CREATE EXTENSION pg_trgm;");
    let sql = "DO $$ BEGIN PERFORM show_limit(); EXECUTE format('ALTER DATABASE %I SET pg_trgm.similarity_threshold = 0.7', current_database()); \
        EXECUTE format('ALTER DATABASE %I SET work_mem = ''7MB''', current_database()); END $$;";
    project.migration("0004_threshold", sql);
    for round in ["built at once", "built on top of a template that has them"] {
        let nextest = FakeNextest::start(&project, round);
        child::run(&project, &nextest.exported, "shared").code(0);
        for kind in ["clone", "shared"] {
            let seen = poll_until("the settings are there", PATIENCE, || {
                let names = server.databases_of(kind);
                let name = names.first().ok_or("there is none")?;
                let sql = format!(
                    "SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = '{name}'"
                );
                let seen = server.column_in("postgres", &sql);
                seen.first().cloned().ok_or("there are none".to_owned())
            });
            assert_eq!(
                seen, "{pg_trgm.similarity_threshold=0.7,work_mem=7MB}",
                "{kind}, {round}"
            );
        }
        nextest.end();
        project.migration("0005_more", "CREATE TABLE more (id int);");
    }
}

#[test]
fn a_clone_that_cannot_get_its_settings_does_not_stay() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let template = project.prepared();
    let sql = format!(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{template}'"
    );
    let comment = server.column_in("postgres", &sql).remove(0);
    let mut info: serde_json::Value = serde_json::from_str(&comment).expect("JSON");
    info["settings"] = vec!["ALTER DATABASE {} SET no_such_setting = 1"].into();
    server.execute(&format!("COMMENT ON DATABASE {template} IS '{info}'"));
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "off");
    let script = r#"! "$T" acquire || exit 3
        psql "$0" -Atc "SELECT count(*) FROM pg_database WHERE datname LIKE 'app\_clone%'""#;
    let outcome = run_script(&project, &server, script);
    outcome.code(0).says(&["no_such_setting"]);
    assert_eq!(outcome.stdout, "0\n");
}

#[test]
fn a_migration_may_give_the_database_to_another_role() {
    let server = Server::start();
    server.execute("CREATE ROLE boss CREATEDB; GRANT boss TO app");
    let project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO boss', current_database()); \
        EXECUTE format('GRANT CREATE ON DATABASE %I TO boss', current_database()); END $$;";
    project.migration("0003_owner", sql);
    project.run("prepare").code(0).says(&[
        "a migration gave the database to the role `boss`",
        "belong to `app`",
    ]);
    project.run("prepare").code(0).says(&[" current,"]);
    project.migration("0004_more", "CREATE TABLE more (id int);");
    project.run("prepare").code(0).says(&["on top of 3"]);
    run_script(&project, &server, r#""$T" acquire"#).code(0);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_connection_limit_reaches_the_clones() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 17', current_database()); END $$;";
    project.migration("0003_limit", sql);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "touch").code(0);
    let limits =
        "SELECT DISTINCT datconnlimit::text FROM pg_database WHERE datname LIKE 'app\\_clone%'";
    assert_eq!(server.column_in("postgres", limits), ["17"]);
    nextest.end();
}

/// Creates objects of all kinds.
pub const EVERY_KIND: &str = include_str!("every_kind.sql");

/// What pg_dump of PostgreSQL 15 knows, but for what no clone has: a subscription, which belongs to the publisher as well, and a security label, which needs
/// a provider that the server was started with.
const KINDS: &str = "ACCESS METHOD|ACL|AGGREGATE|BLOB|BLOBS|CAST|CHECK CONSTRAINT|COLLATION|COMMENT|CONSTRAINT|CONVERSION|DATABASE|DATABASE PROPERTIES|\
    DEFAULT|DEFAULT ACL|DOMAIN|EVENT TRIGGER|EXTENSION|FK CONSTRAINT|FOREIGN DATA WRAPPER|FOREIGN TABLE|FUNCTION|INDEX|INDEX ATTACH|MATERIALIZED VIEW|\
    MATERIALIZED VIEW DATA|OPERATOR|OPERATOR CLASS|OPERATOR FAMILY|POLICY|PROCEDURAL LANGUAGE|PROCEDURE|PUBLICATION|PUBLICATION TABLE|\
    PUBLICATION TABLES IN SCHEMA|ROW SECURITY|RULE|SCHEMA|SEQUENCE|SEQUENCE SET|SERVER|SHELL TYPE|STATISTICS|TABLE|TABLE ATTACH|TABLE DATA|\
    TEXT SEARCH CONFIGURATION|TEXT SEARCH DICTIONARY|TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE|TRANSFORM|TRIGGER|TYPE|USER MAPPING|VIEW";

/// The kinds of the objects in a dump.
fn kinds(dump: &str) -> String {
    let kinds = dump.lines().filter_map(|line| {
        let kind = line.split_once("; Type: ")?.1;
        Some(kind.split(';').next().unwrap_or_default())
    });
    let kinds: std::collections::BTreeSet<&str> = kinds.collect();
    kinds.into_iter().collect::<Vec<_>>().join("|")
}

#[test]
fn a_clone_has_everything_that_a_database_can_have() {
    let server = Server::start();
    let version = "SELECT 'old' WHERE current_setting('server_version_num')::int < 150000";
    let extension = "SELECT name::text FROM pg_available_extensions WHERE name = 'pgcrypto'";
    if !server.column_in("postgres", version).is_empty()
        || server.column_in("postgres", extension).is_empty()
    {
        return;
    }
    server.execute("CREATE ROLE reader");
    let mut project = Project::new("app");
    project.set("DATABASE_URL", &server.url_of(SUPERUSER));
    project.migration("0001_kinds", EVERY_KIND);
    let more = "ALTER TABLE kinds.in_heap2 ADD b int; CREATE TABLE more (id int);";
    project.migration("0002_more", more);
    server.execute("CREATE DATABASE afresh TEMPLATE template0");
    let mut session = server.session("afresh");
    session.with(async |connection| {
        let directory = project.root().join("migrations");
        let migrator = sqlx::migrate::Migrator::new(directory).await;
        let migrator = migrator.expect("migrations");
        let ran = migrator.run_direct(None, connection, false).await;
        ran.unwrap_or_else(|error| panic!("{error}"));
    });
    session.close();
    let arguments = ["--create", "--exclude-table-data=*._sqlx_migrations"];
    let programs = ClientPrograms::of(&server);
    let afresh = programs.dump("afresh", &arguments);
    assert_eq!(kinds(&afresh), KINDS);
    for round in ["at once", "on top"] {
        if round == "on top" {
            let unseal = "SELECT format('ALTER DATABASE %I IS_TEMPLATE false', datname) FROM pg_database WHERE datname LIKE 'app\\_template%'";
            let unseal = server.column_in("postgres", unseal).remove(0);
            server.execute(&unseal);
            std::fs::remove_file(project.root().join("migrations/0002_more.sql")).expect("a file");
            project.prepared();
            project.migration("0002_more", more);
        }
        let nextest = FakeNextest::start(&project, round);
        for kind in ["clone", "shared"] {
            if kind == "shared" {
                child::command(&project, &nextest.exported, "shared-sql")
                    .env(child::SQL, "SELECT 1")
                    .run()
                    .code(0);
            }
            let dump = poll_until("the clone is complete", PATIENCE, || {
                let names = server.databases_of(kind);
                let name = names.first().ok_or("there is none")?;
                let limit =
                    format!("SELECT datconnlimit::text FROM pg_database WHERE datname = '{name}'");
                match server
                    .column_in("postgres", &limit)
                    .first()
                    .map(String::as_str)
                {
                    Some("17") => Ok(programs.dump(name, &arguments).replace(name, "afresh")),
                    other => Err(format!("{other:?}")),
                }
            });
            for (line, (expected, found)) in afresh.lines().zip(dump.lines()).enumerate() {
                assert_eq!(found, expected, "line {line} of the {kind}, built {round}");
            }
            assert_eq!(dump.lines().count(), afresh.lines().count());
        }
        nextest.end();
    }
}
