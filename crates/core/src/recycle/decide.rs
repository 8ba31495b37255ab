//! Decides from the evidence whether a clone can be reset, and how. Pure. Doubt is a reason to drop the clone.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{ClassState, Evidence, PG_CLASS, difference, growths};
use crate::protocol::{
    Baseline, Oid, Profile, Reason, Relation, ResetMethod, SequenceState, Tuples,
};

/// Above this number of written rows, deleting them costs more than `TRUNCATE`.
const MANY_ROWS: i64 = 1000;
/// Above this number of written rows, dropping the clone costs less than cleaning it.
const TOO_MANY_ROWS: i64 = 50_000;

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
    /// Quoted names of the relations to vacuum.
    pub vacuum: Vec<String>,
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
    if now.in_transaction {
        return Err(Reason::NotCounted);
    }
    if now.resets != baseline.seen.resets || now.sessions < baseline.seen.sessions {
        return Err(Reason::CountersReset);
    }
    let mut moved = Moved::default();
    let mut rest = difference(now.tuples, baseline.seen.tuples);
    for (oid, growth) in growths(&baseline.counters, &now.counters) {
        if growth.iter().any(|growth| *growth < 0) {
            return Err(Reason::CountersReset);
        }
        rest = difference(rest, growth);
        if oid != PG_CLASS {
            moved.relations.insert(oid, growth);
        } else if growth[0] == 0 && growth[2] == 0 {
            moved.class = true;
        } else {
            return Err(Reason::Catalog);
        }
    }
    // What is left was written to other relations: catalogs, or tables that are not the template's.
    if rest != [0; 3] {
        return Err(Reason::Catalog);
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

/// Makes the plan. `class` is needed if `pg_class` moved.
///
/// # Errors
/// The reason to drop the clone.
pub fn decide(
    moved: &Moved,
    class: Option<&ClassState>,
    profile: &Profile,
    method: ResetMethod,
) -> Result<Plan, Reason> {
    if let Some(reason) = profile.unfit {
        return Err(reason);
    }
    let mut plan = Plan::default();
    let mut truncated = BTreeSet::new();
    if moved.class {
        let class = class.ok_or(Reason::Catalog)?;
        check_class(moved, class, profile)?;
        truncated.clone_from(&class.truncated);
    }
    for (oid, growth) in &moved.relations {
        if let Some(table) = table_of_toast(profile, *oid) {
            if !moved.relations.contains_key(&table) {
                // A TRUNCATE makes the counters of the table forget rows of its own transaction: those written before it, or, if it is rolled back,
                // those written after it. The counters of the TOAST relation keep them.
                if !moved.class {
                    return Err(Reason::Catalog);
                }
                truncated.insert(table);
            }
            plan.toast.insert(*oid);
        } else {
            plan.tables
                .push(table_reset(*oid, *growth, moved, profile, method)?);
        }
    }
    let written = |oid: &Oid| written(moved.relations[oid]);
    keep_references(&mut plan, profile, &written)?;
    plan.vacuum = vacuum(&plan, truncated, profile)?;
    for oid in &moved.sequences {
        let state = profile.sequences.get(oid).ok_or(Reason::Catalog)?;
        plan.sequences.push((*oid, *state));
    }
    Ok(plan)
}

/// The table of a TOAST relation.
fn table_of_toast(profile: &Profile, toast: Oid) -> Option<Oid> {
    let mut relations = profile.relations.iter();
    let found = relations.find(|(_, relation)| relation.toast == Some(toast));
    found.map(|(oid, _)| *oid)
}

fn relation(profile: &Profile, oid: Oid) -> Result<&Relation, Reason> {
    profile.relations.get(&oid).ok_or(Reason::Catalog)
}

/// The relations to vacuum: what is reset, and what the test truncated, because the planner takes that for ten pages until then. A TOAST relation costs as
/// much as a table, and is left out if nothing happened to it.
fn vacuum(
    plan: &Plan,
    mut truncated: BTreeSet<Oid>,
    profile: &Profile,
) -> Result<Vec<String>, Reason> {
    let reset = plan.tables.iter().filter(|table| table.truncate);
    truncated.extend(reset.map(|table| table.oid));
    let oids: BTreeSet<Oid> = plan.tables.iter().map(|table| table.oid).collect();
    let mut names = Vec::new();
    for oid in oids.union(&truncated) {
        let relation = relation(profile, *oid)?;
        names.push(relation.name.clone());
        let toast = |toast| truncated.contains(oid) || plan.toast.contains(&toast);
        if relation.toast.is_some_and(toast) {
            names.push(format!("pg_toast.pg_toast_{oid}"));
        }
    }
    Ok(names)
}

/// A truncated table may not be referenced by one that is not: rows are deleted from it instead, if they are few.
fn keep_references(
    plan: &mut Plan,
    profile: &Profile,
    written: &dyn Fn(&Oid) -> i64,
) -> Result<(), Reason> {
    loop {
        let truncated = plan.tables.iter().filter(|table| table.truncate);
        let truncated: BTreeSet<Oid> = truncated.map(|table| table.oid).collect();
        let alone = |table: &&mut TableReset| {
            let by = &profile.relations[&table.oid].referenced_by;
            table.truncate && !by.is_subset(&truncated)
        };
        let Some(table) = plan.tables.iter_mut().find(alone) else {
            return Ok(());
        };
        if written(&table.oid) > MANY_ROWS {
            return Err(Reason::ManyRows);
        }
        table.truncate = false;
    }
}

/// TRUNCATE, VACUUM and REINDEX may have moved `pg_class`, but not what the schema is; and none may have emptied a relation that holds rows.
fn check_class(moved: &Moved, class: &ClassState, profile: &Profile) -> Result<(), Reason> {
    if class.hash != profile.class {
        return Err(Reason::Catalog);
    }
    for (oid, wanted) in profile.filled() {
        let unmoved = !moved.relations.contains_key(&oid);
        let [heap, toast] = *class.filled.get(&oid).ok_or(Reason::ReferenceRows)?;
        if heap < wanted.heap
            || toast < wanted.toast
            || (unmoved && [heap, toast] != [wanted.heap, wanted.toast])
        {
            return Err(Reason::ReferenceRows);
        }
    }
    Ok(())
}

/// Checks that counters explain all contents. A session that does not count (`SET track_counts = off`) writes without them.
///
/// # Errors
/// The reason to drop the clone.
pub fn check_contents(moved: &Moved, now: &Evidence, profile: &Profile) -> Result<(), Reason> {
    let explained = |oid: &Oid| moved.relations.contains_key(oid) || profile.is_filled(*oid);
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
    profile: &Profile,
    method: ResetMethod,
) -> Result<TableReset, Reason> {
    let relation = relation(profile, oid)?;
    if relation.view {
        return Err(Reason::Catalog);
    }
    if relation.always_fires {
        return Err(Reason::AlwaysFires);
    }
    let reference = relation.filled.is_some();
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
