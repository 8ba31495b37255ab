//! The tables of a database, and the queries that read their rows as text.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::PgRow;

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::sql::identifier;

use crate::compare::own::OwnRows;
use crate::compare::session::ComparisonSession;

/// Relations with rows of their own: partitions, but not partitioned tables; each table of an inheritance tree separately.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_relation_filenode(c.oid)::int8 AS file, \
     c.relrowsecurity AND c.relforcerowsecurity AS forced, \
     to_json(ARRAY(SELECT a.attname::text FROM pg_attribute a \
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum))::text AS columns, \
     to_json(ARRAY(SELECT a.attname::text \
       FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
         JOIN pg_attribute a ON a.attnum = k.attnum \
       WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts AND a.attrelid = c.oid \
       ORDER BY k.place))::text AS key \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
   WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relispopulated \
     AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// A table in one of the two databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Its file: a clone's tables have the template's file until they are truncated or rewritten.
    pub file: Option<i64>,
    /// Whether its policies also hold for its owner.
    forced: bool,
    columns: Vec<String>,
    /// The columns of its primary key; empty without a primary key.
    key: Vec<String>,
}

/// The tables of a database by qualified and quoted name.
pub(super) type Tables = BTreeMap<String, Table>;

/// Reads the list of tables.
///
/// # Errors
/// A failed statement.
pub(super) async fn read(session: &mut ComparisonSession) -> Result<Tables, PgError> {
    let read = |row: &PgRow| {
        let table = Table {
            file: row.try_get("file")?,
            forced: row.try_get("forced")?,
            columns: json(row, "columns")?,
            key: json(row, "key")?,
        };
        Ok((row.try_get("name")?, table))
    };
    let tables = session.rows(TABLES, &"the tables", read).await?;
    Ok(tables.into_iter().collect())
}

/// Decodes a column of JSON text.
pub(super) fn json<T: serde::de::DeserializeOwned>(row: &PgRow, column: &str) -> sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The queries for the rows of a table, the same for both databases.
#[derive(Debug)]
pub(super) struct RowQueries {
    /// The table's name in reports.
    pub label: String,
    from: String,
    /// Names of the columns that both databases have.
    pub columns: Vec<String>,
    /// The value of each column, as SQL.
    values: Vec<String>,
    /// Indices of the primary key columns.
    pub key: Vec<usize>,
    lift_policies: Option<String>,
}

impl RowQueries {
    /// The queries for a table that both databases have. A column that only one has is a difference of the schema, not of the rows.
    pub fn of(name: &str, template: &Table, database: &Table) -> Self {
        let mut columns = template.columns.clone();
        columns.retain(|column| database.columns.contains(column));
        let value = |column: &String| format!("t.{}", identifier(column));
        let place = |column: &String| columns.iter().position(|c| c == column);
        let key: Option<Vec<usize>> = template.key.iter().map(place).collect();
        Self {
            label: name.to_owned(),
            from: format!("ONLY {name} AS t"),
            values: columns.iter().map(value).collect(),
            key: key
                .filter(|_| template.key == database.key)
                .unwrap_or_default(),
            columns,
            lift_policies: (template.forced || database.forced).then(|| {
                format!("BEGIN READ WRITE; ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
            }),
        }
    }

    /// The queries for large objects: not every role may read their table.
    pub fn large_objects() -> Self {
        Self {
            label: "large objects".to_owned(),
            from: "pg_largeobject_metadata AS t".to_owned(),
            columns: vec!["oid".to_owned(), "content".to_owned()],
            values: vec!["t.oid".to_owned(), "lo_get(t.oid)".to_owned()],
            key: vec![0],
            lift_policies: None,
        }
    }

    /// Begins a transaction in which the table's owner may read all rows; none if no policy prevents that.
    pub fn lift_policies(&self) -> Option<&str> {
        self.lift_policies.as_deref()
    }

    /// The number of rows, and the sum of their hashes, in any order.
    pub fn sum(&self) -> String {
        let hash = hash(&row(&self.values));
        format!(
            "SELECT count(*) AS rows, coalesce(sum({hash}), 0)::text AS sum FROM {}",
            self.from
        )
    }

    /// For each row, the hash of its key and its own hash, sorted; without a primary key, each row's hash and the number of equal rows. Then
    /// whether it is one of the `own` rows, or how many are.
    pub fn digests(&self, own: &OwnRows) -> String {
        let text = row(&self.values);
        let (hash, from, own) = (hash(&text), &self.from, own.condition(&text));
        if self.key.is_empty() {
            format!(
                "SELECT {hash}, count(*), count(*) FILTER (WHERE {own}) FROM {from} GROUP BY 1 ORDER BY 1, 2"
            )
        } else {
            format!(
                "SELECT {}, {hash}, ({own})::int4::int8 FROM {from} ORDER BY 1, 2",
                self.id()
            )
        }
    }

    /// The rows with these hashes, at most `max`: each value truncated after `max_chars`, and its hash.
    pub fn values(&self, ids: &[i64], max: u64, max_chars: usize) -> String {
        let shown = |value: &String| format!("left({value}::text, {})", max_chars + 1);
        let hashed = |value: &String| hash(&format!("{value}::text"));
        let list = |of: &dyn Fn(&String) -> String, kind: &str| {
            let items: Vec<String> = self.values.iter().map(of).collect();
            format!("to_json(ARRAY[{}]::{kind}[])::text", items.join(", "))
        };
        let (distinct, order) = if self.key.is_empty() {
            // Any of several equal rows will do.
            ("DISTINCT ON (id)", "id".to_owned())
        } else {
            ("", self.key_values().join(", "))
        };
        format!(
            "SELECT {distinct} {} AS id, {} AS shown, {} AS hashes FROM {} {} ORDER BY {order} LIMIT {max}",
            self.id(),
            list(&shown, "text"),
            list(&hashed, "int8"),
            self.from,
            self.with_id(ids)
        )
    }

    /// Commit times of the transactions that wrote the rows with these hashes.
    pub fn commits(&self, ids: &[i64]) -> String {
        format!(
            "SELECT DISTINCT extract(epoch FROM pg_xact_commit_timestamp(t.xmin))::float8 AS at FROM {} {}",
            self.from,
            self.with_id(ids)
        )
    }

    fn key_values(&self) -> Vec<String> {
        self.key.iter().map(|i| self.values[*i].clone()).collect()
    }

    /// The identity of a row: the hash of its primary key, else of the whole row.
    fn id(&self) -> String {
        if self.key.is_empty() {
            hash(&row(&self.values))
        } else {
            hash(&row(&self.key_values()))
        }
    }

    fn with_id(&self, ids: &[i64]) -> String {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        let (id, ids) = (self.id(), ids.join(","));
        format!("WHERE {id} IN (SELECT unnest('{{{ids}}}'::int8[]))")
    }
}

fn row(values: &[String]) -> String {
    format!("ROW({})::text", values.join(", "))
}

fn hash(text: &str) -> String {
    format!("hashtextextended({text} COLLATE \"C\", 0)")
}
