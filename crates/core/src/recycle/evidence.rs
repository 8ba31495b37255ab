//! Reads the evidence: what the server counted. Nothing is read in a transaction that began before (`stats_fetch_consistency` is `none`, so a second read
//! does not repeat the first), and everything after a flush that had a message of its own: `pg_stat_force_next_flush()` takes effect at the end of its
//! message (tried on 15 and 18).
//!
//! The statements are simple on purpose. The session is often a test's own, in which nearly every function, operator and catalog is used for the first
//! time: that costs more than the work itself.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Error as Sqlx;

use super::Stop;
use super::decide::Plan;
use super::session::{TextRow, TextSession, number, text};
use crate::protocol::{Baseline, Oid, Profile, Reason, Seen, Tuples};

/// The oid of `pg_class`.
pub(super) const PG_CLASS: Oid = 1259;

/// Reads whether the test's session counted, restores the session's own role and the settings that the cleaning relies on, reads the same again and whether
/// the role is a superuser, and flushes the counters.
const PREPARE: &str = "SELECT pg_catalog.current_setting('track_counts'), ''; \
   SET client_min_messages = error; RESET SESSION AUTHORIZATION; RESET ALL; \
   SET client_min_messages = error; SET search_path = pg_catalog, pg_temp; SET statement_timeout = '10s'; SET lock_timeout = '2s'; \
   SET row_security = off; SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'; \
   SET synchronous_commit = off; SET stats_fetch_consistency = none; SET idle_in_transaction_session_timeout = 0; \
   SELECT pg_catalog.current_setting('track_counts'), pg_catalog.current_setting('is_superuser'), pg_catalog.pg_stat_force_next_flush()";

/// How often to check whether the session is alone. Backends of closed connections take a millisecond to end, an autovacuum worker takes up to some
/// ten, which is less than a new clone costs.
const QUIET_CHECKS: u32 = 120;
/// The number of these checks that do not sleep.
const BUSY_CHECKS: u32 = 20;

/// The columns of `pg_class` that only a change of the schema moves. TRUNCATE, VACUUM and REINDEX move others.
const CLASS_HASH: &str = "(SELECT md5(string_agg(k::text, ' ')) FROM (SELECT oid, relname, relnamespace, reltype, reloftype, relowner, relam, reltablespace, \
     reltoastrelid, relhasindex, relisshared, relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relhassubclass, \
     relrowsecurity, relforcerowsecurity, relispopulated, relreplident, relispartition, relacl, reloptions, relpartbound \
     FROM pg_class ORDER BY oid) k)";

/// The evidence at one time.
///
/// It covers the relations of the template and `pg_class`. The rows written to all relations show whether others were written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Counters of relations, unless all are 0.
    pub counters: BTreeMap<Oid, Tuples>,
    /// Blocks read of sequences, unless 0.
    pub sequences: BTreeMap<Oid, i64>,
    /// Tables and materialized views of users with contents, if the role may see that.
    pub nonempty: BTreeSet<Oid>,
    /// Backends on the database, this one included.
    pub backends: i64,
    /// Sessions that the database has had.
    pub sessions: i64,
    /// Rows written to all relations of the database, as the server adds them up.
    pub tuples: Tuples,
    /// When the counters were reset.
    pub resets: String,
    /// The next transaction id.
    pub xid: u64,
    /// Whether the session is in a transaction: what that did is not counted before it ends.
    pub in_transaction: bool,
}

/// By how much counters changed, for each relation of which they did. A negative number means that the server lost counters.
pub(super) fn growths(
    before: &BTreeMap<Oid, Tuples>,
    after: &BTreeMap<Oid, Tuples>,
) -> impl Iterator<Item = (Oid, Tuples)> {
    let oids: BTreeSet<Oid> = before.keys().chain(after.keys()).copied().collect();
    let counts =
        |counters: &BTreeMap<Oid, Tuples>, oid| counters.get(&oid).copied().unwrap_or_default();
    let growth = move |oid| (oid, difference(counts(after, oid), counts(before, oid)));
    oids.into_iter()
        .map(growth)
        .filter(|(_, growth)| *growth != [0; 3])
}

pub(super) fn difference(of: Tuples, minus: Tuples) -> Tuples {
    [0, 1, 2].map(|at| of[at] - minus[at])
}

impl Evidence {
    /// The baseline that this evidence makes after one more use. What only other databases see stays as it was in `last`.
    pub fn baseline(self, last: &Baseline) -> Baseline {
        Baseline {
            database: last.database,
            counters: self.counters,
            sequences: self.sequences,
            seen: Seen {
                sessions: self.sessions,
                tuples: self.tuples,
                resets: self.resets,
                row: last.seen.row.clone(),
                template: last.seen.template,
            },
            xid: self.xid,
            uses: last.uses + 1,
        }
    }
}

/// What is known about the schema if `pg_class` moved, as TRUNCATE does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassState {
    /// The hash of `pg_class`.
    pub hash: String,
    /// Sizes of the relations that hold rows in the template: heap and TOAST.
    pub filled: BTreeMap<Oid, [i64; 2]>,
    /// Tables that were truncated and not vacuumed since.
    pub truncated: BTreeSet<Oid>,
}

/// Sizes after a reset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of all tables that must be empty, and of their TOAST relations.
    pub emptied: i64,
    /// Reference tables: heap, TOAST and indexes in bytes, and the number of rows.
    pub reference: BTreeMap<Oid, [i64; 4]>,
}

impl Sizes {
    /// Whether tables have pages that another VACUUM may return.
    pub(super) fn are_too_large(&self, profile: &Profile) -> bool {
        let is_too_large = |(oid, [heap, ..]): (&Oid, &[i64; 4])| {
            let wanted = profile.relations.get(oid).and_then(|table| table.filled);
            wanted.is_some_and(|wanted| *heap > wanted.heap)
        };
        self.emptied > 0 || self.reference.iter().any(is_too_large)
    }
}

/// Prepares the session and flushes its counters. Returns whether its role is a superuser.
pub(super) async fn prepare(session: &mut dyn TextSession) -> Result<bool, Stop> {
    let rows = session.texts(PREPARE).await?;
    let [before, after] = &rows[..] else {
        return Err(Sqlx::RowNotFound.into());
    };
    if text(before, 0)? != "on" || text(after, 0)? != "on" {
        return Err(Reason::NotCounted.into());
    }
    Ok(text(after, 1)? == "on")
}

/// Reads the evidence once the session is alone on the database, or after a moment.
pub(super) async fn read_when_alone(
    session: &mut dyn TextSession,
    database: Oid,
    profile: &Profile,
    superuser: bool,
) -> Result<Evidence, Sqlx> {
    let mut sql = counters(database, profile);
    if superuser {
        sql.push_str(&contents(profile));
    }
    for check in 0.. {
        let evidence = parse(&session.texts(&sql).await?)?;
        if evidence.backends <= 1 || check == QUIET_CHECKS {
            return Ok(evidence);
        }
        if check > BUSY_CHECKS {
            // Not tokio's clock: a test may have stopped it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        } else {
            std::thread::yield_now();
        }
    }
    unreachable!("the loop ends by returning")
}

/// Reads the evidence after a reset, and the sizes of what was reset.
pub(super) async fn read_after(
    session: &mut dyn TextSession,
    database: Oid,
    plan: &Plan,
    profile: &Profile,
) -> Result<(Evidence, Sizes), Sqlx> {
    let sql = counters(database, profile) + &sizes_of(plan, profile);
    let rows = session.texts(&sql).await?;
    Ok((parse(&rows)?, parse_sizes(&rows)?))
}

/// The statements that read all counters. What the server reports about the database comes first: a session that visits while the rest is read is then not
/// in its number of sessions, and is noticed by a later comparison of that number (tests/model/lease, `count_first`).
fn counters(database: Oid, profile: &Profile) -> String {
    let tables = profile.relations.iter();
    let relations = tables.flat_map(|(oid, relation)| [Some(*oid), relation.toast]);
    let relations = oids([PG_CLASS].into_iter().chain(relations.flatten()));
    let sequences = oids(profile.sequences.keys().copied());
    format!(
        "SELECT pg_stat_get_db_sessions({database}), pg_stat_get_db_numbackends({database}), pg_stat_get_db_tuples_inserted({database}), \
           pg_stat_get_db_tuples_updated({database}), pg_stat_get_db_tuples_deleted({database}), pg_snapshot_xmax(pg_current_snapshot()), \
           extract(epoch FROM pg_stat_get_db_stat_reset_time({database})), extract(epoch FROM w.stats_reset), \
           transaction_timestamp() <> statement_timestamp() FROM pg_stat_get_wal() w; \
         SELECT o, pg_stat_get_tuples_inserted(o), pg_stat_get_tuples_updated(o), pg_stat_get_tuples_deleted(o) FROM {relations} o \
           WHERE pg_stat_get_tuples_inserted(o) + pg_stat_get_tuples_updated(o) + pg_stat_get_tuples_deleted(o) > 0; \
         SELECT o, pg_stat_get_blocks_fetched(o) FROM {sequences} o WHERE pg_stat_get_blocks_fetched(o) > 0; "
    )
}

/// The statement that reads which tables and materialized views have contents. Only a superuser may read the sizes of files.
fn contents(profile: &Profile) -> String {
    let tables = oids(profile.relations.keys().copied());
    format!("SELECT o FROM {tables} o WHERE (pg_stat_file(pg_relation_filepath(o), true)).size > 0")
}

/// A set of rows with these oids. A scan of `pg_class` would cost its planner more than the functions cost.
fn oids(oids: impl Iterator<Item = Oid>) -> String {
    let list: Vec<String> = oids.map(|oid| oid.to_string()).collect();
    format!("unnest('{{{}}}'::oid[])", list.join(","))
}

/// The number of columns tells the statements apart.
fn parse(rows: &[TextRow]) -> Result<Evidence, Sqlx> {
    let mut evidence = Evidence::default();
    for row in rows {
        match row.len() {
            9 => {
                evidence.sessions = number(row, 0)?;
                evidence.backends = number(row, 1)?;
                evidence.tuples = [number(row, 2)?, number(row, 3)?, number(row, 4)?];
                evidence.xid = number(row, 5)?;
                evidence.resets = resets(row.get(6), row.get(7));
                evidence.in_transaction = text(row, 8)? == "t";
            }
            4 => {
                let counts = [number(row, 1)?, number(row, 2)?, number(row, 3)?];
                evidence.counters.insert(number(row, 0)?, counts);
            }
            2 => drop(evidence.sequences.insert(number(row, 0)?, number(row, 1)?)),
            1 => drop(evidence.nonempty.insert(number(row, 0)?)),
            _ => {}
        }
    }
    Ok(evidence)
}

/// As `concat_ws` does it for other databases.
fn resets(database: Option<&Option<String>>, wal: Option<&Option<String>>) -> String {
    let times: Vec<&str> = [database, wal]
        .into_iter()
        .filter_map(|time| time?.as_deref())
        .collect();
    times.join(" ")
}

/// Reads what only matters if `pg_class` moved.
pub(super) async fn class_state(
    session: &mut dyn TextSession,
    profile: &Profile,
) -> Result<ClassState, Sqlx> {
    let filled: Vec<String> = profile
        .filled()
        .map(|(oid, _)| oid.to_string())
        .chain(["0".to_owned()])
        .collect();
    let sql = format!(
        "SELECT {CLASS_HASH}, '', ''; SELECT c.oid FROM pg_class c WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.reltuples < 0; \
         SELECT c.oid, pg_relation_size(c.oid), coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0), '' FROM pg_class c WHERE c.oid IN ({})",
        filled.join(",")
    );
    let mut state = ClassState::default();
    for row in session.texts(&sql).await? {
        match row.len() {
            3 => text(&row, 0)?.clone_into(&mut state.hash),
            1 => drop(state.truncated.insert(number(&row, 0)?)),
            _ => drop(
                state
                    .filled
                    .insert(number(&row, 0)?, [number(&row, 1)?, number(&row, 2)?]),
            ),
        }
    }
    Ok(state)
}

/// The sizes of the tables of a plan: one row of one number for those that must be empty, in ten columns, and one row per reference table in eleven.
fn sizes_of(plan: &Plan, profile: &Profile) -> String {
    let toast = |oid: &Oid| {
        profile
            .relations
            .get(oid)
            .and_then(|relation| relation.toast)
    };
    // Of the file, because the cache has no entry for most TOAST relations yet, and after VACUUM none for tables.
    let size = |oid: Oid| format!("(pg_stat_file(pg_relation_filepath({oid}))).size");
    let emptied = plan.tables.iter().filter(|table| !table.reference);
    let emptied: Vec<String> = emptied
        .flat_map(|table| [Some(table.oid), toast(&table.oid)])
        .flatten()
        .map(size)
        .collect();
    let mut sql = format!(
        "SELECT {}, 0, 0, 0, 0, 0, 0, 0, 0, 0",
        if emptied.is_empty() {
            "0".to_owned()
        } else {
            emptied.join(" + ")
        }
    );
    for table in plan.tables.iter().filter(|table| table.reference) {
        let oid = table.oid;
        let toast = toast(&oid).map_or("0".to_owned(), size);
        sql.push_str(&format!(
            "; SELECT {oid}, pg_relation_size({oid}), {toast}, pg_indexes_size({oid}), (SELECT count(*) FROM ONLY {}), 0, 0, 0, 0, 0, 0",
            table.name
        ));
    }
    sql
}

fn parse_sizes(rows: &[TextRow]) -> Result<Sizes, Sqlx> {
    let mut sizes = Sizes::default();
    for row in rows {
        match row.len() {
            10 => sizes.emptied = number(row, 0)?,
            11 => {
                let numbers = [
                    number(row, 1)?,
                    number(row, 2)?,
                    number(row, 3)?,
                    number(row, 4)?,
                ];
                sizes.reference.insert(number(row, 0)?, numbers);
            }
            _ => {}
        }
    }
    Ok(sizes)
}

/// Reads a hash of `pg_class`.
pub(super) async fn class_hash(session: &mut dyn TextSession) -> Result<String, Sqlx> {
    let rows = session.texts(&format!("SELECT {CLASS_HASH}")).await?;
    rows.first().map_or(Err(Sqlx::RowNotFound), |row| {
        text(row, 0).map(str::to_owned)
    })
}
