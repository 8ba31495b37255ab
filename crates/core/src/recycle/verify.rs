//! Verifies a reset: every counter moved by exactly what the reset did, and the sizes are those of the template. Pure.

use std::collections::BTreeMap;

use super::decide::Plan;
use super::evidence::{Evidence, PG_CLASS, Sizes, difference, growths};
use crate::protocol::{Oid, Profile, Reason, Tuples};

/// The size of a page, in bytes. Servers with another one are rare, and only drop more clones.
const PAGE: i64 = 8192;

/// Checks the evidence after a reset against that before it.
///
/// # Errors
/// The reason to drop the clone.
pub fn verify(
    plan: &Plan,
    before: &Evidence,
    after: &Evidence,
    deleted: &BTreeMap<Oid, i64>,
    sizes: &Sizes,
    profile: &Profile,
) -> Result<(), Reason> {
    if after.backends != 1 || after.sessions != before.sessions {
        return Err(Reason::Sessions);
    }
    if after.resets != before.resets {
        return Err(Reason::CountersReset);
    }
    let mut rest = difference(after.tuples, before.tuples);
    for (oid, growth) in growths(&before.counters, &after.counters) {
        rest = difference(rest, growth);
        if !is_explained(plan, oid, growth, deleted) {
            return Err(Reason::Sessions);
        }
    }
    if rest != [0; 3] {
        return Err(Reason::Sessions);
    }
    if sizes.emptied != 0 {
        return Err(Reason::Residue);
    }
    for table in plan.tables.iter().filter(|table| table.reference) {
        check_size(table.oid, sizes, profile)?;
    }
    Ok(())
}

/// Whether the reset explains how the counters of a relation moved.
fn is_explained(plan: &Plan, oid: Oid, growth: Tuples, deleted: &BTreeMap<Oid, i64>) -> bool {
    if oid == PG_CLASS {
        // Each truncated relation is updated once; the hash of `pg_class` shows what changed.
        return plan.tables.iter().any(|table| table.truncate) && growth[0] == 0 && growth[2] == 0;
    }
    if plan.toast.contains(&oid) {
        return growth[0] == 0 && growth[1] == 0 && growth[2] >= 0;
    }
    let is_reset = plan
        .tables
        .iter()
        .any(|table| table.oid == oid && !table.truncate);
    is_reset && growth == [0, 0, deleted.get(&oid).copied().unwrap_or(0)]
}

/// A reference table has the template's rows and size again.
fn check_size(oid: Oid, sizes: &Sizes, profile: &Profile) -> Result<(), Reason> {
    let [heap, toast, indexes, rows] = *sizes.reference.get(&oid).ok_or(Reason::Residue)?;
    let relation = profile.relations.get(&oid).ok_or(Reason::Residue)?;
    let wanted = relation.filled.ok_or(Reason::Residue)?;
    let same = heap == wanted.heap && toast == wanted.toast && rows == wanted.rows;
    // Index files never shrink; one page more is too little to change a plan.
    if same && indexes <= wanted.indexes + PAGE {
        Ok(())
    } else {
        Err(Reason::Residue)
    }
}
