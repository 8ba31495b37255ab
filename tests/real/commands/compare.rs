//! A database against its template: what differs is told, what does not is not, and little is held in memory.

use std::fmt::Write;

use kapsel_testdb_cli::compare::{
    Comparison, ComparisonSession, OwnRows, Scope, Suspects, compare,
};
use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::protocol::DbName;

use crate::support::{ROLE, Server};

/// One of everything that is hard to compare.
const NASTY: &str = r#"
    CREATE SCHEMA "Other Schema";
    CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE pair AS (x int, "Y" text);
    CREATE TABLE "Other Schema"."Quoted ""Table""" ("a ""column""" int PRIMARY KEY, "select" text);
    CREATE TABLE kinds (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, doc json, docb jsonb, raw bytea, f float8, n numeric,
      at timestamptz, span interval, mood mood, pair pair, list text[], size positive,
      twice int GENERATED ALWAYS AS (id * 2) STORED);
    CREATE TABLE keyless (name text, n int);
    CREATE TABLE two_keys (a text, b int, value text, PRIMARY KEY (b, a));
    CREATE TABLE parted (day int, value text) PARTITION BY RANGE (day);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (more text) INHERITS (parent);
    CREATE TABLE nothing ();
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
    CREATE SEQUENCE alone START 5;
    CREATE VIEW seen AS SELECT name FROM keyless;
    CREATE MATERIALIZED VIEW stored AS SELECT count(*) AS n FROM keyless;
    CREATE MATERIALIZED VIEW later AS SELECT 1 AS n WITH NO DATA;
    CREATE INDEX two_keys_value ON two_keys (lower(value)) WHERE value IS NOT NULL;
    CREATE FUNCTION answer(x int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 42';
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER note BEFORE INSERT ON two_keys FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE POLICY own ON keyless USING (name = current_user);
    CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
    COMMENT ON TABLE keyless IS 'no key';
    INSERT INTO "Other Schema"."Quoted ""Table""" VALUES (1, 'x');
    INSERT INTO kinds (doc, docb, raw, f, n, at, span, mood, pair, list, size) VALUES
      ('{"b": 1,  "a": 2}', '{"a": 2}', '\x00ff', 0.1, 1.10, '2020-01-01', '1 day', 'it''s ok', '(1,"a b")', '{a,NULL}', 7),
      (NULL, NULL, NULL, 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    INSERT INTO keyless VALUES ('a', 1), ('a', 1), ('a', 1), (NULL, NULL), ('', 0);
    INSERT INTO two_keys SELECT 'k', i, 'v' FROM generate_series(1, 20) i;
    INSERT INTO parted VALUES (1, 'one'), (11, 'eleven');
    INSERT INTO parent VALUES (1);
    INSERT INTO child VALUES (2, 'two');
    INSERT INTO nothing DEFAULT VALUES;
    INSERT INTO unlogged VALUES (1);
    SELECT lo_from_bytea(123456, '\x01');
"#;

/// A server with a template, and a clone of it that nobody changes.
struct Compared {
    server: Server,
    runtime: tokio::runtime::Runtime,
    clones: u32,
}

impl Compared {
    fn new(schema: &str) -> Self {
        let server = Server::start();
        server.create(&["app_template_0000000000000"]);
        let mut session = server.session_of_role("app_template_0000000000000");
        session.execute(schema);
        session.close();
        server.wait_for_sessions("app_template_0000000000000", 0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let mut new = Self {
            server,
            runtime: runtime.expect("a runtime"),
            clones: 0,
        };
        new.clone_template();
        new
    }

    fn name(serial: u32) -> DbName {
        let name = format!("app_clone_0000000000000_000000000000000_{serial:06}");
        name.parse().expect("a name")
    }

    fn clone_template(&mut self) -> DbName {
        let name = Self::name(self.clones);
        self.clones += 1;
        let sql =
            format!("CREATE DATABASE \"{name}\" TEMPLATE app_template_0000000000000 OWNER {ROLE}");
        self.server.execute(&sql);
        name
    }

    /// What a new clone differs in after this.
    fn after(&mut self, sql: &str) -> Comparison {
        let name = self.clone_template();
        let mut session = self.server.session_of_role(&name.to_string());
        session.execute(sql);
        session.close();
        self.compare(&name, &Scope::Everything)
    }

    fn compare(&self, name: &DbName, scope: &Scope) -> Comparison {
        let server = &self.server;
        let address = Address::socket(server.folder().into(), server.socket_port(), ROLE);
        self.runtime.block_on(async {
            let template = ComparisonSession::open(&address, &Self::name(0)).await;
            let database = ComparisonSession::open(&address, name).await;
            let (mut template, mut database) = (template.expect("one"), database.expect("both"));
            let found = compare(&mut template, &mut database, scope, &OwnRows::default()).await;
            template.close().await;
            database.close().await;
            found.expect("a comparison")
        })
    }
}

#[track_caller]
fn says(found: &Comparison, lines: &[&str]) {
    let text = found.to_string();
    for line in lines {
        let there = text.lines().any(|l| l.trim() == *line);
        assert!(there, "`{line}` is missing:\n{text}");
    }
}

#[test]
fn a_clone_is_as_its_template() {
    let mut compared = Compared::new(NASTY);
    let same = "CREATE TEMPORARY TABLE t (id int); UPDATE keyless SET n = n; ANALYZE; DELETE FROM parent WHERE false; \
                BEGIN; CREATE TABLE undone (id int); INSERT INTO keyless VALUES ('x', 1); ROLLBACK;";
    let found = compared.after(same);
    assert_eq!(found, Comparison::default(), "{found}");
    let found = compared.after("SELECT nextval('alone'), nextval('alone')");
    assert!(found.is_equal(), "{found}");
    says(&found, &["public.alone: unused → 6"]);
}

#[test]
fn rows_that_differ_are_told() {
    let mut compared = Compared::new(NASTY);
    let cases: &[(&str, &[&str])] = &[
        (
            r#"UPDATE "Other Schema"."Quoted ""Table""" SET "select" = E'two\nlines'"#,
            &[
                r#""Other Schema"."Quoted ""Table""": 1 changed"#,
                r#"~ a "column"='1': select 'x' → 'two\nlines'"#,
            ],
        ),
        (
            r#"UPDATE kinds SET doc = '{"b": 1, "a": 2}', raw = '\x00fe', f = 0.10000000000000001, n = 1.1 WHERE id = 1"#,
            &[
                "public.kinds: 1 changed",
                r#"~ id='1': doc '{"b": 1,  "a": 2}' → '{"b": 1, "a": 2}', raw '\x00ff' → '\x00fe', n '1.10' → '1.1'"#,
            ],
        ),
        (
            "UPDATE kinds SET mood = 'sad', list = '{}', pair = NULL WHERE id = 1; UPDATE kinds SET f = NULL WHERE id = 2",
            &[
                "public.kinds: 2 changed",
                "~ id='1': mood 'it's ok' → 'sad', pair '(1,\"a b\")' → NULL, list '{a,NULL}' → '{}'",
                "~ id='2': f 'NaN' → NULL",
            ],
        ),
        (
            "DELETE FROM kinds WHERE id = 2; INSERT INTO kinds (size) VALUES (1)",
            &["public.kinds: 1 added, 1 removed"],
        ),
        (
            "INSERT INTO keyless VALUES ('a', 1), ('a', 1), (NULL, NULL); DELETE FROM keyless WHERE name = ''",
            &[
                "public.keyless: 3 added, 1 removed",
                "+ name='a', n='1' (2 times)",
                "+ name=NULL, n=NULL",
                "- name='', n='0'",
            ],
        ),
        (
            "UPDATE keyless SET name = NULL WHERE name = ''",
            &["+ name=NULL, n='0'", "- name='', n='0'"],
        ),
        (
            "UPDATE two_keys SET value = 'w' WHERE b > 9",
            &[
                "public.two_keys: 11 changed",
                "~ b='10', a='k': value 'v' → 'w'",
                "~ b='19', a='k': value 'v' → 'w'",
                "and 1 more",
            ],
        ),
        (
            "INSERT INTO parted VALUES (12, 'twelve'); UPDATE parted SET day = 2 WHERE day = 1",
            &[
                "public.parted_1: 1 added, 1 removed",
                "+ day='12', value='twelve'",
            ],
        ),
        (
            "UPDATE parent SET id = 3 WHERE id = 2",
            &["public.child: 1 added, 1 removed", "+ id='3', more='two'"],
        ),
        (
            "INSERT INTO nothing DEFAULT VALUES",
            &["public.nothing: 1 added"],
        ),
        ("TRUNCATE unlogged", &["public.unlogged: 1 removed"]),
        (
            "REFRESH MATERIALIZED VIEW stored",
            &["public.stored: 1 added, 1 removed", "+ n='5'"],
        ),
        (
            "SELECT lo_put(123456, 0, '\\x02'), lo_create(99)",
            &[
                "large objects: 1 added, 1 changed",
                r"~ oid='123456': content '\x01' → '\x02'",
            ],
        ),
        (
            "UPDATE keyless SET name = repeat('long', 100) WHERE name = ''",
            &[&format!("+ name='{}…', n='0'", "long".repeat(20))],
        ),
    ];
    for (sql, lines) in cases {
        let found = compared.after(sql);
        assert!(found.schema.is_empty(), "{sql}: {found}");
        assert!(!found.is_equal(), "{sql}");
        says(&found, lines);
    }
}

#[test]
fn a_schema_that_differs_is_told() {
    let mut compared = Compared::new(NASTY);
    let cases: &[(&str, &[&str])] = &[
        (
            "CREATE TABLE extra (id int PRIMARY KEY)",
            &["+ table public.extra"],
        ),
        ("DROP TABLE two_keys", &["- table public.two_keys"]),
        (
            r#"ALTER TABLE keyless ALTER n SET DEFAULT 5, ADD "New" text; ALTER TABLE two_keys ALTER value SET NOT NULL, ALTER value TYPE varchar(9)"#,
            &[
                "~ column public.keyless.n",
                "+ NOT NULL",
                "+ DEFAULT 5",
                "+ column public.keyless.\"New\"",
                "~ column public.two_keys.value",
                "- text",
                "+ character varying(9)",
            ],
        ),
        (
            "ALTER TABLE kinds ALTER id SET GENERATED BY DEFAULT",
            &[
                "~ column public.kinds.id",
                "+ GENERATED BY DEFAULT AS IDENTITY",
            ],
        ),
        (
            "ALTER TABLE parent ADD CONSTRAINT small CHECK (id < 100)",
            &[
                "+ constraint small on public.parent",
                "+ constraint small on public.child",
            ],
        ),
        (
            "DROP INDEX two_keys_value; CREATE INDEX ON keyless (n, name)",
            &[
                "- index public.two_keys_value",
                "+ index public.keyless_n_name_idx",
            ],
        ),
        (
            "CREATE OR REPLACE VIEW seen AS SELECT name, 1 AS one FROM keyless",
            &["~ view public.seen"],
        ),
        (
            "DROP MATERIALIZED VIEW stored",
            &["- materialized view public.stored"],
        ),
        (
            "ALTER SEQUENCE alone INCREMENT 3",
            &["~ sequence public.alone"],
        ),
        (
            "CREATE OR REPLACE FUNCTION answer(x int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 43'",
            &[
                "~ function public.answer(x integer)",
                "+ AS $function$SELECT 43$function$",
            ],
        ),
        (
            "CREATE FUNCTION answer(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            &["+ function public.answer(text)"],
        ),
        (
            "ALTER TABLE two_keys DISABLE TRIGGER note",
            &["~ trigger note on public.two_keys", "+ DISABLED"],
        ),
        (
            "ALTER TYPE mood ADD VALUE 'glad'",
            &["~ type public.mood", "+ 'glad'"],
        ),
        (
            "ALTER DOMAIN positive SET DEFAULT 3",
            &["~ type public.positive", "+ DEFAULT 3"],
        ),
        ("CREATE TYPE triple AS (z int)", &["+ type public.triple"]),
        (
            "ALTER POLICY own ON keyless USING (true)",
            &["~ policy own on public.keyless", "+ USING true"],
        ),
        (
            "ALTER TABLE keyless ENABLE ROW LEVEL SECURITY",
            &["~ table public.keyless", "+ ENABLE ROW LEVEL SECURITY"],
        ),
        (
            "GRANT SELECT ON keyless TO PUBLIC",
            &["~ table public.keyless", "+ GRANT =r/app"],
        ),
        (
            "CREATE SCHEMA more; COMMENT ON SCHEMA more IS 'x'",
            &["+ schema more"],
        ),
        (
            "ALTER TABLE parted DETACH PARTITION parted_2",
            &["~ table public.parted_2", "- FOR VALUES FROM (10) TO (20)"],
        ),
        (
            "DROP AGGREGATE total (int)",
            &["- aggregate public.total(integer)"],
        ),
        (
            "CREATE COLLATION mine (locale = 'C')",
            &["+ collation public.mine"],
        ),
        (
            "COMMENT ON TABLE keyless IS 'still none'",
            &["- COMMENT no key", "+ COMMENT still none"],
        ),
        (
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database()); END $$",
            &["+ setting work_mem"],
        ),
    ];
    for (sql, lines) in cases {
        let found = compared.after(sql);
        assert!(!found.schema.is_empty(), "{sql}: {found}");
        says(&found, lines);
    }
    let many: String = (0..250).fold(String::new(), |mut sql, i| {
        let _ = write!(sql, "CREATE TABLE t{i:03} (id int);");
        sql
    });
    let found = compared.after(&many);
    assert_eq!(found.schema.len(), 100);
    says(&found, &["and 150 more objects"]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_compared() {
    let mut compared = Compared::new(
        "CREATE TABLE hidden (id int); CREATE TABLE open (id int); REVOKE ALL ON hidden FROM app;",
    );
    let found = compared.after("INSERT INTO open VALUES (1)");
    let unread = "not compared, so this may differ";
    says(&found, &["public.open: 1 added", unread]);
    let tables = found.not_compared.iter().map(|u| u.table.as_str());
    assert_eq!(tables.collect::<Vec<_>>(), ["public.hidden"], "{found}");
    let reason = &found.not_compared[0].reason;
    assert!(reason.contains("permission denied"), "{reason}");
    let found = compared.after("SELECT 1");
    assert!(!found.is_equal() && !found.has_differences(), "{found}");
}

#[test]
fn rows_that_a_policy_hides_from_the_owner_are_compared() {
    let mut compared = Compared::new(
        "CREATE TABLE veiled (id int PRIMARY KEY, name text); INSERT INTO veiled VALUES (1, 'one'); \
         ALTER TABLE veiled ENABLE ROW LEVEL SECURITY; ALTER TABLE veiled FORCE ROW LEVEL SECURITY; \
         CREATE POLICY inserts ON veiled FOR INSERT WITH CHECK (true);",
    );
    let found = compared.after("INSERT INTO veiled VALUES (2, 'two')");
    says(&found, &["public.veiled: 1 added", "+ id='2', name='two'"]);
    assert_eq!(found.not_compared, [], "{found}");
    let found = compared.after("SELECT 1");
    assert!(found.is_equal(), "{found}");
    // The policy still holds in both databases.
    let forced = "SELECT relforcerowsecurity::text FROM pg_class WHERE relname = 'veiled'";
    for serial in 0..3 {
        let database = Compared::name(serial).to_string();
        assert_eq!(compared.server.column_in(&database, forced), ["true"]);
    }
}

#[test]
fn only_suspects_are_read_where_that_is_asked_for() {
    let mut compared = Compared::new(NASTY);
    let name = compared.clone_template();
    let mut session = compared.server.session_of_role(&name.to_string());
    session.execute(
        "DELETE FROM keyless; DELETE FROM child; TRUNCATE unlogged; CREATE TABLE extra ();",
    );
    session.close();
    let suspects = |tables: &[&str], schema| {
        Scope::Suspects(Suspects {
            tables: tables.iter().map(|t| (*t).to_owned()).collect(),
            schema,
            large_objects: false,
        })
    };
    let tables = |scope: &Scope| -> Vec<String> {
        let found = compared.compare(&name, scope);
        found.tables.into_iter().map(|t| t.table).collect()
    };
    assert_eq!(
        tables(&suspects(&["public.keyless"], false)),
        ["public.keyless", "public.unlogged"]
    );
    assert_eq!(tables(&Scope::Everything).len(), 3);
    let found = compared.compare(&name, &suspects(&[], true));
    says(
        &found,
        &["+ table public.extra", "public.unlogged: 1 removed"],
    );
}

/// The most memory that this process has had since it was last asked, in KB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn a_hundred_thousand_rows_that_differ_are_not_held_in_memory() {
    let mut compared = Compared::new(
        "CREATE TABLE big (id int PRIMARY KEY, text text); CREATE TABLE keyless (text text); \
         INSERT INTO big SELECT i, repeat(i::text, 40) FROM generate_series(1, 100000) i; \
         INSERT INTO keyless SELECT text FROM big;",
    );
    let name = compared.clone_template();
    let mut session = compared.server.session_of_role(&name.to_string());
    session.execute("UPDATE big SET text = text || 'x'; UPDATE keyless SET text = text || 'x';");
    session.close();
    // Writes "5": the peak begins anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = peak();
    let found = compared.compare(&name, &Scope::Everything);
    says(
        &found,
        &[
            "public.big: 100000 changed",
            "public.keyless: 100000 added, 100000 removed",
            "and 99990 more",
            "and 199990 more",
        ],
    );
    if let (Some(before), Some(after)) = (before, peak()) {
        // The texts alone are 20 MB in each of four tables.
        assert!(after - before < 8 * 1024, "{} KB", after - before);
    }
}
