//! Reads the evidence: what the server counted. Everything is read outside a transaction, because a second read within one repeats the first, and
//! after a flush that had a message of its own: `pg_stat_force_next_flush()` takes effect at the end of its message (tried on 15 and 18).

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Error as Sqlx;

use super::decide::{Moved, Plan};
use super::session::{TextRow, TextSession, number, text};
use crate::protocol::{Baseline, Oid, Profile, Reason, Seen, Tuples};

/// Relations with a lower oid are part of the system: they exist in every database (`FirstNormalObjectId`).
pub(super) const FIRST_NORMAL_OID: Oid = 16384;

/// Whether the test's session counted; then settings that the work relies on, the rights of the session's own role (the test may have set another), and
/// the flush.
const PREPARE: &str = "SELECT pg_catalog.current_setting('track_counts'), '', ''; \
   SET client_min_messages = error; RESET SESSION AUTHORIZATION; RESET ALL; \
   SET client_min_messages = error; SET search_path = pg_catalog, pg_temp; SET statement_timeout = '10s'; SET lock_timeout = '2s'; \
   SET row_security = off; SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'; \
   SET synchronous_commit = off; SET stats_fetch_consistency = none; SET idle_in_transaction_session_timeout = 0; \
   SELECT pg_catalog.current_setting('track_counts'), \
     pg_catalog.has_parameter_privilege('session_replication_role', 'SET')::pg_catalog.text, pg_catalog.current_setting('is_superuser'); \
   SELECT pg_catalog.pg_stat_force_next_flush()::pg_catalog.text";

/// The evidence. Kinds of rows: `r` counters of a relation, `S` a sequence that was used, `d` the database.
///
/// The row of the database comes first: a session that visits while the rest is read is then not in its number of sessions, and is noticed by a later
/// comparison of that number (tests/model/lease, `count_first`).
const READ: &str = "SELECT 'd', pg_stat_get_db_sessions(d.oid)::text, pg_stat_get_db_numbackends(d.oid)::text, pg_snapshot_xmax(pg_current_snapshot())::text, \
       concat_ws(' ', extract(epoch FROM pg_stat_get_db_stat_reset_time(d.oid)), (SELECT extract(epoch FROM stats_reset) FROM pg_stat_wal)), \
       concat_ws(' ', pg_stat_get_db_tuples_inserted(d.oid), pg_stat_get_db_tuples_updated(d.oid), pg_stat_get_db_tuples_deleted(d.oid)) \
     FROM pg_database d WHERE d.datname = current_database() \
   UNION ALL SELECT 'r', c.oid::text, i::text, u::text, d::text, '' \
     FROM pg_class c, LATERAL (SELECT pg_stat_get_tuples_inserted(c.oid) i, pg_stat_get_tuples_updated(c.oid) u, pg_stat_get_tuples_deleted(c.oid) d) n \
     WHERE c.relkind IN ('r', 't', 'm') AND NOT c.relisshared AND i + u + d > 0 \
   UNION ALL SELECT 'S', c.oid::text, pg_stat_get_blocks_fetched(c.oid)::text, '', '', '' \
     FROM pg_class c WHERE c.relkind = 'S' AND pg_stat_get_blocks_fetched(c.oid) > 0";

/// In addition, for a superuser: `z` tables and materialized views with contents.
const CONTENTS: &str = " UNION ALL SELECT 'z', c.oid::text, '', '', '', '' FROM pg_class c \
     WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND (pg_stat_file(pg_relation_filepath(c.oid), true)).size > 0";

/// The number of backends of any kind on this database, and whether the session is in a transaction: what that did is not counted before it ends.
const BACKENDS: &str = "SELECT pg_catalog.pg_stat_get_db_numbackends(d.oid)::pg_catalog.text, \
     (pg_catalog.transaction_timestamp() <> pg_catalog.statement_timestamp())::pg_catalog.text FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// How often to check whether the session is alone; backends of closed connections take a millisecond to end.
const QUIET_CHECKS: u32 = 40;

/// The columns of `pg_class` that only a change of the schema moves. TRUNCATE, VACUUM and REINDEX move others.
const CLASS_HASH: &str = "(SELECT md5(string_agg(k::text, ' ')) FROM (SELECT oid, relname, relnamespace, reltype, reloftype, relowner, relam, reltablespace, \
     reltoastrelid, relhasindex, relisshared, relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relhassubclass, \
     relrowsecurity, relforcerowsecurity, relispopulated, relreplident, relispartition, relacl, reloptions, relpartbound \
     FROM pg_class ORDER BY oid) k)";

/// The evidence at one time.
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
    /// Rows written to all relations.
    pub tuples: Tuples,
    /// When the counters were reset.
    pub resets: String,
    /// The next transaction id.
    pub xid: u64,
}

impl Evidence {
    /// The baseline that this evidence makes. What only other databases see stays as it was in `last`.
    pub fn baseline(self, last: &Baseline) -> Baseline {
        Baseline {
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
            uses: last.uses,
        }
    }
}

/// A relation that moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relation {
    /// Its quoted name.
    pub name: String,
    /// `relkind`.
    pub kind: String,
    /// The table whose TOAST relation it is.
    pub toast_of: Option<Oid>,
    /// Whether a rule or trigger fires also while `session_replication_role` is `replica`.
    pub always_fires: bool,
    /// The start of a sequence.
    pub start: Option<i64>,
    /// Other tables with a foreign key to it.
    pub referenced_by: BTreeSet<Oid>,
}

/// What is known about the relations that moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TouchedState {
    /// The relations.
    pub relations: BTreeMap<Oid, Relation>,
    /// If `pg_class` moved: its hash, and the sizes of all relations that hold rows in the template.
    pub class: Option<(String, BTreeMap<Oid, [i64; 2]>)>,
    /// If `pg_class` moved: quoted names of users' tables that were truncated and not vacuumed since.
    pub truncated: Vec<String>,
}

/// Sizes after a reset: heap, TOAST, indexes, and the number of rows of a reference table.
pub type Sizes = BTreeMap<Oid, [i64; 4]>;

/// What the session's role may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    /// Set `session_replication_role`, which a reset needs.
    pub reset: bool,
    /// Read the sizes of files. Who may not do that cannot turn off the counters either.
    pub files: bool,
}

/// Prepares the session, waits until it is alone, and flushes its counters.
pub(super) async fn prepare(session: &mut dyn TextSession) -> Result<Result<Rights, Reason>, Sqlx> {
    if let Err(reason) = wait_until_alone(session).await? {
        return Ok(Err(reason));
    }
    let rows = session.texts(PREPARE).await?;
    let settings: Vec<&TextRow> = rows.iter().filter(|row| row.len() == 3).collect();
    let [before, after] = settings[..] else {
        return Err(Sqlx::RowNotFound);
    };
    let counted = text(before, 0)? == "on" && text(after, 0)? == "on";
    Ok(if counted {
        Ok(Rights {
            reset: text(after, 1)? == "true",
            files: text(after, 2)? == "on",
        })
    } else {
        Err(Reason::NotCounted)
    })
}

async fn wait_until_alone(session: &mut dyn TextSession) -> Result<Result<(), Reason>, Sqlx> {
    for check in 0..QUIET_CHECKS {
        let rows = session.texts(BACKENDS).await?;
        let row = rows.first().ok_or(Sqlx::RowNotFound)?;
        if text(row, 1)? == "true" {
            return Ok(Err(Reason::NotCounted));
        }
        if number::<i64>(row, 0)? <= 1 {
            return Ok(Ok(()));
        }
        if check > QUIET_CHECKS / 2 {
            // Not tokio's clock: a test may have stopped it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        } else {
            std::thread::yield_now();
        }
    }
    Ok(Err(Reason::Sessions))
}

/// Reads the evidence.
pub(super) async fn read(session: &mut dyn TextSession, rights: Rights) -> Result<Evidence, Sqlx> {
    let mut evidence = Evidence::default();
    let contents = if rights.files { CONTENTS } else { "" };
    for row in session.texts(&format!("{READ}{contents}")).await? {
        match text(&row, 0)? {
            "r" => {
                let counts = [number(&row, 2)?, number(&row, 3)?, number(&row, 4)?];
                evidence.counters.insert(number(&row, 1)?, counts);
            }
            "S" => drop(
                evidence
                    .sequences
                    .insert(number(&row, 1)?, number(&row, 2)?),
            ),
            "z" => drop(evidence.nonempty.insert(number(&row, 1)?)),
            _ => {
                evidence.sessions = number(&row, 1)?;
                evidence.backends = number(&row, 2)?;
                evidence.xid = number(&row, 3)?;
                text(&row, 4)?.clone_into(&mut evidence.resets);
                evidence.tuples = tuples(text(&row, 5)?)?;
            }
        }
    }
    Ok(evidence)
}

fn tuples(text: &str) -> Result<Tuples, Sqlx> {
    let numbers: Vec<i64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
    <Tuples>::try_from(numbers)
        .map_err(|_| Sqlx::Protocol(format!("`{text}` is not three numbers")))
}

/// Reads what the decision needs to know about the relations that moved.
pub(super) async fn touched(
    session: &mut dyn TextSession,
    moved: &Moved,
    profile: &Profile,
) -> Result<TouchedState, Sqlx> {
    let oids: Vec<String> = moved
        .relations
        .keys()
        .chain(&moved.sequences)
        // None moves when an empty table is truncated.
        .chain([&0])
        .map(Oid::to_string)
        .collect();
    let mut sql = format!(
        "SELECT 'r', c.oid::text, format('%I.%I', n.nspname, c.relname), c.relkind::text, coalesce(p.oid, 0)::text, \
           (EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('A', 'R')) \
             OR EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled IN ('A', 'R')))::text, \
           coalesce(q.seqstart, 0)::text, \
           coalesce((SELECT string_agg(k.conrelid::text, ' ') FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid AND k.conrelid <> c.oid), '') \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class p ON p.reltoastrelid = c.oid AND c.relkind = 't' \
           LEFT JOIN pg_sequence q ON q.seqrelid = c.oid WHERE c.oid IN ({})",
        oids.join(",")
    );
    if moved.class {
        let filled: Vec<String> = profile
            .filled
            .keys()
            .chain([&0])
            .map(Oid::to_string)
            .collect();
        sql.push_str(&format!(
            "; SELECT 'h', {CLASS_HASH}; SELECT 'f', c.oid::text, pg_relation_size(c.oid)::text, \
               coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)::text FROM pg_class c WHERE c.oid IN ({}); \
             SELECT 't', format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind = 'r' AND c.oid >= 16384 AND c.reltuples < 0",
            filled.join(",")
        ));
    }
    let mut state = TouchedState::default();
    let (mut hash, mut filled) = (String::new(), BTreeMap::new());
    for row in session.texts(&sql).await? {
        match text(&row, 0)? {
            "r" => drop(state.relations.insert(number(&row, 1)?, relation(&row)?)),
            "h" => text(&row, 1)?.clone_into(&mut hash),
            "t" => state.truncated.push(text(&row, 1)?.to_owned()),
            _ => drop(filled.insert(number(&row, 1)?, [number(&row, 2)?, number(&row, 3)?])),
        }
    }
    state.class = moved.class.then_some((hash, filled));
    Ok(state)
}

fn relation(row: &TextRow) -> Result<Relation, Sqlx> {
    let kind = text(row, 3)?.to_owned();
    let parent: Oid = number(row, 4)?;
    Ok(Relation {
        name: text(row, 2)?.to_owned(),
        toast_of: (parent != 0).then_some(parent),
        always_fires: text(row, 5)? == "true",
        start: if kind == "S" {
            Some(number(row, 6)?)
        } else {
            None
        },
        referenced_by: text(row, 7)?
            .split(' ')
            .filter_map(|oid| oid.parse().ok())
            .collect(),
        kind,
    })
}

/// Reads the sizes of the tables of a plan.
pub(super) async fn sizes(session: &mut dyn TextSession, plan: &Plan) -> Result<Sizes, Sqlx> {
    if plan.tables.is_empty() {
        return Ok(Sizes::new());
    }
    let query = |table: &super::TableReset| {
        let rows = if table.reference {
            format!("(SELECT count(*) FROM ONLY {})", table.name)
        } else {
            "0".to_owned()
        };
        let oid = table.oid;
        format!(
            "SELECT '{oid}', pg_relation_size({oid})::text, coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)::text, \
               pg_indexes_size({oid})::text, {rows}::text FROM pg_class c WHERE c.oid = {oid}"
        )
    };
    let sql: Vec<String> = plan.tables.iter().map(query).collect();
    let rows = session.texts(&sql.join(" UNION ALL ")).await?;
    let read = |row: &TextRow| {
        Ok((
            number(row, 0)?,
            [
                number(row, 1)?,
                number(row, 2)?,
                number(row, 3)?,
                number(row, 4)?,
            ],
        ))
    };
    rows.iter().map(read).collect()
}

/// Reads a hash of `pg_class`.
pub(super) async fn class_hash(session: &mut dyn TextSession) -> Result<String, Sqlx> {
    let rows = session.texts(&format!("SELECT {CLASS_HASH}")).await?;
    rows.first().map_or(Err(Sqlx::RowNotFound), |row| {
        text(row, 0).map(str::to_owned)
    })
}
