//! Compares the rows of a table: sums first, then hashes, then the values of a few rows that differ. For tables of any size, only a limited
//! number of hashes and values is in memory here; the server sorts.

use futures_util::future::try_join;
use futures_util::{Stream, TryStreamExt};
use sqlx::Row;
use sqlx::postgres::PgRow;

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::error::Context;
use kapsel_testdb_core::pg::session::{DATABASE_LIMIT, within};

use crate::compare::difference::{ChangedValue, RowDifference, TableDifference, Value, truncate};
use crate::compare::own::OwnRows;
use crate::compare::session::{ComparisonSession, Digest, both};
use crate::compare::tables::{RowQueries, json};
use crate::compare::{MAX_ROWS, MAX_VALUE_CHARS};

/// Maximum number of differing rows whose hashes are stored; the listed rows are chosen from them.
const MAX_IDS: usize = 1000;

/// Compares a table's rows; `None` if they are equal.
///
/// # Errors
/// A failed statement.
pub(super) async fn compare(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
    rows: &RowQueries,
    commits: bool,
    own: &OwnRows,
) -> Result<Option<TableDifference>, PgError> {
    if sums_agree(template, database, rows).await? {
        return Ok(None);
    }
    let (sql, sql_with_own) = (rows.digests(&OwnRows::default()), rows.digests(own));
    let server = database.server();
    let context = || format!("compare the rows of {}", rows.label);
    let merged = merge(
        template.digests(&sql),
        database.digests(&sql_with_own),
        !rows.key.is_empty(),
    );
    let merged = async { merged.await.context(context) };
    let merged = within(DATABASE_LIMIT, &server, context, merged).await?;
    if merged == Merged::default() {
        return Ok(None);
    }
    let Merged {
        added,
        removed,
        changed,
    } = &merged;
    let commits = match commits && removed.total == 0 {
        true => commit_times(database, rows, [added, changed]).await?,
        false => None,
    };
    let [of_added, of_removed, of_changed] = quotas([added.total, removed.total, changed.total]);
    let mut listed = Vec::new();
    for row in read(database, rows, added, of_added).await? {
        let count = added.count_of(row.id);
        let values = row.values(rows);
        listed.push(RowDifference::Added { values, count });
    }
    for row in read(template, rows, removed, of_removed).await? {
        let count = removed.count_of(row.id);
        let values = row.values(rows);
        listed.push(RowDifference::Removed { values, count });
    }
    let (before, after) = both(
        read(template, rows, changed, of_changed),
        read(database, rows, changed, of_changed),
    )
    .await?;
    for row in &before {
        if let Some(now) = after.iter().find(|now| now.id == row.id) {
            listed.push(row.changes(now, rows));
        }
    }
    Ok(Some(TableDifference {
        table: rows.label.clone(),
        added: added.total,
        removed: removed.total,
        changed: changed.total,
        rows: listed,
        commits,
    }))
}

async fn sums_agree(
    template: &mut ComparisonSession,
    database: &mut ComparisonSession,
    rows: &RowQueries,
) -> Result<bool, PgError> {
    let sql = rows.sum();
    let sum = |row: &PgRow| Ok((row.try_get("rows")?, row.try_get("sum")?));
    let (one, other) = both(
        template.rows::<(i64, String)>(&sql, &rows.label, sum),
        database.rows::<(i64, String)>(&sql, &rows.label, sum),
    )
    .await?;
    Ok(one == other)
}

/// Rows that differ in one way: all are counted, the hashes of some are stored.
#[derive(Debug, Default, PartialEq, Eq)]
struct DifferingRows {
    total: u64,
    ids: Vec<(i64, u64)>,
}

impl DifferingRows {
    fn add(&mut self, id: i64, count: u64) {
        if count == 0 {
            return;
        }
        self.total += count;
        if self.ids.len() < MAX_IDS {
            self.ids.push((id, count));
        }
    }

    fn count_of(&self, id: i64) -> u64 {
        let found = self.ids.iter().find(|(other, _)| *other == id);
        found.map_or(1, |(_, count)| *count)
    }

    fn is_complete(&self) -> bool {
        self.ids.iter().map(|(_, count)| count).sum::<u64>() == self.total
    }

    fn hashes(&self) -> Vec<i64> {
        self.ids.iter().map(|(id, _)| *id).collect()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Merged {
    added: DifferingRows,
    removed: DifferingRows,
    changed: DifferingRows,
}

/// Merges the sorted hashes of both databases. Added rows that are own rows of tests do not count.
async fn merge(
    template: impl Stream<Item = sqlx::Result<Digest>> + Unpin,
    database: impl Stream<Item = sqlx::Result<Digest>> + Unpin,
    by_key: bool,
) -> sqlx::Result<Merged> {
    let (mut template, mut database) = (template, database);
    let mut merged = Merged::default();
    let (mut one, mut other) = try_join(template.try_next(), database.try_next()).await?;
    let rows = |count: i64| {
        if by_key { 1 } else { count.unsigned_abs() }
    };
    let foreign = |count: u64, own: i64| count.saturating_sub(own.unsigned_abs());
    loop {
        let (in_template, in_database) = match (one, other) {
            (None, None) => return Ok(merged),
            (Some(a), Some(b)) if a.0 == b.0 => {
                if a.1 == b.1 {
                } else if by_key {
                    merged.changed.add(a.0, 1);
                } else if a.1 < b.1 {
                    merged.added.add(a.0, foreign(rows(b.1 - a.1), b.2));
                } else {
                    merged.removed.add(a.0, rows(a.1 - b.1));
                }
                (true, true)
            }
            (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                merged.removed.add(a.0, rows(a.1));
                (true, false)
            }
            (_, Some(b)) => {
                merged.added.add(b.0, foreign(rows(b.1), b.2));
                (false, true)
            }
            (Some(_), None) => (true, false),
        };
        if in_template {
            one = template.try_next().await?;
        }
        if in_database {
            other = database.try_next().await?;
        }
    }
}

/// Number of listed rows of each kind. Rarer kinds come first, so that every kind is listed.
fn quotas(totals: [u64; 3]) -> [u64; 3] {
    let mut order = [0, 1, 2];
    order.sort_by_key(|i| totals[*i]);
    let (mut left, mut quotas) = (MAX_ROWS, [0; 3]);
    for (i, kinds) in order.into_iter().zip([3, 2, 1]) {
        quotas[i] = totals[i].min(left / kinds);
        left -= quotas[i];
    }
    quotas
}

/// A row with its truncated values and their hashes.
struct ReadRow {
    id: i64,
    shown: Vec<Option<String>>,
    hashes: Vec<Option<i64>>,
}

impl ReadRow {
    fn value(&self, i: usize) -> Option<String> {
        let text = self.shown.get(i)?.as_deref()?;
        Some(truncate(text, MAX_VALUE_CHARS))
    }

    fn values(&self, rows: &RowQueries) -> Vec<Value> {
        self.some_values(rows, 0..rows.columns.len())
    }

    fn some_values(&self, rows: &RowQueries, which: impl Iterator<Item = usize>) -> Vec<Value> {
        which
            .map(|i| Value {
                column: rows.columns[i].clone(),
                value: self.value(i),
            })
            .collect()
    }

    fn changes(&self, now: &Self, rows: &RowQueries) -> RowDifference {
        let differs = |i: &usize| self.hashes.get(*i) != now.hashes.get(*i);
        let changed = (0..rows.columns.len()).filter(differs);
        let columns = changed.map(|i| ChangedValue {
            column: rows.columns[i].clone(),
            template: self.value(i),
            database: now.value(i),
        });
        RowDifference::Changed {
            key: self.some_values(rows, rows.key.iter().copied()),
            columns: columns.collect(),
        }
    }
}

async fn read(
    session: &mut ComparisonSession,
    rows: &RowQueries,
    differing: &DifferingRows,
    max: u64,
) -> Result<Vec<ReadRow>, PgError> {
    if max == 0 {
        return Ok(Vec::new());
    }
    let sql = rows.values(&differing.hashes(), max, MAX_VALUE_CHARS);
    let read = |row: &PgRow| {
        Ok(ReadRow {
            id: row.try_get("id")?,
            shown: json(row, "shown")?,
            hashes: json(row, "hashes")?,
        })
    };
    session.rows(&sql, &rows.label, read).await
}

/// Commit times of the transactions that wrote these rows; `None` if one of them is unknown.
async fn commit_times(
    session: &mut ComparisonSession,
    rows: &RowQueries,
    differing: [&DifferingRows; 2],
) -> Result<Option<Vec<f64>>, PgError> {
    if !differing.iter().all(|rows| rows.is_complete()) {
        return Ok(None);
    }
    let ids: Vec<i64> = differing.iter().flat_map(|rows| rows.hashes()).collect();
    let at = |row: &PgRow| row.try_get::<Option<f64>, _>("at");
    let times = session.rows(&rows.commits(&ids), &rows.label, at).await?;
    Ok(times.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn side(rows: &[Digest]) -> impl Stream<Item = sqlx::Result<Digest>> + Unpin + '_ {
        stream::iter(rows.iter().copied().map(Ok))
    }

    fn merged(template: &[Digest], database: &[Digest], by_key: bool) -> Merged {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .expect("a runtime")
            .block_on(merge(side(template), side(database), by_key))
            .expect("no server that could fail")
    }

    #[test]
    fn own_rows_are_not_added_but_may_be_changed() {
        let found = merged(&[(1, 5, 0)], &[(1, 6, 1), (2, 7, 1), (3, 8, 0)], true);
        assert_eq!((found.added.total, found.changed.total), (1, 1));
        let found = merged(&[(1, 2, 0)], &[(1, 5, 2), (2, 4, 4), (3, 1, 0)], false);
        assert_eq!((found.added.total, found.removed.total), (2, 0));
    }

    proptest! {
        #[test]
        fn merge_agrees_with_a_map(
            template in proptest::collection::btree_map(0..40i64, 1..4i64, 0..30),
            database in proptest::collection::btree_map(0..40i64, 1..4i64, 0..30),
            by_key: bool,
        ) {
            let list = |rows: &BTreeMap<i64, i64>| rows.iter().map(|(k, v)| (*k, *v, 0)).collect::<Vec<_>>();
            let found = merged(&list(&template), &list(&database), by_key);
            let mut expected = Merged::default();
            for id in 0..40 {
                let pair = (template.get(&id).copied(), database.get(&id).copied());
                match pair {
                    (Some(a), Some(b)) if a != b && by_key => expected.changed.add(id, 1),
                    (Some(_), Some(_)) if by_key => {}
                    (Some(_), None) if by_key => expected.removed.add(id, 1),
                    (None, Some(_)) if by_key => expected.added.add(id, 1),
                    (a, b) => match b.unwrap_or(0) - a.unwrap_or(0) {
                        0 => {}
                        n if n > 0 => expected.added.add(id, n.unsigned_abs()),
                        n => expected.removed.add(id, n.unsigned_abs()),
                    },
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn every_kind_is_listed(totals in proptest::array::uniform3(0..100u64)) {
            let quotas = quotas(totals);
            let all: u64 = totals.iter().sum();
            prop_assert_eq!(quotas.iter().sum::<u64>(), all.min(MAX_ROWS));
            for (total, quota) in totals.into_iter().zip(quotas) {
                prop_assert!(quota <= total && (total == 0 || quota > 0));
            }
        }
    }
}
