//! What holds with every safeguard, and what breaks without each.

use super::{IN_USE, NOT_REBUILT, ONE_BUILD, REMOVABLE, Safeguards, Templates, UNDISTURBED, WHOLE};
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
    assert_violates(without(|g| g.build_lock = false), &[ONE_BUILD]);
}

#[test]
fn without_the_second_look_a_published_template_is_built_again() {
    assert_violates(without(|g| g.second_look = false), &[NOT_REBUILT]);
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

/// The name alone says it: it is given last and taken away first.
#[test]
fn without_a_lookup_that_wants_sealed_is_redundant() {
    assert_holds(without(|g| g.lookup_wants_sealed = false), 2_000);
}

#[test]
fn without_the_template_lock_before_the_lookup_it_is_dropped_in_use() {
    assert_violates(without(|g| g.lock_before_lookup = false), &[IN_USE]);
}

#[test]
fn without_the_collectors_lock_a_template_is_dropped_in_use() {
    assert_violates(without(|g| g.collector_locks = false), &[IN_USE]);
}

/// An unsealed database under the template's name: no lookup finds it, no build can be renamed over it.
#[test]
fn without_the_collectors_rename_a_crash_blocks_the_name() {
    assert_violates(without(|g| g.collector_renames = false), &[WHOLE]);
}

#[test]
fn without_unsealing_a_sealed_leftover_stays() {
    assert_violates(without(|g| g.sweep_unseals = false), &[REMOVABLE]);
}
