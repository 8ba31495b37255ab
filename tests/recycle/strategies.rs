//! Random programs. They shrink by losing steps.

use kapsel_testdb_core::protocol::ResetMethod;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use crate::program::{Action, Case, End, Program, SESSIONS, Step};
use crate::tables::{SEQUENCES, TABLES, Table};

/// What most tests do, and what recycling must therefore undo: DML on tables that are empty in the template, inserts of a few rows into reference
/// tables, sequences, TRUNCATE of empty tables.
pub fn ordinary_case() -> impl Strategy<Value = Case> {
    let step = ordinary_action().prop_map(|action| Step { session: 0, action });
    let end = select(vec![End::Warm, End::Warm, End::Cold]);
    let program = (vec(step, 0..6), end).prop_map(|(steps, end)| Program { steps, end });
    case(program.boxed())
}

/// Anything.
pub fn wild_case() -> impl Strategy<Value = Case> {
    let action = prop_oneof![6 => ordinary_action(), 3 => wild_action(), 1 => Just(Action::Close)];
    let session = prop_oneof![3 => Just(0), 1 => 0..SESSIONS];
    let step = (session, action).prop_map(|(session, action)| Step { session, action });
    let end = prop_oneof![8 => Just(End::Warm), 3 => Just(End::Cold), 1 => Just(End::Open), 1 => Just(End::Other)];
    let program = (vec(step, 0..5), end).prop_map(|(steps, end)| Program { steps, end });
    case(program.boxed())
}

fn case(program: BoxedStrategy<Program>) -> impl Strategy<Value = Case> {
    let method = prop_oneof![3 => Just(ResetMethod::Delete), 1 => Just(ResetMethod::Truncate)];
    (method, vec(program, 1..4)).prop_map(|(method, programs)| Case { method, programs })
}

fn ordinary_action() -> impl Strategy<Value = Action> {
    let statements = || vec(ordinary_sql(), 1..5);
    prop_oneof![
        6 => ordinary_sql().prop_map(Action::Sql),
        2 => (statements(), any::<bool>()).prop_map(|(sql, commit)| Action::Block(sql, commit)),
        1 => (statements(), statements()).prop_map(|(one, two)| savepoints(one, two)),
    ]
}

fn savepoints(mut one: Vec<String>, two: Vec<String>) -> Action {
    one.push("SAVEPOINT s".to_owned());
    one.extend(two);
    one.push("ROLLBACK TO s".to_owned());
    Action::Block(one, true)
}

fn ordinary_sql() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (table(false), 1..60_u32, 1..40_u32, 0..3).prop_map(|(t, first, count, style)| insert(t, first, count, style)),
        3 => (table(true), 1..60_u32, 1..3_u32, 0..2).prop_map(|(t, first, count, style)| insert(t, first, count, style)),
        2 => (table(false), 1..5).prop_map(|(t, k)| format!("UPDATE {} SET v = v || 'u' WHERE id % {k} = 0", t.name)),
        2 => (table(false), 1..5).prop_map(|(t, k)| format!("DELETE FROM {} WHERE id % {k} = 0", t.name)),
        2 => (select(SEQUENCES), 1..15).prop_map(|(s, n)| format!("SELECT nextval('{s}') FROM generate_series(1, {n})")),
        1 => (select(SEQUENCES), 1..900, any::<bool>()).prop_map(|(s, n, called)| setval(s, n, called)),
        1 => (table(false), 0..3).prop_map(|(t, style)| truncate(t, style)),
        1 => select(HARMLESS).prop_map(str::to_owned),
    ]
}

fn table(filled: bool) -> impl Strategy<Value = &'static Table> {
    // A GIN index grows by more than a page with the first row: such a clone is dropped.
    let tables = TABLES
        .iter()
        .filter(|t| t.filled == filled && t.name != "app.ref_gin");
    select(tables.collect::<Vec<_>>())
}

fn insert(table: &Table, first: u32, count: u32, style: i32) -> String {
    let sql = table.insert(first, count);
    match style {
        1 if table.upsert => format!("{sql} ON CONFLICT DO NOTHING"),
        2 if table.upsert && table.name == "app.generated" => {
            format!("{sql} ON CONFLICT (id) DO UPDATE SET v = excluded.v || 'c'")
        }
        _ => sql,
    }
}

fn setval(sequence: &str, n: i32, called: bool) -> String {
    let n = if sequence == "app.down_seq" { -n } else { n };
    format!("SELECT setval('{sequence}', {n}, {called})")
}

fn truncate(table: &Table, style: i32) -> String {
    let option = ["CASCADE", "RESTART IDENTITY CASCADE", ""][style as usize % 3];
    format!("TRUNCATE {} {option}", table.name)
}

fn wild_action() -> impl Strategy<Value = Action> {
    let sql = || prop_oneof![1 => wild_sql(), 1 => ordinary_sql()];
    prop_oneof![
        6 => wild_sql().prop_map(Action::Sql),
        3 => (vec(sql(), 1..5), any::<bool>()).prop_map(|(sql, commit)| Action::Block(sql, commit)),
        2 => (sql(), sql()).prop_map(|(one, two)| Action::Together(one, two)),
        1 => sql().prop_map(Action::Cancel),
        1 => sql().prop_map(Action::Kill),
    ]
}

fn wild_sql() -> impl Strategy<Value = String> {
    let many = (table(false), 1..60_u32, 100..1500_u32);
    let options: Vec<(u32, BoxedStrategy<String>)> = vec![
        (3, select(HARMLESS).prop_map(str::to_owned).boxed()),
        (5, select(CHANGES).prop_map(str::to_owned).boxed()),
        (
            2,
            many.prop_map(|(t, first, count)| insert(t, first, count, 1))
                .boxed(),
        ),
        (
            2,
            (table(true), 1..60_u32, 3..80_u32)
                .prop_map(|(t, first, count)| insert(t, first, count, 1))
                .boxed(),
        ),
        (
            1,
            (table(true), 1..60)
                .prop_map(|(t, k)| format!("UPDATE {} SET v = v || 'u' WHERE id = {k}", t.name))
                .boxed(),
        ),
        (
            1,
            (table(true), 1..60)
                .prop_map(|(t, k)| format!("DELETE FROM {} WHERE id = {k}", t.name))
                .boxed(),
        ),
        (
            1,
            table(true)
                .prop_map(|t| format!("TRUNCATE {} CASCADE", t.name))
                .boxed(),
        ),
        (
            1,
            select(TABLES_OF_VACUUM)
                .prop_map(|t| format!("VACUUM {t}"))
                .boxed(),
        ),
        (
            1,
            select(TABLES_OF_VACUUM)
                .prop_map(|t| format!("ANALYZE {t}"))
                .boxed(),
        ),
        (
            1,
            select(TABLES_OF_VACUUM)
                .prop_map(|t| format!("REINDEX TABLE {t}"))
                .boxed(),
        ),
        (
            2,
            (0..6, 0..9)
                .prop_map(|(k, n)| format!("SELECT app.attempt({})", k * n))
                .boxed(),
        ),
    ];
    Union::new_weighted(options)
}

const TABLES_OF_VACUUM: &[&str] = &[
    "app.plain",
    "app.child",
    "app.bare",
    "app.toasted",
    "app.tagged",
    "app.excluded",
    "app.parted",
    "app.quick",
    "app.generated",
    "app.ref_small",
    "app.ref_big",
    "app.ref_heap",
    "app.ref_toast",
    "app.ref_gin",
    "app.ref_hash",
    "app.ref_brin",
    "app.ref_part",
    "app.mv",
];

/// What leaves nothing behind.
const HARMLESS: &[&str] = &[
    "SELECT count(*) FROM app.ref_big",
    "SELECT 1 / 0",
    "SELECT * FROM app.nothing",
    "SELECT * FROM app.ref_small FOR UPDATE",
    "SELECT * FROM app.ref_big WHERE id < 40 FOR KEY SHARE",
    "NOTIFY news, 'hello'",
    "LISTEN news",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_advisory_xact_lock(8)",
    "SET search_path = app, public",
    "SET LOCAL work_mem = '1MB'",
    "SET my.setting = 'x'",
    "PREPARE p AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM app.ref_small",
    "LOCK TABLE app.plain IN SHARE MODE",
    "SELECT lo_get(1)",
    "SELECT last_value FROM app.used_seq",
    "SET DateStyle = 'German'; SET bytea_output = 'escape'; SET extra_float_digits = -3",
    "SET default_transaction_read_only = on",
    "SET default_transaction_isolation = 'serializable'",
    "SET session_replication_role = replica",
    "SET row_security = off",
    "SET enable_seqscan = off",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION app",
    "INSERT INTO app.plain_view (v, n) VALUES ('view', 3), ('view2', 9)",
    "INSERT INTO app.secret DEFAULT VALUES",
    "INSERT INTO app.ring_a VALUES (1, 'a', NULL); INSERT INTO app.ring_b VALUES (1, 'b', 1); UPDATE app.ring_a SET b = 1",
    "INSERT INTO app.child (v, plain) VALUES ('orphan', 12345)",
    "INSERT INTO app.excluded VALUES (1, 'x', '[1,100)'), (2, 'y', '[50,60)')",
    "INSERT INTO app.toasted SELECT g, 'w', repeat(md5(g::text), 300) FROM generate_series(1, 20) g; UPDATE app.toasted SET big = big || 'x'",
    "MERGE INTO app.generated t USING (SELECT g FROM generate_series(1, 9) g) s ON t.id = s.g WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT (id, v) VALUES (g, 'n')",
    "WITH d AS (DELETE FROM app.bare RETURNING *) INSERT INTO app.heir SELECT id, v FROM d",
    "COPY app.bare FROM PROGRAM 'seq 1 50 | sed \"s/$/\\tcopied/\"'",
    "DO $$ BEGIN FOR i IN 1..5 LOOP BEGIN INSERT INTO app.quick (v) VALUES ('q' || i); IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
    "BEGIN; INSERT INTO app.bare VALUES (1, 'tx'); COMMIT AND CHAIN; INSERT INTO app.bare VALUES (2, 'tx'); ROLLBACK",
    "VACUUM app.bare",
];

/// What changes more than rows, commits or not, or hides something.
const CHANGES: &[&str] = &[
    "CREATE TABLE app.new (id int PRIMARY KEY, v text)",
    "DROP TABLE IF EXISTS app.bare CASCADE",
    "ALTER TABLE app.bare ADD COLUMN extra int DEFAULT 5",
    "ALTER TABLE app.parent DISABLE TRIGGER ALL",
    "ALTER TABLE app.plain SET (fillfactor = 50)",
    "ALTER INDEX app.plain_n RENAME TO plain_m",
    "ALTER SEQUENCE app.free_seq RESTART WITH 40",
    "ALTER SEQUENCE app.used_seq INCREMENT 5",
    "CREATE INDEX ON app.bare (id)",
    "CREATE TEMPORARY TABLE scratch (id int); INSERT INTO scratch VALUES (1)",
    "CREATE TEMPORARY TABLE passing (id int) ON COMMIT DROP",
    "CREATE SCHEMA other",
    "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE app.t AS (a int)",
    "ALTER TYPE app.mood ADD VALUE IF NOT EXISTS 'angry'",
    "CREATE EXTENSION IF NOT EXISTS citext",
    "CREATE STATISTICS app.st ON id, v FROM app.bare",
    "SELECT lo_create(4711)",
    "SELECT lo_from_bytea(0, 'abc')",
    "COMMENT ON TABLE app.bare IS 'a comment'",
    "GRANT SELECT ON app.bare TO PUBLIC",
    "GRANT UPDATE (v) ON app.bare TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC",
    "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'x'); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''2MB''', current_database()); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 50', current_database()); END $$",
    "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO PUBLIC', current_database()); END $$",
    "REFRESH MATERIALIZED VIEW app.mv",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY app.mv",
    "CLUSTER app.ref_big USING ref_big_n",
    "VACUUM FULL app.ref_big",
    "VACUUM FULL app.bare",
    "REINDEX SCHEMA app",
    "TRUNCATE app.plain, app.child, app.bare, app.parted RESTART IDENTITY",
    "TRUNCATE app.ref_small RESTART IDENTITY CASCADE; INSERT INTO app.ref_small (v) SELECT 's' || g FROM generate_series(1, 5) g",
    "INSERT INTO app.always VALUES (1, 'x')",
    "INSERT INTO app.bare SELECT g, 'many' FROM generate_series(1, 5000) g",
    "SELECT pg_stat_reset()",
    "SELECT pg_stat_reset_single_table_counters('app.bare'::regclass)",
    // Hidden rows of a reference table, sequences and changes of the schema are not noticed: `regressions` has them as known gaps.
    "SET track_counts = off; INSERT INTO app.bare VALUES (7, 'hidden'); RESET track_counts",
    "PREPARE TRANSACTION 'one'",
    "SET LOCAL statement_timeout = '5ms'; INSERT INTO app.bare SELECT g, pg_sleep(0.001)::text FROM generate_series(1, 100) g",
    "UPDATE app.ref_big SET n = n WHERE id < 10",
    "INSERT INTO app.ref_small (id, v) VALUES (2, 'x') ON CONFLICT (id) DO UPDATE SET v = 'upserted'",
    "DELETE FROM app.ref_small WHERE id = 3",
    "TRUNCATE app.ref_heap",
    "SECURITY LABEL ON TABLE app.bare IS 'x'",
    "CREATE PUBLICATION p FOR TABLE app.bare",
    "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION app.note()",
    "SELECT pg_replication_origin_create('o')",
    "UPDATE pg_class SET reltuples = 7 WHERE relname = 'bare'",
];
