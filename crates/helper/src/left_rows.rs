//! The rows that a failed test left in its clone, for the test's output: how many rows of which tables were added, changed and removed since the
//! test claimed the clone.
//!
//! The helper connects to the clone and ends the test's sessions, as keeping the database does anyway. Then the server's counters are complete, and
//! no lock is in the way. A row that the test wrote has a younger transaction than the clone. Whether it is new or changed follows from the number of
//! rows in the template and from the counters, which include rolled-back work. If both are possible, the table shows a range.
//!
//! Nothing is written. A crash leaves what the crash of a failed test leaves.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use kapsel_testdb_core::pg::connect::{RetryLimits, connect, quiet};
use kapsel_testdb_core::plural;
use kapsel_testdb_core::protocol::{Baseline, Claim, DbName, Oid, Profile, RunFile, Tuples};
use kapsel_testdb_core::recycle::{TextRow, TextSession};

use crate::background;
use crate::session::Session;

/// How long the output of a failed test may wait for the rows.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait for the test's sessions to end.
const SESSIONS_TIMEOUT: Duration = Duration::from_millis(500);
/// The maximum number of listed tables.
const MAX_TABLES: usize = 10;
/// The maximum number of characters of a listed name: the table fits 60 columns.
const MAX_NAME_CHARS: usize = 30;
/// Sessions of older servers end before their counters are complete.
const MIN_SERVER_VERSION: u32 = 150_000;

const PREPARE: &str = "SET search_path = pg_catalog; SET statement_timeout = '1s'; SET lock_timeout = '200ms'; SET row_security = off; \
     SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
       AND pg_has_role(usesysid, 'USAGE') AND backend_type IN ('client backend', 'walsender')";

const OTHER_SESSIONS: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
     AND backend_type IN ('client backend', 'walsender')";

/// Users' tables: their names, the oldest transaction that may have written a row of the test, the number of rows when the table was vacuumed, the
/// size, and the counters.
const TABLES: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relfrozenxid, c.reltuples::int8, \
     coalesce(pg_relation_size(c.oid), 0), pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid) \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
   WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND c.relpersistence <> 't'";

/// The tables whose rows differ from those of the template, those with the most rows first.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftRows(Vec<TableRows>);

/// The rows of a table that differ from those of the template.
#[derive(Debug, PartialEq, Eq)]
struct TableRows {
    name: String,
    added: Count,
    changed: Count,
    removed: Count,
}

/// A number of rows, between these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count(i64, i64);

/// What is known about a table of the clone.
#[derive(Debug)]
struct Table {
    oid: Oid,
    name: String,
    frozen: u64,
    vacuumed_rows: i64,
    size: i64,
    counters: Tuples,
}

/// The rows of a table.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// Those that were there when the test claimed the clone.
    old: i64,
    /// Those that the test wrote.
    new: i64,
}

/// Describes the rows that the test left in its clone, with a line feed before each line, and ends the test's sessions.
pub fn describe(session: &Session, claim: &Claim) -> String {
    match read(session, claim) {
        Ok(None) => String::new(),
        Ok(Some(LeftRows(tables))) if tables.is_empty() => {
            "\nits tables have the same rows as before the test".to_owned()
        }
        Ok(Some(rows)) => format!("\nrows that the test left in it:{rows}"),
        Err(error) => format!("\ncounting the rows that the test left in it failed: {error}"),
    }
}

/// `None`: the server is too old.
fn read(session: &Session, claim: &Claim) -> Result<Option<LeftRows>, String> {
    let clone = FailedClone {
        file: session.file.clone(),
        name: claim.name.clone(),
        origin: origin(session, claim),
    };
    let reading = async move {
        let read = tokio::time::timeout(TIMEOUT, clone.read()).await;
        let late = || Err(format!("timed out after {} s", TIMEOUT.as_secs()));
        Ok(read.unwrap_or_else(|_| late()))
    };
    let read = background::run_blocking(reading);
    read.unwrap_or_else(|error| Err(error.to_string()))
}

/// What the clone was like when the test claimed it, if that is recorded.
fn origin(session: &Session, claim: &Claim) -> Option<(Baseline, Profile)> {
    let baseline = claim.baseline()?;
    let profile = session.dir().profile()?;
    (profile.template == baseline.seen.template).then_some((baseline, profile))
}

/// The clone of a failed test.
struct FailedClone {
    file: RunFile,
    name: DbName,
    origin: Option<(Baseline, Profile)>,
}

impl FailedClone {
    async fn read(self) -> Result<Option<LeftRows>, String> {
        let address = self.file.admin_address();
        let options = quiet(address.options(&self.name.to_string()));
        let options = options.application_name("kapsel-testdb failed test");
        let connected = connect(address, &options, RetryLimits::RUNNING).await;
        let mut connection = connected.map_err(|error| error.to_string())?;
        if connection.server_version_num() < Some(MIN_SERVER_VERSION) {
            return Ok(None);
        }
        let found = self.rows(&mut connection).await;
        // If this fails, the server ends the session when it is dropped.
        let _ = connection.close().await;
        found.map(Some).map_err(|error| error.to_string())
    }

    async fn rows(&self, connection: &mut PgConnection) -> sqlx::Result<LeftRows> {
        connection.texts(PREPARE).await?;
        let begun = Instant::now();
        while !connection.texts(OTHER_SESSIONS).await?.is_empty()
            && begun.elapsed() < SESSIONS_TIMEOUT
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut found = Vec::new();
        for row in connection.texts(TABLES).await? {
            let table = Table::parse(&row).ok_or(sqlx::Error::RowNotFound)?;
            let growth = self.growth(&table);
            let before = self.rows_before(&table);
            let was_emptied = table.size == 0 && before.is_some_and(|rows| rows > 0);
            if growth == [0; 3] && !was_emptied {
                continue;
            }
            let rows = count(connection, &table, self.first_transaction(&table)).await;
            found.push(TableRows::new(table.name, before, rows, growth));
        }
        found.retain(|table| !table.is_unchanged());
        found.sort_by(|one, other| {
            let order = other.size().cmp(&one.size());
            order.then_with(|| one.name.cmp(&other.name))
        });
        Ok(LeftRows(found))
    }

    /// How many rows the test has inserted, updated and deleted, also in transactions that were rolled back.
    fn growth(&self, table: &Table) -> Tuples {
        let counters = |(baseline, _): &(Baseline, _)| baseline.counters.get(&table.oid).copied();
        let before = self.origin.as_ref().and_then(counters).unwrap_or_default();
        [0, 1, 2].map(|at| table.counters[at] - before[at])
    }

    /// The number of rows in the template.
    fn rows_before(&self, table: &Table) -> Option<i64> {
        match &self.origin {
            Some((_, profile)) => {
                let relation = profile.relations.get(&table.oid);
                let filled = relation.and_then(|relation| relation.filled);
                Some(filled.map_or(0, |filled| filled.rows))
            }
            // The build of a template vacuums it last, which counts the rows. Negative: the test has truncated the table since.
            None => Some(table.vacuumed_rows).filter(|rows| *rows >= 0),
        }
    }

    /// Rows of this transaction or a younger one are the test's.
    fn first_transaction(&self, table: &Table) -> u64 {
        let recorded = self.origin.as_ref().map(|(baseline, _)| baseline.xid);
        recorded.unwrap_or(table.frozen)
    }
}

/// Counts the rows of a table; `None` if the role may not, or if they are too many.
async fn count(connection: &mut PgConnection, table: &Table, first: u64) -> Option<Rows> {
    // The system column has 32 bits; `age` compares them with the current transaction, modulo 2^32.
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE age(xmin) <= age('{}'::xid)) FROM ONLY {}",
        first & 0xffff_ffff,
        table.name
    );
    let rows = connection.texts(&sql).await.ok()?;
    let number = |at: usize| number(rows.first()?, at);
    let (all, new) = (number(0)?, number(1)?);
    Some(Rows {
        old: all - new,
        new,
    })
}

impl Table {
    fn parse(row: &TextRow) -> Option<Self> {
        let number = |at| number(row, at);
        Some(Self {
            oid: row.first()?.as_ref()?.parse().ok()?,
            name: row.get(1)?.clone()?,
            frozen: u64::try_from(number(2)?).ok()?,
            vacuumed_rows: number(3)?,
            size: number(4)?,
            counters: [number(5)?, number(6)?, number(7)?],
        })
    }
}

fn number(row: &TextRow, at: usize) -> Option<i64> {
    row.get(at)?.as_ref()?.parse().ok()
}

impl TableRows {
    /// From the number of rows before the test, those that are there now, and the counters of inserted, updated and deleted rows.
    fn new(
        name: String,
        before: Option<i64>,
        now: Option<Rows>,
        [inserted, updated, deleted]: Tuples,
    ) -> Self {
        let table = |added, changed, removed| Self {
            name,
            added,
            changed,
            removed,
        };
        let Some(Rows { old, new }) = now else {
            return table(Count(0, inserted), Count(0, updated), Count(0, deleted));
        };
        let Some(gone) = before.map(|before| (before - old).max(0)) else {
            let (least, most) = ((new - inserted).max(0), new.min(updated));
            let changed = Count(least.min(most), most);
            return table(changed.subtracted_from(new), changed, Count(0, deleted));
        };
        // Of the old rows that are gone, some were changed and the others removed; of the new ones, the same were changed and the others added.
        let least = 0.max(new - inserted).max(gone - deleted);
        let most = new.min(gone).min(updated);
        let changed = if least <= most {
            Count(least, most)
        } else {
            // TRUNCATE is not counted.
            Count(0, 0)
        };
        table(
            changed.subtracted_from(new),
            changed,
            changed.subtracted_from(gone),
        )
    }

    fn is_unchanged(&self) -> bool {
        self.size() == 0
    }

    fn size(&self) -> i64 {
        self.added.1 + self.changed.1 + self.removed.1
    }
}

impl Count {
    fn subtracted_from(self, whole: i64) -> Self {
        Self(whole - self.1, whole - self.0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self(0, 0) => "-".to_owned(),
            Self(least, most) if least == most => most.to_string(),
            Self(least, most) => format!("{least}–{most}"),
        })
    }
}

/// A table for people, with a line feed before each of its lines.
impl fmt::Display for LeftRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.0.iter().take(MAX_TABLES);
        let listed: Vec<_> = listed.map(|table| (shorten(&table.name), table)).collect();
        let names = listed.iter().map(|(name, _)| name.chars().count());
        let width = names.max().unwrap_or(0).max("table".len());
        let (added, changed, removed) = ("added", "changed", "removed");
        write!(
            f,
            "\n  {:width$}  {added:>7}  {changed:>7}  {removed:>7}",
            "table"
        )?;
        for (name, table) in &listed {
            let TableRows {
                added,
                changed,
                removed,
                ..
            } = table;
            write!(
                f,
                "\n  {name:width$}  {added:>7}  {changed:>7}  {removed:>7}"
            )?;
        }
        match self.0.len() - listed.len() {
            0 => Ok(()),
            n => write!(f, "\n  and {}", plural::count(n, "more table")),
        }
    }
}

/// The name on one line, with at most [`MAX_NAME_CHARS`] characters: its beginning and its end.
fn shorten(name: &str) -> String {
    let name: Vec<char> = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if name.len() <= MAX_NAME_CHARS {
        return name.into_iter().collect();
    }
    let half = MAX_NAME_CHARS / 2;
    let (start, end) = (
        &name[..half],
        &name[name.len() - (MAX_NAME_CHARS - half - 1)..],
    );
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(before: i64, now: (i64, i64), counters: Tuples) -> [(i64, i64); 3] {
        let (old, new) = now;
        let now = Some(Rows { old, new });
        let table = TableRows::new("t".to_owned(), Some(before), now, counters);
        [table.added, table.changed, table.removed].map(|Count(least, most)| (least, most))
    }

    fn exactly(numbers: [i64; 3]) -> [(i64, i64); 3] {
        numbers.map(|n| (n, n))
    }

    #[test]
    fn without_rollbacks_the_numbers_are_exact() {
        assert_eq!(rows(0, (0, 3), [3, 0, 0]), exactly([3, 0, 0]));
        assert_eq!(rows(0, (0, 1), [3, 5, 2]), exactly([1, 0, 0]));
        assert_eq!(rows(9, (6, 5), [3, 2, 1]), exactly([3, 2, 1]));
        assert_eq!(rows(9, (6, 3), [0, 3, 0]), exactly([0, 3, 0]));
        assert_eq!(rows(9, (6, 0), [0, 0, 3]), exactly([0, 0, 3]));
    }

    #[test]
    fn truncated_rows_are_removed() {
        assert_eq!(rows(9, (0, 0), [0, 0, 0]), exactly([0, 0, 9]));
        assert_eq!(rows(9, (0, 2), [2, 0, 0]), exactly([2, 0, 9]));
    }

    #[test]
    fn counters_that_explain_more_than_one_answer_give_a_range() {
        // 3 rows were changed or removed, 2 are new or changed.
        assert_eq!(rows(9, (6, 2), [2, 2, 9]), [(0, 2), (0, 2), (1, 3)]);
        let unread = TableRows::new("t".to_owned(), Some(9), None, [1, 2, 3]);
        assert_eq!(
            unread,
            TableRows {
                name: "t".to_owned(),
                added: Count(0, 1),
                changed: Count(0, 2),
                removed: Count(0, 3),
            }
        );
    }

    #[test]
    fn long_names_keep_both_ends() {
        let name = format!("billing.\"{}\nend\"", "ä".repeat(60));
        let short = shorten(&name);
        assert_eq!(short.chars().count(), MAX_NAME_CHARS);
        assert!(
            short.starts_with("billing.\"ää") && short.ends_with("ä?end\""),
            "{short}"
        );
    }

    #[test]
    fn whatever_a_test_did_the_truth_is_in_the_range() {
        let all = || (0..3i64).flat_map(|one| (0..3i64).map(move |other| (one, other)));
        for ((kept, added), (changed, removed)) in
            all().flat_map(|one| all().map(move |other| (one, other)))
        {
            for (inserted_more, updated_more) in all() {
                for deleted_more in 0..3 {
                    let before = kept + changed + removed;
                    let counters = [
                        added + inserted_more,
                        changed + updated_more,
                        removed + deleted_more,
                    ];
                    let found = rows(before, (kept, added + changed), counters);
                    for ((least, most), truth) in found.into_iter().zip([added, changed, removed]) {
                        assert!(least <= truth && truth <= most, "{found:?} {counters:?}");
                    }
                }
            }
        }
    }
}
