//! Compares a database with the template that it was made from: schema and rows.
//!
//! A template is sealed, so what is read in its place is a clone that nobody has used (`reference` makes one). `schema` reads
//! definitions, `tables` says how rows become text, `rows` finds those that differ; nothing is written to either database. Rows are
//! compared table by table as text: first the number of rows and the sum of their hashes, then, where those differ, hash by hash as
//! the server sorts them. What is told is bounded; what is counted is not.

mod difference;
mod reference;
mod rows;
mod schema;
mod session;
mod tables;

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::postgres::PgRow;

pub use difference::{
    ChangedValue, Comparison, ObjectDifference, RowDifference, SequenceValues, TableDifference,
    Unread, Value,
};
pub use reference::Reference;
pub use session::Session;

use crate::pg::PgError;
use session::both;
use tables::{Rows, Tables};

/// Most objects of the schema that are told.
pub const MOST_OBJECTS: usize = 100;
/// Most rows of a table that are told.
pub const MOST_ROWS: u64 = 10;
/// Most characters of a value that are told.
pub const MOST_CHARACTERS: usize = 80;

/// What is compared.
#[derive(Debug, Clone, Default)]
pub enum Scope {
    /// Everything, and where sequences stand.
    #[default]
    Everything,
    /// What may have changed.
    Suspects(Suspects),
}

/// What may have changed since a database was cloned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Tables whose rows were written to, by qualified and quoted name.
    pub tables: BTreeSet<String>,
    /// Whether the schema was. Tables that were truncated or rewritten show it by their file.
    pub schema: bool,
    /// Whether large objects were.
    pub large_objects: bool,
}

impl Scope {
    fn schema(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Suspects(suspects) => suspects.schema,
        }
    }

    fn large_objects(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Suspects(suspects) => suspects.large_objects,
        }
    }
}

/// Compares a database with an unused clone of its template.
///
/// # Errors
/// The server cannot be used. A table that cannot be read is a part of the result.
pub async fn compare(
    template: &mut Session,
    database: &mut Session,
    scope: &Scope,
) -> Result<Comparison, PgError> {
    let mut found = Comparison::default();
    if scope.schema() {
        let (one, other) = both(schema::read(template), schema::read(database)).await?;
        found.schema = schema::differences(&one, &other);
        found.more_objects = found.schema.len().saturating_sub(MOST_OBJECTS);
        found.schema.truncate(MOST_OBJECTS);
    }
    let commits = commit_times_are_kept(database).await?;
    for rows in to_compare(template, database, scope).await? {
        match rows::compare(template, database, &rows, commits).await {
            Ok(difference) => found.tables.extend(difference),
            Err(error) if error.code().is_some() && !error.is_passing() => {
                template.settle().await;
                database.settle().await;
                found.unread.push(Unread {
                    table: rows.label,
                    reason: error.to_string(),
                });
            }
            Err(error) => return Err(error),
        }
    }
    if matches!(scope, Scope::Everything) {
        found.sequences = sequences(template, database).await?;
    }
    Ok(found)
}

async fn to_compare(
    template: &mut Session,
    database: &mut Session,
    scope: &Scope,
) -> Result<Vec<Rows>, PgError> {
    let (one, other): (Tables, Tables) =
        both(tables::read(template), tables::read(database)).await?;
    let mut rows = Vec::new();
    for (name, table) in &one {
        let Some(now) = other.get(name) else { continue };
        let wanted = match scope {
            Scope::Everything => true,
            Scope::Suspects(suspects) => suspects.tables.contains(name) || table.file != now.file,
        };
        if wanted {
            rows.push(Rows::of(name, table, now));
        }
    }
    if scope.large_objects() {
        rows.push(Rows::large_objects());
    }
    Ok(rows)
}

async fn commit_times_are_kept(session: &mut Session) -> Result<bool, PgError> {
    let sql = "SELECT current_setting('track_commit_timestamp')::bool AS on";
    let on = |row: &PgRow| row.try_get("on");
    let found = session.rows(sql, &"the settings", on).await?;
    Ok(found.first() == Some(&true))
}

/// Sequences that both have and that stand elsewhere, at most [`MOST_OBJECTS`].
async fn sequences(
    template: &mut Session,
    database: &mut Session,
) -> Result<Vec<SequenceValues>, PgError> {
    let sql = "SELECT format('%I.%I', schemaname, sequencename) AS name, last_value FROM pg_sequences ORDER BY 1";
    let value = |row: &PgRow| Ok((row.try_get("name")?, row.try_get("last_value")?));
    let what = "the sequences";
    let (one, other) = both(
        template.rows::<(String, Option<i64>)>(sql, &what, value),
        database.rows::<(String, Option<i64>)>(sql, &what, value),
    )
    .await?;
    let moved = one.into_iter().filter_map(|(sequence, template)| {
        let (_, database) = other.iter().find(|(name, _)| *name == sequence)?;
        (template != *database).then_some(SequenceValues {
            sequence,
            template,
            database: *database,
        })
    });
    Ok(moved.take(MOST_OBJECTS).collect())
}
