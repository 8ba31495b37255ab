//! The properties hold with all safeguards; these fail without each of them.

use super::{CLONE_EXISTS, ENTRY_HELD, LEASED_ONCE, Leases, NOT_DROPPED, RECLAIMABLE, Safeguards};
use crate::check::{assert_holds, assert_violates};

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Leases {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Leases { guards, claims: 2 }
}

#[test]
fn holds_with_all_safeguards() {
    assert_holds(without(|_| {}), 20_000);
}

#[test]
fn without_the_flock_a_live_database_is_dropped() {
    assert_violates(without(|g| g.flock = false), &[NOT_DROPPED]);
}

#[test]
fn without_flock_before_rename_a_live_database_is_dropped() {
    assert_violates(
        without(|g| g.flock_first = false),
        &[NOT_DROPPED, ENTRY_HELD, CLONE_EXISTS],
    );
}

#[test]
fn without_rename_as_the_claim_a_clone_is_leased_twice() {
    assert_violates(
        without(|g| g.claim_renames = false),
        &[LEASED_ONCE, CLONE_EXISTS, RECLAIMABLE],
    );
}

#[test]
fn without_rename_deciding_a_clone_is_leased_twice() {
    assert_violates(
        without(|g| g.rename_decides = false),
        &[LEASED_ONCE, CLONE_EXISTS, ENTRY_HELD],
    );
}

#[test]
fn without_the_keepers_probe_a_live_database_is_dropped() {
    assert_violates(
        without(|g| g.keeper_probes = false),
        &[NOT_DROPPED, ENTRY_HELD, RECLAIMABLE],
    );
}

#[test]
fn without_the_keeper_holding_what_it_probed_is_redundant() {
    assert_holds(without(|g| g.keeper_holds = false), 20_000);
}

#[test]
fn without_force_on_own_leftovers_they_stay() {
    assert_violates(without(|g| g.force_own = false), &[RECLAIMABLE]);
}

#[test]
fn without_the_same_inode_a_live_database_is_dropped() {
    assert_violates(
        without(|g| g.same_inode = false),
        &[NOT_DROPPED, ENTRY_HELD],
    );
}

#[test]
fn without_create_first_a_claimed_clone_does_not_exist() {
    assert_violates(without(|g| g.create_first = false), &[CLONE_EXISTS]);
}

#[test]
fn without_entry_first_a_dead_helpers_clone_stays() {
    assert_violates(without(|g| g.entry_first = false), &[RECLAIMABLE]);
}

#[test]
fn without_an_entry_born_locked_a_live_lease_loses_it() {
    assert_violates(
        without(|g| g.born_locked = false),
        &[ENTRY_HELD, RECLAIMABLE],
    );
}
