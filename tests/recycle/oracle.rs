//! Compares a clone with a fresh one, without the means of the product: contents in their physical order, sequences, every catalog, plans with
//! their costs; at the end also `pg_dump`, and the order of rows and the plans after inserts into every table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::server::binaries::client_program;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::lab::{Clone, DROPS, Lab, Place, execute, texts};
use crate::support::BIN_DIR;
use crate::tables::{SEQUENCES, TABLES};

/// What a clone is like: values by what they describe.
pub type Portrait = BTreeMap<String, String>;

/// Catalogs that every database has of its own.
const CATALOGS: &str = "SELECT c.relname::text FROM pg_class c \
    WHERE c.relkind = 'r' AND c.relnamespace = 'pg_catalog'::regnamespace AND NOT c.relisshared AND c.relname <> 'pg_class'";
/// What VACUUM and TRUNCATE change in `pg_class` shows in the plans, as far as it matters.
const CLASS: &str = "SELECT 'catalog pg_class', concat_ws(' ', count(*), sum(hashtextextended((to_jsonb(x) \
      - '{relfilenode,relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'::text[])::text, 0))) FROM pg_class x";
/// Tables and materialized views with contents of their own.
const RELATIONS: &str = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 ORDER BY 1";
/// What the planner reads from `pg_class`, and the sizes of indexes: printed with a difference, not compared.
const PLANNER: &str = "SELECT c.oid::regclass::text, concat_ws(' ', relpages, reltuples, relallvisible, pg_relation_size(c.oid) / 8192) \
    FROM pg_class c WHERE c.relkind IN ('r', 'm', 'i', 't') AND c.oid >= 16384 ORDER BY 1";
const JOINS: &[&str] = &[
    "SELECT * FROM app.plain p JOIN app.child c ON c.plain = p.id WHERE p.n = 4",
    "SELECT b.n, count(*) FROM app.ref_big b JOIN app.bare p ON p.id = b.id GROUP BY b.n",
    "SELECT * FROM app.ref_gin WHERE tags @> '{a1,b3}'",
    "SELECT * FROM app.tagged WHERE tags @> '{x1}'",
    "SELECT * FROM app.tagged WHERE v = 'v9'",
    "SELECT * FROM app.ref_hash WHERE v = 'h9'",
    "SELECT id FROM app.ref_brin WHERE id BETWEEN 1990 AND 2100",
    "SELECT n FROM app.ref_big WHERE n = 5",
    "SELECT v FROM app.ref_big WHERE v = 'b700' AND n = 7",
    "SELECT * FROM app.excluded WHERE r && '[3,9]'",
    "SELECT * FROM app.plain WHERE lower(v) = 'v5' AND n > 3",
];

/// Portraits of fresh clones.
pub struct Oracle {
    contents: String,
    catalogs: String,
    fresh: Portrait,
    fresh_used: Portrait,
    fresh_dump: String,
    planner: [Portrait; 2],
    fresh_places: Portrait,
}

/// How much to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What does not change the clone.
    Look,
    /// Also what does.
    Use,
    /// And `pg_dump`, which takes longest.
    Dump,
}

impl Oracle {
    /// Draws fresh clones, twice: they must be alike.
    pub async fn new(lab: &mut Lab) -> Self {
        let clone = lab.fresh().await;
        let mut session = lab.place.unseen(&clone.name).await;
        let mut oracle = Self {
            contents: contents(&mut session).await,
            catalogs: catalogs(&mut session).await,
            fresh: Portrait::new(),
            fresh_used: Portrait::new(),
            fresh_dump: String::new(),
            planner: Default::default(),
            fresh_places: Portrait::new(),
        };
        oracle.fresh = oracle.look(&mut session).await;
        oracle.planner[0] = pairs(texts(&mut session, PLANNER).await);
        oracle.fresh_used = oracle.use_up(&mut session).await;
        oracle.planner[1] = pairs(texts(&mut session, PLANNER).await);
        oracle.fresh_places = places(&mut session).await;
        session.close().await.expect("closed");
        lab.drop(&clone).await;
        let clone = lab.fresh().await;
        oracle.fresh_dump = dump(&lab.place, &clone.name).await;
        let differences = oracle.differences(&lab.place, &clone, Depth::Dump).await;
        assert!(
            differences.is_none(),
            "two fresh clones differ: {differences:?}"
        );
        lab.drop(&clone).await;
        oracle
    }

    /// How a clone differs from a fresh one; with [`Depth::Use`] it is not fit for use afterwards.
    pub async fn differences(&self, place: &Place, clone: &Clone, depth: Depth) -> Option<String> {
        let mut found = String::new();
        if depth == Depth::Dump {
            let dump = dump(place, &clone.name).await;
            if dump != self.fresh_dump {
                found.push_str("pg_dump differs:\n");
                let fresh: std::collections::BTreeSet<&str> = self.fresh_dump.lines().collect();
                let more = dump.lines().filter(|line| !fresh.contains(line)).take(10);
                more.for_each(|line| writeln!(found, "  + {line}").expect("a string"));
            }
        }
        found.push_str(&self.portrait_differences(place, &clone.name, depth).await);
        (!found.is_empty()).then_some(found)
    }

    async fn portrait_differences(&self, place: &Place, name: &DbName, depth: Depth) -> String {
        let mut session = place.unseen(name).await;
        let portrait = self.look(&mut session).await;
        let mut found = compare("", &self.fresh, &portrait);
        if !found.is_empty() {
            let planner = pairs(texts(&mut session, PLANNER).await);
            found.push_str(&compare("pg_class: ", &self.planner[0], &planner));
        } else if depth != Depth::Look {
            let before = pairs(texts(&mut session, PLANNER).await);
            let portrait = self.use_up(&mut session).await;
            found = compare("after inserts: ", &self.fresh_used, &portrait);
            if !found.is_empty() {
                let planner = pairs(texts(&mut session, PLANNER).await);
                found.push_str(&compare("pg_class before: ", &self.planner[0], &before));
                found.push_str(&compare("pg_class after: ", &self.planner[1], &planner));
                found.push_str(&compare(
                    "",
                    &self.fresh_places,
                    &places(&mut session).await,
                ));
            }
        }
        let _ = session.close().await;
        found
    }

    async fn look(&self, session: &mut PgConnection) -> Portrait {
        let mut portrait = pairs(texts(session, &self.catalogs).await);
        portrait.extend(self.look_at_tables(session).await);
        portrait
    }

    async fn look_at_tables(&self, session: &mut PgConnection) -> Portrait {
        let mut portrait = pairs(texts(session, &self.contents).await);
        portrait.extend(plans(session).await);
        portrait
    }

    /// Inserts into every table.
    async fn use_up(&self, session: &mut PgConnection) -> Portrait {
        let inserts: Vec<String> = TABLES.iter().map(|t| t.insert(5001, 30)).collect();
        let _no_drops = DROPS.read().await;
        execute(session, &inserts.join("; ")).await;
        self.look_at_tables(session).await
    }
}

/// Where the rows are that [`Oracle::use_up`] has inserted: printed with a difference, not compared.
async fn places(session: &mut PgConnection) -> Portrait {
    let query = |name: &str| {
        format!(
            "SELECT 'places in {name}', string_agg(concat(id, ' ', ctid), ' ') FROM {name} t WHERE id BETWEEN 5001 AND 5030"
        )
    };
    let queries: Vec<String> = TABLES.iter().map(|table| query(table.name)).collect();
    pairs(texts(session, &queries.join("; ")).await)
}

/// What `pg_dump` writes about a clone, without what differs from run to run.
async fn dump(place: &Place, name: &DbName) -> String {
    let programs = std::env::var_os(BIN_DIR).map(PathBuf::from);
    let mut command = Command::new(client_program("pg_dump", programs.as_deref()));
    command
        .args(["--username", "postgres", "--host"])
        .arg(place.directory());
    command.args(["--port", &place.port().to_string(), &name.to_string()]);
    command
        .env("PGOPTIONS", "-c track_counts=off")
        .kill_on_drop(true);
    let output = command.output().await.expect("pg_dump runs");
    assert!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

/// All statements that read contents and sequences.
async fn contents(session: &mut PgConnection) -> String {
    let mut sql = String::new();
    for name in texts(session, RELATIONS).await.concat() {
        // Generated values differ from clone to clone.
        let row = if name == "app.secret" {
            "t.v"
        } else {
            "t::text"
        };
        write!(
            sql,
            "SELECT 'rows of {name}', concat_ws(' ', count(*), md5(string_agg({row}, E'\\n'))) FROM ONLY {name} t; "
        )
        .expect("a string");
    }
    for name in SEQUENCES {
        write!(
            sql,
            "SELECT 'sequence {name}', concat_ws(' ', last_value, is_called) FROM {name}; "
        )
        .expect("a string");
    }
    sql
}

/// All statements that read catalogs: the number of rows, and of rows that were written after the template was built.
async fn catalogs(session: &mut PgConnection) -> String {
    let next = "SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::int8 % 4294967296)::text";
    let xid = texts(session, next).await.concat().concat();
    let mut sql = CLASS.to_owned();
    for name in texts(session, CATALOGS).await.concat() {
        write!(
            sql,
            "; SELECT 'catalog {name}', concat_ws(' ', count(*), count(*) FILTER (WHERE age(xmin) <= age('{xid}'::xid))) FROM pg_catalog.{name}"
        )
        .expect("a string");
    }
    sql
}

async fn plans(session: &mut PgConnection) -> Portrait {
    let mut queries: Vec<String> = JOINS.iter().map(|q| (*q).to_owned()).collect();
    for table in TABLES {
        let name = table.name;
        queries.push(format!("SELECT * FROM {name} WHERE id = 7"));
        queries.push(format!("SELECT id FROM {name} ORDER BY id"));
    }
    let explain: Vec<String> = queries
        .iter()
        .map(|query| format!("SELECT '' WHERE false; EXPLAIN {query}; SELECT '--'"))
        .collect();
    let rows = texts(session, &explain.join("; ")).await.concat();
    let plans = rows
        .split(|line| line == "--")
        .map(|lines| lines.join("\n"));
    let keys = queries.into_iter().map(|query| format!("plan of {query}"));
    keys.zip(plans).collect()
}

fn pairs(rows: Vec<Vec<String>>) -> Portrait {
    let pair = |row: Vec<String>| {
        <[String; 2]>::try_from(row)
            .ok()
            .map(|[key, value]| (key, value))
    };
    rows.into_iter().filter_map(pair).collect()
}

fn compare(label: &str, fresh: &Portrait, found: &Portrait) -> String {
    let mut text = String::new();
    for key in fresh
        .keys()
        .chain(found.keys().filter(|key| !fresh.contains_key(*key)))
    {
        let [expected, got] = [fresh, found].map(|p| p.get(key).map_or("nothing", String::as_str));
        if expected != got {
            writeln!(
                text,
                "  {label}{key}\n    fresh:    {}\n    recycled: {}",
                indent(expected),
                indent(got)
            )
            .expect("a string");
        }
    }
    text
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n              ")
}
