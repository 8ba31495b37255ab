//! Migrations that leave something in their session: a template that grew one migration at a time contains what one session makes of all of them.
//!
//! `HISTORIES=1000 HISTORIES_SEED=7 cargo test --test real random_histories` runs more of them.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sqlx::migrate::Migrator;

use crate::support::{ClientPrograms, Project, SUPERUSER, Server};

/// What every history begins with.
const FIRST: &str = "CREATE SCHEMA app; CREATE SEQUENCE public.ids; \
    CREATE FUNCTION public.set_tenant(text) RETURNS void LANGUAGE plpgsql AS \
      $$ BEGIN PERFORM set_config('app.tenant', $1, false); END $$;";

/// Writes down what a migration finds. Its table is in whatever schema is the first of the search path.
const PROBE: &str = "CREATE TABLE probe_{n} AS SELECT current_setting('search_path') AS path, current_user::text AS role, \
    session_user::text AS login, current_setting('app.tenant', true) AS tenant, current_setting('work_mem') AS memory, \
    '2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC' AS zone, current_setting('session_replication_role') AS replica, \
    to_regclass('scratch')::text AS scratch, (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) AS prepared, \
    (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors, (SELECT string_agg(c, ',') FROM pg_listening_channels() c) AS channels;";

const USES_IDS: &str = "SELECT nextval('public.ids');";
const SEEDS_RANDOM: &str = "SELECT setseed(0.5);";

/// What a migration may do to its session, or with what an earlier one left there.
const STEPS: &[&str] = &[
    "SET search_path = app, public;",
    "SELECT set_config('search_path', 'app,public', false);",
    "SET LOCAL search_path = app, public;",
    "RESET search_path;",
    "SET search_path = '', app, public;",
    "SET ROLE \"The owner\";",
    "RESET ROLE;",
    "SET SESSION AUTHORIZATION \"The owner\";",
    "RESET SESSION AUTHORIZATION;",
    "SET work_mem = '7MB';",
    "SET TIME ZONE 'Asia/Tokyo';",
    "SET TIME ZONE INTERVAL '-03:30' HOUR TO MINUTE;",
    "SET app.tenant = 'it''s';",
    "SET LOCAL app.tenant = 'local';",
    "SELECT public.set_tenant('by a function');",
    "RESET app.tenant;",
    "RESET ALL;",
    "SET session_replication_role = replica;",
    "SET check_function_bodies = off; SET default_text_search_config = 'pg_catalog.german';",
    "CREATE TEMP TABLE IF NOT EXISTS scratch AS SELECT 1 AS id;",
    "DROP TABLE IF EXISTS scratch;",
    "CREATE TEMP TABLE gone_{n} (id int) ON COMMIT DROP;",
    "PREPARE prepared_{n} AS SELECT 1;",
    "DECLARE cursor_{n} CURSOR WITH HOLD FOR SELECT 1;",
    "LISTEN news;",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = app, public', current_database()); END $$;",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''9MB''', current_database()); END $$;",
    USES_IDS,
    SEEDS_RANDOM,
];

/// The texts of the migrations. What an earlier migration must have done first is added only after it.
fn history() -> impl Strategy<Value = Vec<String>> {
    let migration = proptest::collection::vec(select(STEPS), 1..4);
    let migrations = proptest::collection::vec(migration, 2..7);
    migrations.prop_map(|migrations| {
        let (mut ids, mut random) = (false, false);
        let mut texts = vec![FIRST.to_owned()];
        for steps in migrations {
            ids |= steps.contains(&USES_IDS);
            random |= steps.contains(&SEEDS_RANDOM);
            let mut text = steps.concat();
            text.push_str(PROBE);
            if ids {
                text.push_str("CREATE TABLE current_{n} AS SELECT currval('public.ids') AS id;");
            }
            if random {
                text.push_str("CREATE TABLE random_{n} AS SELECT random() AS number;");
            }
            let n = texts.len().to_string();
            texts.push(text.replace("{n}", &n));
        }
        texts
    })
}

/// A server on which migrations may do everything.
fn server() -> Server {
    let server = Server::start();
    server.execute("CREATE ROLE \"The owner\" SUPERUSER");
    server
}

fn project(server: &Server, name: &str) -> Project {
    let mut project = Project::new(name);
    project.set("DATABASE_URL", &server.url_of(SUPERUSER));
    project
}

fn write(project: &Project, texts: &[String], from: usize) {
    for (n, text) in texts.iter().enumerate().skip(from) {
        project.migration(&format!("{:04}_m", n + 1), text);
    }
}

/// What VACUUM and ANALYZE have written down of users' tables.
const STATISTICS: &str = "SELECT concat_ws(' ', c.oid::regclass, relpages, reltuples, relallvisible, \
      (SELECT count(*) FROM pg_statistic WHERE starelid = c.oid)) \
    FROM pg_class c WHERE relkind IN ('r', 'm', 'p') AND oid >= 16384 ORDER BY 1";

/// What pg_dump finds in a copy of the template, and the statistics of its tables.
fn dump_of(server: &Server, template: &str) -> (String, Vec<String>) {
    let copy = format!("copy_{template}");
    server.execute(&format!("CREATE DATABASE {copy} TEMPLATE {template}"));
    let found = (dump(server, &copy), server.column_in(&copy, STATISTICS));
    server.execute(&format!("DROP DATABASE {copy}"));
    found
}

fn dump(server: &Server, database: &str) -> String {
    // When a migration ran, and how long that took.
    let without = ["--exclude-table-data=*._sqlx_migrations"];
    ClientPrograms::of(server).dump(database, &without)
}

/// What `sqlx migrate run` makes of the migrations.
fn reference(server: &Server, name: &str, directory: &Path) -> String {
    let database = format!("reference_{name}");
    server.execute(&format!("CREATE DATABASE {database} TEMPLATE template0"));
    let mut session = server.session(&database);
    session.with(async |connection| {
        let migrator = Migrator::new(directory).await.expect("migrations");
        let ran = migrator.run_direct(None, connection, false).await;
        ran.unwrap_or_else(|error| panic!("{error}"));
    });
    session.close();
    let dump = dump(server, &database);
    server.execute(&format!("DROP DATABASE {database}"));
    dump
}

/// Builds a template from all migrations at once, and another one that grows at the given places, and compares both with `sqlx migrate run`. Returns what
/// differs.
fn difference(server: &Server, name: &str, texts: &[String], cuts: &[usize]) -> Option<String> {
    let at_once = project(server, &format!("{name}a"));
    write(&at_once, texts, 0);
    let expected = reference(server, name, &at_once.root().join("migrations"));
    let grown = project(server, &format!("{name}b"));
    let mut done = 0;
    for cut in cuts.iter().copied().chain([texts.len()]) {
        write(&grown, &texts[..cut], done);
        done = cut;
        grown.prepared();
    }
    let (at_once, grown) = (
        dump_of(server, &at_once.prepared()),
        dump_of(server, &grown.prepared()),
    );
    for (how, (found, _)) in [("at once", &at_once), ("grown", &grown)] {
        if *found != expected {
            let lines = expected.lines().zip(found.lines());
            let first = lines.enumerate().find(|(_, (a, b))| a != b);
            return Some(format!("built {how}: {first:#?}\n{texts:#?}"));
        }
    }
    let (at_once, grown) = (at_once.1, grown.1);
    (at_once != grown).then(|| format!("statistics: {at_once:#?}\nnot {grown:#?}\n{texts:#?}"))
}

#[track_caller]
fn equals_one_session(texts: &[&str]) {
    let server = server();
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let cuts: Vec<usize> = (1..texts.len()).collect();
    if let Some(difference) = difference(&server, "app", &texts, &cuts) {
        panic!("{difference}");
    }
}

#[test]
fn a_search_path_lasts_until_the_last_migration() {
    equals_one_session(&[
        "CREATE SCHEMA app; SET search_path = app, public;",
        "CREATE TABLE t (id int);",
        "SELECT set_config('search_path', 'public', false);",
        "CREATE TABLE u (id int);",
    ]);
}

#[test]
fn roles_and_logins_last_until_the_last_migration() {
    equals_one_session(&[
        "SET ROLE \"The owner\";",
        "CREATE TABLE t (id int);",
        "SET SESSION AUTHORIZATION \"The owner\"; SET ROLE postgres",
        "CREATE TABLE u AS SELECT session_user::text AS login, current_user::text AS role;",
        "RESET ROLE;",
        "CREATE TABLE v AS SELECT session_user::text AS login, current_user::text AS role;",
    ]);
}

#[test]
fn a_role_that_a_migration_may_have_made_is_not_needed_before_it() {
    let server = server();
    let migrations = [
        "DO $$ BEGIN CREATE ROLE made SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$; SET ROLE made;",
        "CREATE TABLE t (id int);",
    ];
    let project = project(&server, "app");
    project.migration("0001_a", migrations[0]);
    project.prepared();
    server.execute("DROP ROLE made");
    project.migration("0002_b", migrations[1]);
    let (dump, _) = dump_of(&server, &project.prepared());
    assert!(
        dump.contains("ALTER TABLE public.t OWNER TO made"),
        "{dump}"
    );
}

#[test]
fn temporary_tables_last_until_the_last_migration() {
    equals_one_session(&[
        "CREATE TEMP TABLE scratch AS SELECT 7 AS id;",
        "CREATE TABLE t AS SELECT id FROM scratch;",
        "DROP TABLE scratch; CREATE TEMP TABLE gone (id int) ON COMMIT DROP;",
        "CREATE TABLE u AS SELECT to_regclass('scratch')::text AS scratch;",
    ]);
}

#[test]
fn a_sequence_has_a_current_value_until_the_last_migration() {
    equals_one_session(&[
        "CREATE TABLE t (id serial PRIMARY KEY, name text);",
        "INSERT INTO t (name) VALUES ('first');",
        "CREATE TABLE u AS SELECT currval('t_id_seq') AS id, lastval() AS last;",
    ]);
}

#[test]
fn settings_of_the_database_are_for_later_sessions() {
    equals_one_session(&[
        "CREATE SCHEMA app;",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = app', current_database()); END $$;",
        "CREATE TABLE t (id int);",
    ]);
}

#[test]
fn settings_of_the_application_last_until_the_last_migration() {
    equals_one_session(&[
        "SET app.tenant = 'it''s';",
        "CREATE TABLE t AS SELECT current_setting('app.tenant', true) AS tenant;",
        "CREATE FUNCTION f(name text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.' || name, 'x', false) $$; SELECT f('dynamic');",
        "CREATE TABLE u AS SELECT current_setting('app.dynamic', true) AS tenant;",
    ]);
}

/// A build on top of a template vacuums what it has changed, and nothing else.
#[test]
fn tables_are_vacuumed_as_in_a_build_at_once() {
    equals_one_session(&[
        "CREATE TABLE parts (id int, at int) PARTITION BY RANGE (at); CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); \
         CREATE TABLE part_2 PARTITION OF parts DEFAULT; INSERT INTO parts SELECT n, n FROM generate_series(1, 500) n; \
         CREATE TABLE parents (id int); CREATE TABLE children () INHERITS (parents); INSERT INTO children SELECT generate_series(1, 300); \
         CREATE TABLE same AS SELECT generate_series(1, 300) AS id; CREATE TABLE emptied AS SELECT * FROM same; CREATE TABLE retyped AS SELECT * FROM same; \
         CREATE TABLE thinned AS SELECT * FROM same; CREATE MATERIALIZED VIEW seen AS SELECT * FROM thinned; CREATE TABLE never (id int);",
        "SELECT 1;",
        "INSERT INTO parts SELECT 3, 3 FROM generate_series(1, 900); INSERT INTO children SELECT generate_series(1, 900); TRUNCATE emptied; INSERT INTO emptied VALUES (1); \
         ALTER TABLE retyped ALTER id TYPE bigint; DELETE FROM thinned WHERE id % 3 = 0; REFRESH MATERIALIZED VIEW seen; CREATE TABLE late AS SELECT 1 AS id;",
    ]);
}

/// What pg_dump writes at the beginning of a file. It must not cost the next migration a build of everything.
#[test]
fn a_template_whose_session_can_be_restored_is_built_upon() {
    let server = server();
    let project = project(&server, "app");
    project.migration(
        "0001_dump",
        "SET statement_timeout = 0; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET check_function_bodies = false; \
         SET xmloption = content; SET client_min_messages = warning; SET row_security = off; CREATE TABLE t (id int);",
    );
    project.migration("0002_role", "SET ROLE \"The owner\";");
    project.prepared();
    project.migration(
        "0003_more",
        "CREATE TABLE u AS SELECT current_setting('row_security') AS s;",
    );
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["1 file on top of 2 unchanged migrations"]);
}

#[test]
fn a_build_that_must_begin_anew_says_so() {
    let server = server();
    let project = project(&server, "app");
    project.migration("0001_ids", "CREATE SEQUENCE ids; SELECT nextval('ids');");
    project.prepared();
    project.migration(
        "0002_current",
        "CREATE TABLE t AS SELECT currval('ids') AS id;",
    );
    let outcome = project.run("prepare");
    outcome.code(0).says(&[
        "1 file on top of 1 unchanged migration",
        "building from the first migration instead, because the migrations need one session",
    ]);
    assert!(server.databases_of("building").is_empty());
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_histories_give_what_one_session_gives() {
    let count = from_environment("HISTORIES").unwrap_or(3);
    let seed = from_environment("HISTORIES_SEED").unwrap_or(1);
    let server = server();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = (history(), proptest::collection::vec(any::<Index>(), 1..5));
    let mut failures = Vec::new();
    for case in 0..count {
        let (texts, places) = strategy.new_tree(&mut runner).expect("a history").current();
        let mut cuts: Vec<usize> = places
            .iter()
            .map(|i| 1 + i.index(texts.len() - 1))
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        failures.extend(difference(&server, &format!("h{case}"), &texts, &cuts));
        for template in server.databases_of("template") {
            server.execute(&format!("ALTER DATABASE {template} IS_TEMPLATE false"));
            server.execute(&format!("DROP DATABASE {template}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count}: {failures:#?}",
        failures.len()
    );
}
