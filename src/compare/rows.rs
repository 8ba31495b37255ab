//! The rows of a table: sums first, then hashes, then the values of a few rows that differ. However large the table is, only a
//! bounded number of hashes and values is in memory here; the server sorts.

use futures_util::future::try_join;
use futures_util::{Stream, TryStreamExt};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::difference::{ChangedValue, RowDifference, TableDifference, Value, cut};
use super::session::{Digest, Session, both};
use super::tables::{Rows, json};
use super::{MOST_CHARACTERS, MOST_ROWS};
use crate::pg::PgError;
use crate::pg::error::Doing;

/// Most rows that differ whose hashes are kept: from them those are chosen that are told.
const MOST_IDS: usize = 1000;

/// Compares a table's rows; `None` where they are the same.
///
/// # Errors
/// A failed statement.
pub(super) async fn compare(
    template: &mut Session,
    database: &mut Session,
    rows: &Rows,
    commits: bool,
) -> Result<Option<TableDifference>, PgError> {
    if sums_agree(template, database, rows).await? {
        return Ok(None);
    }
    let sql = rows.digests();
    let merged = merge(
        template.digests(&sql),
        database.digests(&sql),
        !rows.key.is_empty(),
    );
    let merged = merged
        .await
        .doing(|| format!("compare the rows of {}", rows.label))?;
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
    let mut told = Vec::new();
    for row in read(database, rows, added, of_added).await? {
        let times = added.times(row.id);
        let values = row.values(rows);
        told.push(RowDifference::Added { values, times });
    }
    for row in read(template, rows, removed, of_removed).await? {
        let times = removed.times(row.id);
        let values = row.values(rows);
        told.push(RowDifference::Removed { values, times });
    }
    let (before, after) = both(
        read(template, rows, changed, of_changed),
        read(database, rows, changed, of_changed),
    )
    .await?;
    for row in &before {
        if let Some(now) = after.iter().find(|now| now.id == row.id) {
            told.push(row.changes(now, rows));
        }
    }
    Ok(Some(TableDifference {
        table: rows.label.clone(),
        added: added.total,
        removed: removed.total,
        changed: changed.total,
        rows: told,
        commits,
    }))
}

async fn sums_agree(
    template: &mut Session,
    database: &mut Session,
    rows: &Rows,
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

/// Rows that differ in one way: all are counted, some are known by their hash.
#[derive(Debug, Default, PartialEq, Eq)]
struct Side {
    total: u64,
    ids: Vec<(i64, u64)>,
}

impl Side {
    fn count(&mut self, id: i64, times: u64) {
        self.total += times;
        if self.ids.len() < MOST_IDS {
            self.ids.push((id, times));
        }
    }

    fn times(&self, id: i64) -> u64 {
        let found = self.ids.iter().find(|(other, _)| *other == id);
        found.map_or(1, |(_, times)| *times)
    }

    fn knows_all(&self) -> bool {
        self.ids.iter().map(|(_, times)| times).sum::<u64>() == self.total
    }

    fn hashes(&self) -> Vec<i64> {
        self.ids.iter().map(|(id, _)| *id).collect()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Merged {
    added: Side,
    removed: Side,
    changed: Side,
}

/// Walks through both sides' hashes at once, sorted as they come.
async fn merge(
    template: impl Stream<Item = sqlx::Result<Digest>> + Unpin,
    database: impl Stream<Item = sqlx::Result<Digest>> + Unpin,
    by_key: bool,
) -> sqlx::Result<Merged> {
    let (mut template, mut database) = (template, database);
    let mut merged = Merged::default();
    let (mut one, mut other) = try_join(template.try_next(), database.try_next()).await?;
    let times = |count: i64| {
        if by_key { 1 } else { count.unsigned_abs() }
    };
    loop {
        let (in_template, in_database) = match (one, other) {
            (None, None) => return Ok(merged),
            (Some(a), Some(b)) if a.0 == b.0 => {
                if a.1 == b.1 {
                } else if by_key {
                    merged.changed.count(a.0, 1);
                } else if a.1 < b.1 {
                    merged.added.count(a.0, times(b.1 - a.1));
                } else {
                    merged.removed.count(a.0, times(a.1 - b.1));
                }
                (true, true)
            }
            (Some(a), b) if b.is_none_or(|b| a.0 < b.0) => {
                merged.removed.count(a.0, times(a.1));
                (true, false)
            }
            (_, Some(b)) => {
                merged.added.count(b.0, times(b.1));
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

/// How many rows of each kind are told: the rarer ones first, so that none is crowded out.
fn quotas(totals: [u64; 3]) -> [u64; 3] {
    let mut order = [0, 1, 2];
    order.sort_by_key(|i| totals[*i]);
    let (mut left, mut quotas) = (MOST_ROWS, [0; 3]);
    for (i, kinds) in order.into_iter().zip([3, 2, 1]) {
        quotas[i] = totals[i].min(left / kinds);
        left -= quotas[i];
    }
    quotas
}

/// A row as it is told.
struct ReadRow {
    id: i64,
    shown: Vec<Option<String>>,
    hashes: Vec<Option<i64>>,
}

impl ReadRow {
    fn value(&self, i: usize) -> Option<String> {
        let text = self.shown.get(i)?.as_deref()?;
        Some(cut(text, MOST_CHARACTERS))
    }

    fn values(&self, rows: &Rows) -> Vec<Value> {
        self.some_values(rows, 0..rows.columns.len())
    }

    fn some_values(&self, rows: &Rows, which: impl Iterator<Item = usize>) -> Vec<Value> {
        which
            .map(|i| Value {
                column: rows.columns[i].clone(),
                value: self.value(i),
            })
            .collect()
    }

    fn changes(&self, now: &Self, rows: &Rows) -> RowDifference {
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
    session: &mut Session,
    rows: &Rows,
    side: &Side,
    most: u64,
) -> Result<Vec<ReadRow>, PgError> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let sql = rows.values(&side.hashes(), most, MOST_CHARACTERS);
    let read = |row: &PgRow| {
        Ok(ReadRow {
            id: row.try_get("id")?,
            shown: json(row, "shown")?,
            hashes: json(row, "hashes")?,
        })
    };
    session.rows(&sql, &rows.label, read).await
}

/// When the transactions committed that wrote these rows; `None` where one of them is not known.
async fn commit_times(
    session: &mut Session,
    rows: &Rows,
    sides: [&Side; 2],
) -> Result<Option<Vec<f64>>, PgError> {
    if !sides.iter().all(|side| side.knows_all()) {
        return Ok(None);
    }
    let ids: Vec<i64> = sides.iter().flat_map(|side| side.hashes()).collect();
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

    proptest! {
        #[test]
        fn what_differs_is_what_a_map_says(
            template in proptest::collection::btree_map(0..40i64, 1..4i64, 0..30),
            database in proptest::collection::btree_map(0..40i64, 1..4i64, 0..30),
            by_key: bool,
        ) {
            let list = |rows: &BTreeMap<i64, i64>| rows.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>();
            let found = merged(&list(&template), &list(&database), by_key);
            let mut expected = Merged::default();
            for id in 0..40 {
                let pair = (template.get(&id).copied(), database.get(&id).copied());
                match pair {
                    (Some(a), Some(b)) if a != b && by_key => expected.changed.count(id, 1),
                    (Some(_), Some(_)) if by_key => {}
                    (Some(_), None) if by_key => expected.removed.count(id, 1),
                    (None, Some(_)) if by_key => expected.added.count(id, 1),
                    (a, b) => match b.unwrap_or(0) - a.unwrap_or(0) {
                        0 => {}
                        n if n > 0 => expected.added.count(id, n.unsigned_abs()),
                        n => expected.removed.count(id, n.unsigned_abs()),
                    },
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_kind_is_crowded_out(totals in proptest::array::uniform3(0..100u64)) {
            let quotas = quotas(totals);
            let all: u64 = totals.iter().sum();
            prop_assert_eq!(quotas.iter().sum::<u64>(), all.min(MOST_ROWS));
            for (total, quota) in totals.into_iter().zip(quotas) {
                prop_assert!(quota <= total && (total == 0 || quota > 0));
            }
        }
    }
}
