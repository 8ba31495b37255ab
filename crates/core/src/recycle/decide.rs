//! Decides from the evidence whether a clone can be reset, and how. Pure. Doubt is a reason to drop the clone.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, FIRST_NORMAL_OID, TouchedState};
use crate::protocol::{Baseline, Oid, Profile, Reason, ResetMethod, SequenceState, Tuples};

/// Above this number of written rows, deleting them costs more than `TRUNCATE`.
const MANY_ROWS: i64 = 1000;
/// Above this number of written rows, dropping the clone costs less than cleaning it.
const TOO_MANY_ROWS: i64 = 50_000;
/// The oid of `pg_class`.
const PG_CLASS: Oid = 1259;

/// What moved since the baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Users' relations, with the rows inserted, updated and deleted since.
    pub relations: BTreeMap<Oid, Tuples>,
    /// Sequences that were read or advanced.
    pub sequences: BTreeSet<Oid>,
    /// Whether `pg_class` moved, as TRUNCATE does.
    pub class: bool,
}

/// How to reset a clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The tables, by oid.
    pub tables: Vec<TableReset>,
    /// TOAST relations of these tables whose counters may move.
    pub toast: BTreeSet<Oid>,
    /// Sequences and their state in the template.
    pub sequences: Vec<(Oid, SequenceState)>,
    /// Quoted names of tables that the test truncated: the planner takes them for ten pages until they are vacuumed.
    pub truncated: Vec<String>,
}

/// How to reset a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableReset {
    /// The table.
    pub oid: Oid,
    /// Its quoted name.
    pub name: String,
    /// Whether it holds rows in the template, so that only younger ones are removed.
    pub reference: bool,
    /// Whether to truncate it.
    pub truncate: bool,
}

/// Compares the evidence with the baseline.
///
/// # Errors
/// The reason to drop the clone.
pub fn moved(baseline: &Baseline, now: &Evidence) -> Result<Moved, Reason> {
    if now.backends != 1 {
        return Err(Reason::Sessions);
    }
    if now.resets != baseline.seen.resets || now.sessions < baseline.seen.sessions {
        return Err(Reason::CountersReset);
    }
    let mut moved = Moved::default();
    let oids: BTreeSet<Oid> = baseline
        .counters
        .keys()
        .chain(now.counters.keys())
        .copied()
        .collect();
    for oid in oids {
        let growth = growth(counts(&baseline.counters, oid), counts(&now.counters, oid))?;
        if growth == [0; 3] {
            continue;
        }
        match oid {
            PG_CLASS if growth[0] == 0 && growth[2] == 0 => moved.class = true,
            oid if oid < FIRST_NORMAL_OID => return Err(Reason::Catalog),
            oid => drop(moved.relations.insert(oid, growth)),
        }
    }
    for (oid, blocks) in &now.sequences {
        let before = baseline.sequences.get(oid).copied().unwrap_or(0);
        if *blocks < before {
            return Err(Reason::CountersReset);
        }
        if *blocks > before {
            moved.sequences.insert(*oid);
        }
    }
    if baseline
        .sequences
        .keys()
        .any(|oid| !now.sequences.contains_key(oid))
    {
        return Err(Reason::CountersReset);
    }
    Ok(moved)
}

fn counts(counters: &BTreeMap<Oid, Tuples>, oid: Oid) -> Tuples {
    counters.get(&oid).copied().unwrap_or([0; 3])
}

fn growth(before: Tuples, now: Tuples) -> Result<Tuples, Reason> {
    let growth = [0, 1, 2].map(|at| now[at] - before[at]);
    if growth.iter().any(|growth| *growth < 0) {
        return Err(Reason::CountersReset);
    }
    Ok(growth)
}

/// Makes the plan.
///
/// # Errors
/// The reason to drop the clone.
pub fn decide(
    moved: &Moved,
    touched: &TouchedState,
    profile: &Profile,
    method: ResetMethod,
) -> Result<Plan, Reason> {
    if let Some(reason) = profile.unfit {
        return Err(reason);
    }
    check_class(moved, touched, profile)?;
    let mut plan = Plan {
        truncated: touched.truncated.clone(),
        ..Plan::default()
    };
    for (oid, growth) in &moved.relations {
        let relation = touched.relations.get(oid).ok_or(Reason::Catalog)?;
        match (relation.kind.as_str(), relation.toast_of) {
            ("t", Some(table)) if moved.relations.contains_key(&table) => {
                plan.toast.insert(*oid);
            }
            ("r", _) => plan
                .tables
                .push(table_reset(*oid, *growth, moved, touched, profile, method)?),
            _ => return Err(Reason::Catalog),
        }
    }
    // A truncated table may not be referenced by one that is not.
    loop {
        let truncated: BTreeSet<Oid> = plan
            .tables
            .iter()
            .filter(|t| t.truncate)
            .map(|t| t.oid)
            .collect();
        let alone = |table: &&mut TableReset| {
            let by = &touched.relations[&table.oid].referenced_by;
            table.truncate && !by.is_subset(&truncated)
        };
        let Some(table) = plan.tables.iter_mut().find(alone) else {
            break;
        };
        if written(moved.relations[&table.oid]) > MANY_ROWS {
            return Err(Reason::ManyRows);
        }
        table.truncate = false;
    }
    for oid in &moved.sequences {
        let relation = touched.relations.get(oid).ok_or(Reason::Catalog)?;
        let start = relation.start.ok_or(Reason::Catalog)?;
        let state = profile.sequences.get(oid).copied();
        plan.sequences.push((
            *oid,
            state.unwrap_or(SequenceState {
                last: start,
                called: false,
            }),
        ));
    }
    Ok(plan)
}

/// TRUNCATE, VACUUM and REINDEX may have moved `pg_class`, but not what the schema is; and none may have emptied a relation that holds rows.
fn check_class(moved: &Moved, touched: &TouchedState, profile: &Profile) -> Result<(), Reason> {
    if !moved.class {
        return Ok(());
    }
    let (hash, filled) = touched.class.as_ref().ok_or(Reason::Catalog)?;
    if *hash != profile.class {
        return Err(Reason::Catalog);
    }
    for (oid, wanted) in &profile.filled {
        let unmoved = !moved.relations.contains_key(oid);
        let [heap, toast] = *filled.get(oid).ok_or(Reason::ReferenceRows)?;
        if heap < wanted.heap
            || toast < wanted.toast
            || (unmoved && [heap, toast] != [wanted.heap, wanted.toast])
        {
            return Err(Reason::ReferenceRows);
        }
    }
    Ok(())
}

/// Contents that no counter explains were written by a session that did not count (`SET track_counts = off`), or by other means.
///
/// # Errors
/// The reason to drop the clone.
pub fn check_contents(moved: &Moved, now: &Evidence, profile: &Profile) -> Result<(), Reason> {
    let explained =
        |oid: &Oid| moved.relations.contains_key(oid) || profile.filled.contains_key(oid);
    if now.nonempty.iter().all(explained) {
        Ok(())
    } else {
        Err(Reason::HiddenWrite)
    }
}

fn table_reset(
    oid: Oid,
    growth: Tuples,
    moved: &Moved,
    touched: &TouchedState,
    profile: &Profile,
    method: ResetMethod,
) -> Result<TableReset, Reason> {
    let relation = &touched.relations[&oid];
    if relation.always_fires {
        return Err(Reason::AlwaysFires);
    }
    let reference = profile.filled.contains_key(&oid);
    let [_, updated, deleted] = growth;
    if reference && (updated > 0 || deleted > 0 || moved.class && written(growth) > MANY_ROWS) {
        return Err(Reason::ReferenceRows);
    }
    let rows = written(growth);
    if rows > TOO_MANY_ROWS || (reference && rows > MANY_ROWS) {
        return Err(Reason::ManyRows);
    }
    Ok(TableReset {
        oid,
        name: relation.name.clone(),
        reference,
        truncate: !reference && (method == ResetMethod::Truncate || rows > MANY_ROWS),
    })
}

/// Row versions written to a table.
fn written([inserted, updated, _]: Tuples) -> i64 {
    inserted.saturating_add(updated)
}
