//! What a template is made of besides sqlx's migrations: hooks, roles, other migrators' files, dumps, and commands.

use kapsel_testdb_core::platform::{Signal, signal};
use kapsel_testdb_core::server::binaries::client_program;

use crate::processes::{child, schemas};
use crate::support::{ClientPrograms, FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

/// A project without migrations.
fn project(server: &Server, config: &str) -> Project {
    let mut project = Project::new("app");
    project.set("DATABASE_URL", &server.url());
    project.config(config);
    project
}

/// Copies the current template to `look`.
fn look(server: &Server, project: &Project) {
    let template = project.prepared();
    server.execute("DROP DATABASE IF EXISTS look");
    server.execute(&format!("CREATE DATABASE look TEMPLATE {template}"));
}

fn tables(server: &Server, database: &str) -> String {
    let sql = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class \
               WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    server.column_in(database, sql).remove(0)
}

/// `psql` as a command of a configuration.
fn psql() -> String {
    let directory = crate::support::binaries().dir;
    let program = client_program("psql", Some(&directory));
    program.to_string_lossy().into_owned()
}

#[test]
fn hooks_run_around_the_migrations_and_belong_to_the_fingerprint() {
    let server = Server::start();
    let project = Project::on(&server);
    let plain = project.prepared();
    project.config(
        "[template]\nbefore = ['sql/helpers.sql', { command = 'echo \"CREATE TABLE by_command (id int)\" | $PSQL -X -v ON_ERROR_STOP=1', version = 1 }]\n\
         after = ['sql/grants.sql']\nseeds = ['sql/seed.sql']\n"
            .replace("$PSQL", &psql())
            .as_str(),
    );
    project.write(
        "sql/helpers.sql",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1;",
    );
    project.write(
        "sql/grants.sql",
        "CREATE TABLE last AS SELECT count(*) FROM pg_class WHERE relname IN ('users', 'tags');",
    );
    project.write("sql/seed.sql", "INSERT INTO users SELECT one() FROM last;");
    project.migration(
        "0003_tags",
        "CREATE TABLE tags AS SELECT one() AS one, c.* FROM by_command c;",
    );
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "building the template: 7 files\n",
        "because before sql/helpers.sql is new",
    ]);
    look(&server, &project);
    assert_eq!(
        tables(&server, "look"),
        "_sqlx_migrations by_command last posts tags users"
    );
    assert_eq!(
        server.column_in("look", "SELECT count::text FROM last"),
        ["2"]
    );
    assert_eq!(
        server.column_in("look", "SELECT id::text FROM users"),
        ["1"]
    );
    assert_ne!(project.prepared(), plain);
    // What runs after the migrations is built on them; what runs before them, from the start.
    project.write("sql/grants.sql", "CREATE TABLE last AS SELECT 7 AS count;");
    project.run("prepare").code(0).says(&[
        "building the template: 2 files on top of 3 unchanged migrations",
        "because after sql/grants.sql was edited",
    ]);
    project.write(
        "sql/helpers.sql",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 2;",
    );
    project.run("prepare").code(0).says(&[
        "building the template: 7 files\n",
        "because before sql/helpers.sql was edited",
    ]);
    // A new migration runs below them.
    project.migration("0004_more", "CREATE TABLE more AS SELECT one() AS id;");
    project
        .run("prepare")
        .code(0)
        .says(&["3 files on top of 3 unchanged migrations"]);
    // Each failure names its file.
    project.write("sql/grants.sql", "SELECT 1;\nSELECT nowhere;");
    project
        .run("prepare")
        .code(5)
        .says(&["`sql/grants.sql` failed: ", "--> sql/grants.sql:2:8\n"]);
    std::fs::remove_file(project.root().join("sql/helpers.sql")).expect("a file");
    project
        .run("prepare")
        .code(5)
        .says(&["/sql/helpers.sql`", "`template.before`"]);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn tests_with_migrations_of_their_own_have_the_hooks_too() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.config("[template]\nbefore = ['before.sql']\n");
    project.write(
        "before.sql",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1;",
    );
    let run = FakeNextest::start(&project, "hooks");
    project.write(
        "inner/migrations/0001_a.sql",
        "CREATE TABLE users AS SELECT one() AS id;",
    );
    project.set(child::SQL, "INSERT INTO users VALUES (one())");
    // The package's own migrations.
    let tool = schemas::command(&project, &run.exported, "inner", "inferred");
    let outcome = tool.run();
    assert!(
        outcome.code(0).stdout.contains("tables: users in"),
        "{outcome:#?}"
    );
    // The run's.
    child::run(&project, &run.exported, "own-sql").code(0);
    run.end();
}

#[test]
fn declared_roles_are_created_once_and_stay() {
    let server = Server::start();
    let project = project(&server, "[template]\nroles = ['api', 'Odd \"name']\n");
    project.migration(
        "0001_users",
        "CREATE TABLE users (id int); GRANT SELECT ON users TO api;",
    );
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "`api`",
        "`template.roles`",
        "as a superuser, run `CREATE ROLE \"api\"`",
    ]);
    server.execute("ALTER ROLE app CREATEROLE");
    project.prepared();
    let roles =
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('api', 'Odd \"name') ORDER BY 1";
    assert_eq!(server.column_in("postgres", roles), ["Odd \"name", "api"]);
    server.execute("ALTER ROLE api LOGIN");
    project.migration(
        "0002_posts",
        "CREATE TABLE posts (id int); GRANT SELECT ON posts TO api;",
    );
    project.prepared();
    let login = "SELECT rolcanlogin::text FROM pg_roles WHERE rolname = 'api'";
    assert_eq!(
        server.column_in("postgres", login),
        ["true"],
        "roles that exist are left as they are"
    );
}

#[test]
fn a_role_that_a_migration_creates_twice_is_explained() {
    let server = Server::start();
    server.execute("ALTER ROLE app CREATEROLE");
    let project = project(&server, "");
    project.migration("0001_role", "CREATE ROLE api;");
    project.prepared();
    project.migration("0001_role", "CREATE ROLE api; SELECT 1;");
    let explained = [
        "42710",
        "roles belong to the whole server",
        "`template.roles`",
    ];
    project
        .run("prepare")
        .code(5)
        .says(&explained)
        .says(&["`migrations/0001_role.sql`"]);
    project.config("[template]\nmigrations = ''\nseeds = ['role.sql']\n");
    project.write("role.sql", "SELECT 1;\nCREATE ROLE api;");
    project
        .run("prepare")
        .code(5)
        .says(&explained)
        .says(&["--> role.sql:2:1\n"]);
    // Other objects exist for other reasons.
    project.write(
        "role.sql",
        "CREATE TYPE t AS (a int); CREATE TYPE t AS (a int);",
    );
    project.run("prepare").code(5).never_says("template.roles");
}

#[test]
fn a_list_has_directories_of_several_packages() {
    let server = Server::start();
    let project = project(
        &server,
        "[template]\nmigrations = ['vendor/jobs/migrations', 'migrations']\n",
    );
    project.write(
        "vendor/jobs/migrations/0001_jobs.sql",
        "CREATE TABLE jobs (id int PRIMARY KEY);",
    );
    project.migration(
        "0001_users",
        "CREATE TABLE users (job int REFERENCES jobs);",
    );
    // Both are recorded in one table.
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "/vendor/jobs/migrations`",
        "/app/migrations`",
        "the version 1",
        "`table-name`",
    ]);
    project.write("vendor/jobs/Cargo.toml", "");
    project.write(
        "vendor/jobs/sqlx.toml",
        "[migrate]\ntable-name = '_jobs_migrations'\n",
    );
    look(&server, &project);
    assert_eq!(
        tables(&server, "look"),
        "_jobs_migrations _sqlx_migrations jobs users"
    );
    project.migration("0002_posts", "CREATE TABLE posts (id int);");
    project
        .run("prepare")
        .code(0)
        .says(&["1 file on top of 2 unchanged migrations"]);
    project.config("[template]\nmigrations = ['vendor/jobs/migrations', 'migrations']\n[persistent]\ndatabase = 'app_dev'\n");
    project
        .run("prepare")
        .code(0)
        .says(&["database `app_dev`: 3 migrations applied"]);
    project
        .run("prepare")
        .code(0)
        .says(&["database `app_dev` is current"]);
    assert_eq!(
        tables(&server, "app_dev"),
        "_jobs_migrations _sqlx_migrations jobs posts users"
    );
    // Under one table name, other versions are enough.
    project.config("[template]\nmigrations = ['vendor/jobs/migrations', 'migrations']\n");
    std::fs::remove_file(project.root().join("vendor/jobs/sqlx.toml")).expect("a file");
    std::fs::rename(
        project.root().join("vendor/jobs/migrations/0001_jobs.sql"),
        project.root().join("vendor/jobs/migrations/0000_jobs.sql"),
    )
    .expect("renamed");
    look(&server, &project);
    assert_eq!(
        server.column_in(
            "look",
            "SELECT version::text FROM _sqlx_migrations ORDER BY 1"
        ),
        ["0", "1", "2"]
    );
}

/// A tool, its files, and what a query reads of its table.
type Tool = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

/// The directories of four tools with the same schema.
const TOOLS: [Tool; 4] = [
    (
        "refinery",
        &[
            ("V1__initial.sql", "CREATE TABLE a (id int);"),
            (
                "V2__b.sql",
                "CREATE TABLE b (id int);\nINSERT INTO a VALUES (1);",
            ),
        ],
        "SELECT version || ' ' || name || ' ' || checksum FROM refinery_schema_history WHERE version = 1",
        "1 initial 3690123573521278881",
    ),
    (
        "diesel",
        &[
            ("2024-01-01-000000_a/up.sql", "CREATE TABLE a (id int);"),
            ("2024-01-01-000000_a/down.sql", "DROP TABLE a;"),
            (
                "2024-01-02-000000_b/up.sql",
                "CREATE TABLE b (id int);\nINSERT INTO a VALUES (1);",
            ),
        ],
        "SELECT string_agg(version, ' ' ORDER BY version) FROM __diesel_schema_migrations",
        "20240101000000 20240102000000",
    ),
    (
        "goose",
        &[
            (
                "00001_a.sql",
                "-- +goose Up\nCREATE TABLE a (id int);\n-- +goose Down\nDROP TABLE a;\n",
            ),
            (
                "00002_b.sql",
                "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE TABLE b (id int);\nCREATE INDEX CONCURRENTLY ON b (id);\nINSERT INTO a VALUES (1);\n\
                 -- +goose StatementBegin\nDO $$ BEGIN PERFORM 1; END $$;\n-- +goose StatementEnd\n-- +goose Down\nDROP TABLE b;\n",
            ),
        ],
        "SELECT string_agg(version_id::text, ' ' ORDER BY id) FROM goose_db_version WHERE is_applied",
        "0 1 2",
    ),
    (
        "dbmate",
        &[
            (
                "20240101_a.sql",
                "-- migrate:up\nCREATE TABLE a (id int);\n\n-- migrate:down\nDROP TABLE a;\n",
            ),
            (
                "20240102_b.sql",
                "-- migrate:up transaction:false\nCREATE TABLE b (id int);\nCREATE INDEX CONCURRENTLY ON b (id);\nINSERT INTO a VALUES (1);\n\n\
                 -- migrate:down\nDROP TABLE b;\n",
            ),
        ],
        "SELECT string_agg(version, ' ' ORDER BY version) FROM schema_migrations",
        "20240101 20240102",
    ),
];

#[test]
fn files_of_other_migrators_are_run_and_recorded() {
    let server = Server::start();
    for (tool, files, recorded, versions) in TOOLS {
        let project = project(
            &server,
            &format!("namespace = '{tool}'\n[persistent]\ndatabase = '{tool}_dev'\n"),
        );
        for (name, text) in files {
            project.write(&format!("migrations/{name}"), text);
        }
        let outcome = project.run("prepare");
        outcome.code(0).says(&["building the template: 2 files"]);
        outcome.says(&[&format!("database `{tool}_dev`: 2 migrations applied")]);
        look(&server, &project);
        for database in ["look", &format!("{tool}_dev")] {
            assert_eq!(
                server.column_in(database, "SELECT id::text FROM a"),
                ["1"],
                "{tool}"
            );
            assert_eq!(
                server.column_in(database, "SELECT count(*)::text FROM b"),
                ["0"],
                "{tool}"
            );
            assert_eq!(server.column_in(database, recorded), [versions], "{tool}");
        }
        let outcome = project.run("prepare");
        outcome
            .code(0)
            .says(&[" current,", &format!("`{tool}_dev` is current")]);
        // An edit of the last one is built on the first one, if there is a template with just that.
        let (last, text) = files.last().expect("files");
        project.write(
            &format!("migrations/{last}"),
            &text.replace("INSERT INTO a VALUES (1);", "SELECT\nnowhere;"),
        );
        let outcome = project.run("prepare");
        let line = 1 + text
            .lines()
            .position(|line| line.starts_with("INSERT"))
            .expect("the line");
        outcome
            .code(5)
            .says(&[&format!("--> {last}:{}:1\n", line + 1), "nowhere"]);
    }
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_dump_of_the_schema_comes_before_newer_migrations() {
    let server = Server::start();
    let programs = ClientPrograms::of(&server);
    let project = Project::on(&server);
    project.config("[persistent]\ndatabase = 'app_dev'\n");
    project.prepared();
    let dump = programs.dump("app_dev", &["--no-owner"]);
    assert!(
        dump.contains("set_config('search_path', ''")
            && dump.contains("COPY public._sqlx_migrations")
    );
    project.write("db/structure.sql", &dump);
    project.config("[template]\nmigrations = ['db/structure.sql', 'migrations']\n");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    // The dump contains the first two and says so.
    look(&server, &project);
    assert_eq!(tables(&server, "look"), "_sqlx_migrations posts tags users");
    assert_eq!(
        server.column_in("look", "SELECT count(*)::text FROM _sqlx_migrations"),
        ["3"]
    );
    // Alone.
    project.config("[template]\nmigrations = 'db/structure.sql'\n");
    look(&server, &project);
    assert_eq!(tables(&server, "look"), "_sqlx_migrations posts users");
    // Commands of psql are named with their line.
    project.write(
        "db/structure.sql",
        &format!("{dump}\\connect other\nSELECT 1;\n"),
    );
    let line = dump.lines().count() + 1;
    project.run("prepare").code(5).says(&[
        &format!("--> db/structure.sql:{line}:1\n"),
        "`\\connect other` is a psql command",
    ]);
}

#[test]
fn strings_that_end_elsewhere_are_refused() {
    let server = Server::start();
    let project = project(&server, "[template]\nmigrations = 'schema.sql'\n");
    let hidden = "CREATE TABLE a (t text);\nINSERT INTO a VALUES ('it\\'s; here');\nSELECT 'a';\n";
    for off in [
        "SET standard_conforming_strings = off;",
        "SELECT 1;SELECT set_config('standard_conforming_strings', 'off', false);",
        "DO $$ BEGIN SET standard_conforming_strings = off; END $$;",
    ] {
        project.write("schema.sql", &format!("{off}\n{hidden}"));
        project.run("prepare").code(5).says(&[
            "--> schema.sql:3:1\n",
            "`standard_conforming_strings` is off",
        ]);
    }
    // Without such a string it does not matter, and it may be turned on again.
    project.write(
        "schema.sql",
        "SET standard_conforming_strings = off;\nCREATE TABLE a (t text);\nSET standard_conforming_strings = on;\nINSERT INTO a VALUES ('a\\');\n",
    );
    look(&server, &project);
    assert_eq!(server.column_in("look", "SELECT t FROM a"), ["a\\"]);
    // It may be off for the role.
    server.execute("ALTER ROLE app SET standard_conforming_strings = off");
    project.write("schema.sql", hidden);
    project
        .run("prepare")
        .code(5)
        .says(&["--> schema.sql:2:", "E'…'"]);
    project.write(
        "schema.sql",
        "CREATE TABLE a AS SELECT E'it\\'s; here' AS t;",
    );
    look(&server, &project);
    assert_eq!(server.column_in("look", "SELECT t FROM a"), ["it's; here"]);
}

#[test]
fn any_command_migrates_and_its_inputs_decide_when() {
    let server = Server::start();
    let psql = psql();
    let project = project(
        &server,
        &format!(
            "[template]\nmigrations = {{ command = ['sh', 'db/migrate', '{psql}'], inputs = ['db/migrate', 'db/**/*.sql'] }}\n\
             [persistent]\ndatabase = 'app_dev'\n"
        ),
    );
    project.write(
        "db/migrate",
        "set -e\nfor file in db/*.sql; do \"$1\" -X -q -v ON_ERROR_STOP=1 -f \"$file\"; done\n\
         \"$1\" -X -q \"$DATABASE_URL\" -c 'CREATE TABLE IF NOT EXISTS by_url (id int)'\n",
    );
    project.write("db/1.sql", "CREATE TABLE IF NOT EXISTS a (id int);");
    let first = project.prepared();
    look(&server, &project);
    assert_eq!(tables(&server, "look"), "a by_url");
    assert_eq!(tables(&server, "app_dev"), "a by_url");
    assert_eq!(project.prepared(), first);
    project.write("db/2.sql", "CREATE TABLE IF NOT EXISTS b (id int);");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["because migration sh db/migrate", "was edited"]);
    look(&server, &project);
    assert_eq!(tables(&server, "look"), "a b by_url");
    // Its output is shown if it fails.
    project.write("db/2.sql", "SELECT 1;\nSELECT nowhere;");
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "the command `sh db/migrate",
        "exit status: 3",
        "db/2.sql:2: ERROR:",
        "nowhere",
    ]);
    project.config("[template]\nmigrations = { command = 'nothing-of-this-name', version = 1 }\n");
    project
        .run("prepare")
        .code(5)
        .says(&["`nothing-of-this-name` failed", "not found"]);
    project
        .config("[template]\nmigrations = { command = ['nothing-of-this-name'], version = 1 }\n");
    project
        .run("prepare")
        .code(5)
        .says(&["could not be started"]);
    project.config("[template]\nmigrations = { command = 'true', inputs = ['db/*.psql'] }\n");
    project
        .run("prepare")
        .code(5)
        .says(&["`db/*.psql`", "matches no file"]);
    project.config("[template]\nmigrations = { command = 'true' }\n");
    project
        .run("prepare")
        .code(3)
        .says(&["`template.migrations", "`inputs`", "`version`"]);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_command_that_does_not_end_is_killed_with_its_children() {
    let server = Server::start();
    let psql = psql();
    let project = project(
        &server,
        &format!(
            "[template]\nmigrations = {{ command = 'echo begun; {psql} -X -c \"SELECT pg_sleep(600)\" & wait', version = 1, timeout_secs = 1 }}\n"
        ),
    );
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        "was killed because it did not end within 1 s",
        "`timeout_secs`",
        "begun",
    ]);
    assert!(server.databases_of("building").is_empty());
    // A signal ends it as well.
    project.config(&format!(
        "[template]\nmigrations = {{ command = '{psql} -X -c \"SELECT pg_sleep(601)\" & wait', version = 1 }}\n"
    ));
    let prepare = project.tool("prepare").spawn();
    let sleeping = || {
        let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE '%pg_sleep(601)%' AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        server.column_in("postgres", sql).remove(0)
    };
    poll_until("the command runs", PATIENCE, || match sleeping().as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
    let pid = prepare.id();
    signal(pid, Signal::TERM).expect("a signal");
    Outcome::of(prepare).code(128 + 15);
    poll_until("the command is gone", PATIENCE, || {
        match sleeping().as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}
