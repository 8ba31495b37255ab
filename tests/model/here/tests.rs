//! The properties hold with all safeguards; these fail without each of them.

use super::{Here, LINKED, NOT_DROPPED, REMOVABLE, Safeguards};
use crate::check::{assert_holds, assert_violates};

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Here {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Here { guards }
}

#[test]
fn holds_with_all_safeguards() {
    assert_holds(without(|_| {}), 4_000);
}

#[test]
fn without_an_overlapping_handover_a_live_run_loses_databases() {
    assert_violates(without(|g| g.handover_overlaps = false), &[NOT_DROPPED]);
}

#[test]
fn without_a_look_at_the_directory_a_process_joins_a_run_that_is_gone() {
    assert_violates(
        without(|g| g.join_checks_directory = false),
        &[LINKED, REMOVABLE],
    );
}

#[test]
fn without_the_keeper_waiting_a_live_run_loses_databases() {
    assert_violates(without(|g| g.keeper_waits = false), &[NOT_DROPPED, LINKED]);
}

#[test]
fn without_the_sweeps_flock_a_live_run_loses_databases() {
    assert_violates(
        without(|g| g.sweep_flocks = false),
        &[NOT_DROPPED, LINKED, REMOVABLE],
    );
}

/// The `flock` is exact except at one moment: a keeper whose upgrade failed has lost its own.
#[test]
fn without_the_sweeps_fence_a_live_run_loses_databases() {
    assert_violates(
        without(|g| g.sweep_fences = false),
        &[NOT_DROPPED, REMOVABLE],
    );
}

#[test]
fn without_holding_both_a_live_run_loses_databases() {
    assert_violates(
        without(|g| g.sweep_holds = false),
        &[NOT_DROPPED, LINKED, REMOVABLE],
    );
}

#[test]
fn without_listing_under_the_fence_a_leftover_loses_its_directory() {
    assert_violates(without(|g| g.lists_under_fence = false), &[REMOVABLE]);
}

#[test]
fn without_the_run_lock_a_dead_keepers_database_outlives_its_directory() {
    assert_violates(without(|g| g.creators_hold_lock = false), &[REMOVABLE]);
}

#[test]
fn without_the_directory_last_a_leftover_loses_it() {
    assert_violates(without(|g| g.directory_last = false), &[REMOVABLE]);
}
