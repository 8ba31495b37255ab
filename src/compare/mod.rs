//! Compares a database with its template: schema and rows.
//!
//! A template is sealed, so an unused clone is read in its place (`reference` creates one). `schema` reads definitions, `tables` converts
//! rows to text, `rows` finds the rows that differ; nothing is committed to either database. Rows are compared table by table as text:
//! first the number of rows and the sum of their hashes, then, if those differ, hash by hash in the server's sort order. The number of
//! listed differences is limited; the counts are complete.

mod difference;
mod own;
mod reference;
mod rows;
mod schema;
mod session;
mod tables;

use std::collections::BTreeSet;

use sqlx::Row;
use sqlx::postgres::PgRow;

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::sqlstate;

use self::session::both;
use self::tables::{RowQueries, Tables};

pub use difference::{
    ChangedValue, Comparison, ObjectDifference, RowDifference, SequenceValues, TableDifference,
    UnreadableTable, Value,
};
pub use own::OwnRows;
pub use reference::Reference;
pub use session::ComparisonSession;

/// Maximum number of listed objects of the schema.
pub const MAX_OBJECTS: usize = 100;
/// Maximum number of listed rows of a table.
pub const MAX_ROWS: u64 = 10;
/// Maximum number of characters of a listed value.
pub const MAX_VALUE_CHARS: usize = 80;

/// What to do about tables that could not be compared.
pub const READ_REMEDY: &str = "make the tables readable for the role of `DATABASE_URL` (as their owner, or with `GRANT SELECT`), and end transactions that lock them";

/// The scope of a comparison.
#[derive(Debug, Clone, Default)]
pub enum Scope {
    /// Everything, including the last values of sequences.
    #[default]
    Everything,
    /// Only what may have changed.
    Suspects(Suspects),
}

/// What may have changed since a database was cloned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Tables that were written to, by qualified and quoted name.
    pub tables: BTreeSet<String>,
    /// Whether the schema may have changed. Truncated and rewritten tables are recognized by their file.
    pub schema: bool,
    /// Whether large objects may have changed.
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

/// Compares a database with an unused clone of its template. Added rows that are `own` rows of tests are no difference.
///
/// # Errors
/// The server cannot be used. A table that cannot be read is part of the result instead.
pub async fn compare(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
    scope: &Scope,
    own: &OwnRows,
) -> Result<Comparison, PgError> {
    let mut found = Comparison::default();
    if scope.schema() {
        let (one, other) = both(schema::read(template), schema::read(database)).await?;
        found.schema = schema::differences(&one, &other);
        found.unlisted_objects = found.schema.len().saturating_sub(MAX_OBJECTS);
        found.schema.truncate(MAX_OBJECTS);
    }
    let commits = tracks_commit_times(database).await?;
    for rows in tables_to_compare(template, database, scope).await? {
        match compare_rows(template, database, &rows, commits, own).await {
            Ok(difference) => found.tables.extend(difference),
            Err(error) if error.code().is_some() && !error.is_transient() => {
                template.drain().await;
                database.drain().await;
                found.not_compared.push(UnreadableTable {
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

/// Compares the rows of a table. If a policy hides rows even from the table's owner, lifts it in transactions that are rolled back.
async fn compare_rows(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
    rows: &RowQueries,
    commits: bool,
    own: &OwnRows,
) -> Result<Option<TableDifference>, PgError> {
    let compared = rows::compare(template, database, rows, commits, own).await;
    let refused = compared
        .as_ref()
        .is_err_and(|error| error.is(sqlstate::INSUFFICIENT_PRIVILEGE));
    let Some(lift) = rows.lift_policies().filter(|_| refused) else {
        return compared;
    };
    template.drain().await;
    database.drain().await;
    let lifted = both(
        template.execute(lift, &rows.label),
        database.execute(lift, &rows.label),
    );
    let again = match lifted.await {
        Ok(_) => rows::compare(template, database, rows, commits, own).await,
        // The first error has the reason.
        Err(_) => compared,
    };
    template.drain().await;
    database.drain().await;
    let rolled_back = both(
        template.execute("ROLLBACK", &rows.label),
        database.execute("ROLLBACK", &rows.label),
    );
    rolled_back.await?;
    again
}

async fn tables_to_compare(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
    scope: &Scope,
) -> Result<Vec<RowQueries>, PgError> {
    let (one, other): (Tables, Tables) =
        both(tables::read(template), tables::read(database)).await?;
    let mut rows = Vec::new();
    for (name, table) in &one {
        let Some(now) = other.get(name) else { continue };
        let included = match scope {
            Scope::Everything => true,
            Scope::Suspects(suspects) => suspects.tables.contains(name) || table.file != now.file,
        };
        if included {
            rows.push(RowQueries::of(name, table, now));
        }
    }
    if scope.large_objects() {
        rows.push(RowQueries::large_objects());
    }
    Ok(rows)
}

/// Whether the server records when transactions were committed.
///
/// # Errors
/// The server cannot be used.
pub async fn tracks_commit_times(session: &mut ComparisonSession) -> Result<bool, PgError> {
    let sql = "SELECT current_setting('track_commit_timestamp')::bool AS on";
    let on = |row: &PgRow| row.try_get("on");
    let found = session.rows(sql, &"the settings", on).await?;
    Ok(found.first() == Some(&true))
}

/// Sequences that both databases have, with different last values; at most [`MAX_OBJECTS`].
async fn sequences(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
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
    Ok(moved.take(MAX_OBJECTS).collect())
}
