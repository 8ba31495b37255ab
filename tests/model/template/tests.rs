//! The properties hold with all safeguards; these fail without each of them.

use super::{
    IN_USE, NOT_BLOCKED, NOT_REBUILT, ONE_BUILD, REMOVABLE, Safeguards, Templates, UNDISTURBED,
    USED_SEALED, WHOLE,
};
use crate::check::{assert_holds, assert_violates};

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Templates {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Templates { guards }
}

#[test]
fn holds_with_all_safeguards() {
    assert_holds(without(|_| {}), 2_000);
}

#[test]
fn without_the_build_lock_two_build_at_a_time() {
    assert_violates(
        without(|g| g.build_lock = false),
        &[ONE_BUILD, IN_USE, NOT_BLOCKED],
    );
}

#[test]
fn without_the_second_look_a_published_template_is_built_again() {
    assert_violates(
        without(|g| g.second_look = false),
        &[NOT_REBUILT, NOT_BLOCKED],
    );
}

#[test]
fn without_a_private_name_a_half_built_template_is_visible() {
    assert_violates(without(|g| g.private_name = false), &[WHOLE]);
}

#[test]
fn without_the_run_in_its_name_a_leftover_stays() {
    assert_violates(without(|g| g.named_by_run = false), &[REMOVABLE]);
}

#[test]
fn without_the_run_lock_first_a_live_build_is_swept() {
    assert_violates(without(|g| g.run_lock_first = false), &[UNDISTURBED]);
}

#[test]
fn without_seal_before_rename_an_unsealed_template_is_visible() {
    assert_violates(without(|g| g.seal_before_rename = false), &[WHOLE]);
}

/// A wreck that a crashed collector left is found by the lookup.
#[test]
fn without_a_lookup_that_wants_sealed_a_wreck_is_used() {
    assert_violates(
        without(|g| g.lookup_wants_sealed = false),
        &[USED_SEALED, IN_USE],
    );
}

#[test]
fn without_the_template_lock_before_the_lookup_it_is_dropped_in_use() {
    assert_violates(
        without(|g| g.lock_before_lookup = false),
        &[IN_USE, USED_SEALED],
    );
}

#[test]
fn without_one_session_who_lost_its_locks_goes_on() {
    assert_violates(
        without(|g| g.one_session = false),
        &[USED_SEALED, IN_USE, NOT_BLOCKED],
    );
}

/// No lookup finds an unsealed database with the template's name, and no build can be renamed to that name.
#[test]
fn without_clearing_wrecks_a_crashed_collection_blocks_the_name() {
    assert_violates(without(|g| g.clears_wrecks = false), &[NOT_BLOCKED]);
}

#[test]
fn without_an_overlapping_handover_a_template_is_dropped_in_use() {
    assert_violates(without(|g| g.handover_overlaps = false), &[IN_USE]);
}

#[test]
fn without_the_build_lock_the_collector_drops_what_a_build_starts_from() {
    assert_violates(without(|g| g.collector_build_lock = false), &[IN_USE]);
}

#[test]
fn without_the_collectors_lock_a_template_is_dropped_in_use() {
    assert_violates(
        without(|g| g.collector_locks = false),
        &[IN_USE, USED_SEALED],
    );
}

#[test]
fn without_unsealing_a_sealed_leftover_stays() {
    assert_violates(without(|g| g.sweep_unseals = false), &[REMOVABLE]);
}
