//! Reads the profile of a template at the end of its build: what a reset of its clones must leave.

use std::collections::BTreeSet;

use sqlx::Error as Sqlx;

use super::evidence::class_hash;
use super::session::{TextRow, TextSession, number, text};
use crate::protocol::{Filled, Oid, Profile, Reason, Relation, SequenceState};

/// Tables and materialized views of users: oid, name, kind, TOAST relation, whether a rule or trigger fires always, tables that reference it, and
/// sizes of heap, TOAST and indexes.
const RELATIONS: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind, c.reltoastrelid, \
     EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('A', 'R')) \
       OR EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled IN ('A', 'R')), \
     coalesce((SELECT string_agg(k.conrelid::int8::text, ' ') FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid AND k.conrelid <> c.oid), ''), \
     pg_relation_size(c.oid), coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0), pg_indexes_size(c.oid) \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
   WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND c.relpersistence <> 't'";

/// Quoted names of all sequences.
const SEQUENCES: &str = "SELECT q.seqrelid, format('%I.%I', n.nspname, c.relname) \
   FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1";

/// What makes clones unfit: something that writes without counting.
const UNFIT: &str = "SELECT (EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_surgery') \
     OR EXISTS (SELECT FROM pg_proc WHERE array_to_string(proconfig, ' ') LIKE '%track\\_counts%' OR prosrc LIKE '%track\\_counts%' AND oid >= 16384) \
     OR EXISTS (SELECT FROM pg_db_role_setting WHERE array_to_string(setconfig, ' ') LIKE '%track\\_counts%'))";

/// How many sequences one query reads.
const BATCH: usize = 100;

/// Tables and materialized views: oid, file, name, whether they are partitioned, whether a session has written to them, whether they hold rows and are
/// users', and their parents.
const TABLES: &str = "SELECT c.oid, c.relfilenode, format('%I.%I', n.nspname, c.relname), c.relkind = 'p', \
     pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0, \
     c.oid >= 16384 AND c.relkind <> 'p' AND pg_relation_size(c.oid) > 0, \
     coalesce((SELECT string_agg(i.inhparent::int8::text, ' ') FROM pg_inherits i WHERE i.inhrelid = c.oid), '') \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared";

/// The tables of a database with the numbers of their files, as they were when the database was created as a copy of a template.
#[derive(Debug)]
pub struct Files(BTreeSet<(Oid, Oid)>);

/// A table that may have to be vacuumed.
struct Table {
    oid: Oid,
    file: Oid,
    name: String,
    is_partitioned: bool,
    is_written: bool,
    is_filled: bool,
    parents: Vec<Oid>,
}

impl Files {
    /// Reads them, if the server counts what is written to them from now on.
    ///
    /// # Errors
    /// A statement failed.
    pub async fn of_copy(session: &mut dyn TextSession) -> Result<Option<Self>, Sqlx> {
        let counts = session
            .texts("SELECT 1 WHERE current_setting('track_counts')::bool")
            .await?;
        if counts.is_empty() {
            return Ok(None);
        }
        let tables = tables(session).await?;
        Ok(Some(Self(tables.iter().map(|t| (t.oid, t.file)).collect())))
    }

    /// Whether a table is new or has another file, or a session has written to it.
    fn is_changed(&self, table: &Table) -> bool {
        table.is_written || !self.0.contains(&(table.oid, table.file))
    }
}

async fn tables(session: &mut dyn TextSession) -> Result<Vec<Table>, Sqlx> {
    let rows = session.texts(TABLES).await?;
    let read = |row: &TextRow| {
        Ok(Table {
            oid: number(row, 0)?,
            file: number(row, 1)?,
            name: text(row, 2)?.to_owned(),
            is_partitioned: text(row, 3)? == "t",
            is_written: text(row, 4)? == "t",
            is_filled: text(row, 5)? == "t",
            parents: text(row, 6)?.split(' ').flat_map(str::parse).collect(),
        })
    };
    rows.iter().map(read).collect()
}

/// Vacuums a template, at the end of its build: clones start with frozen and analyzed rows. Tables with rows are written anew, without holes: only then
/// the sizes of a clone that was reset can be compared with them. The server leaves out tables of other roles.
///
/// `copied`: the tables of the template that this one was copied from, which were vacuumed then. Only what has changed since is vacuumed.
///
/// # Errors
/// A statement failed.
pub async fn vacuum(session: &mut dyn TextSession, copied: Option<&Files>) -> Result<(), Sqlx> {
    if copied.is_some() {
        // The counters are complete at the end of this statement.
        session.texts("SELECT pg_stat_force_next_flush()").await?;
    }
    let mut tables = tables(session).await?;
    if let Some(copied) = copied {
        let mut changed: BTreeSet<Oid> = BTreeSet::new();
        let mut found: Vec<Oid> = tables
            .iter()
            .filter(|table| copied.is_changed(table))
            .map(|table| table.oid)
            .collect();
        // A parent has statistics of its children.
        while let Some(oid) = found.pop() {
            if changed.insert(oid) {
                let parents = tables.iter().filter(|table| table.oid == oid);
                found.extend(parents.flat_map(|table| &table.parents));
            }
        }
        tables.retain(|table| changed.contains(&table.oid));
    }
    let names = |of: &dyn Fn(&&Table) -> bool| {
        let tables = tables.iter().filter(of);
        tables
            .map(|t| t.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let filled = names(&|table| table.is_filled && !table.is_partitioned);
    if !filled.is_empty() {
        let sql = format!("VACUUM (FULL, FREEZE) {filled}");
        session.texts(&sql).await?;
    }
    let rest = match copied {
        Some(_) => names(&|_| true),
        None => String::new(),
    };
    if copied.is_some() && rest.is_empty() {
        return Ok(());
    }
    let sql = format!("VACUUM (FREEZE, ANALYZE) {rest}");
    session.texts(&sql).await.map(drop)
}

/// Reads the profile of the database that the session is connected to.
///
/// # Errors
/// A statement failed.
pub async fn read(session: &mut dyn TextSession) -> Result<Profile, Sqlx> {
    session
        .texts("SET search_path = pg_catalog; SET row_security = off")
        .await?;
    let own = session
        .texts("SELECT oid FROM pg_database WHERE datname = current_database()")
        .await?;
    let mut profile = Profile {
        template: own
            .first()
            .map_or(Err(Sqlx::RowNotFound), |row| number(row, 0))?,
        class: class_hash(session).await?,
        ..Profile::default()
    };
    for row in session.texts(RELATIONS).await? {
        let relation = read_relation(session, &row).await?;
        profile.relations.insert(number(&row, 0)?, relation);
    }
    let sequences = session.texts(SEQUENCES).await?;
    for batch in sequences.chunks(BATCH) {
        read_sequences(session, batch, &mut profile).await?;
    }
    let unfit = session.texts(UNFIT).await?;
    if unfit
        .first()
        .is_none_or(|row| row.first() != Some(&Some("f".to_owned())))
    {
        profile.unfit = Some(Reason::NotCounted);
    }
    Ok(profile)
}

async fn read_relation(session: &mut dyn TextSession, row: &TextRow) -> Result<Relation, Sqlx> {
    let name = text(row, 1)?;
    let toast: Oid = number(row, 3)?;
    let heap: i64 = number(row, 6)?;
    let filled = if heap > 0 {
        Some(Filled {
            rows: count(session, name).await?,
            heap,
            toast: number(row, 7)?,
            indexes: number(row, 8)?,
        })
    } else {
        None
    };
    let referenced_by = text(row, 5)?.split(' ').filter_map(|oid| oid.parse().ok());
    Ok(Relation {
        name: name.to_owned(),
        view: text(row, 2)? == "m",
        toast: Some(toast).filter(|oid| *oid != 0),
        always_fires: text(row, 4)? == "t",
        referenced_by: referenced_by.collect(),
        filled,
    })
}

async fn count(session: &mut dyn TextSession, name: &str) -> Result<i64, Sqlx> {
    let rows = session
        .texts(&format!("SELECT count(*) FROM ONLY {name}"))
        .await?;
    rows.first()
        .map_or(Err(Sqlx::RowNotFound), |row| number(row, 0))
}

/// Adds the states of sequences.
async fn read_sequences(
    session: &mut dyn TextSession,
    batch: &[TextRow],
    profile: &mut Profile,
) -> Result<(), Sqlx> {
    let mut queries = Vec::new();
    for row in batch {
        let (oid, name) = (text(row, 0)?, text(row, 1)?);
        queries.push(format!("SELECT {oid}, last_value, is_called FROM {name}"));
    }
    for row in session.texts(&queries.join(" UNION ALL ")).await? {
        let state = SequenceState {
            last: number(&row, 1)?,
            called: text(&row, 2)? == "t",
        };
        profile.sequences.insert(number(&row, 0)?, state);
    }
    Ok(())
}
