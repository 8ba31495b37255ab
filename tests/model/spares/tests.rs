//! The properties hold with all safeguards; these fail without each of them.

use super::{
    Budget, NOT_LOST, ONE_RUN, PRISTINE, REMOVABLE, Safeguards, Spares, TEMPLATE, VISITOR,
};
use crate::check::{assert_holds, assert_violates};

/// Two runs adopt one spare.
const ADOPTION: Budget = Budget {
    visits: 1,
    crashes: 0,
    collections: 1,
    adoptions: [1, 1],
    creations: 0,
};

/// Run 1 adopts what run 0 has created.
const CONVERSION: Budget = Budget {
    visits: 1,
    crashes: 0,
    collections: 0,
    adoptions: [0, 1],
    creations: 1,
};

fn with(budget: Budget, take_out: impl FnOnce(&mut Safeguards)) -> Spares {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Spares { guards, budget }
}

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Spares {
    with(ADOPTION, take_out)
}

fn conversion_without(take_out: impl FnOnce(&mut Safeguards)) -> Spares {
    with(CONVERSION, take_out)
}

#[test]
fn adoption_holds_with_all_safeguards() {
    let budget = Budget {
        visits: 2,
        crashes: 1,
        ..ADOPTION
    };
    assert_holds(with(budget, |_| {}), 70_000);
}

#[test]
fn conversion_holds_with_all_safeguards() {
    let budget = Budget {
        crashes: 1,
        ..CONVERSION
    };
    assert_holds(with(budget, |_| {}), 30_000);
}

#[test]
fn conversion_beside_two_adoptions_holds_with_all_safeguards() {
    let budget = Budget {
        adoptions: [1, 1],
        ..CONVERSION
    };
    assert_holds(with(budget, |_| {}), 40_000);
}

#[test]
fn without_adoption_by_rename_two_runs_use_a_spare() {
    assert_violates(without(|g| g.rename_adopts = false), &[ONE_RUN, NOT_LOST]);
}

#[test]
fn without_its_own_run_in_the_name_an_adopted_clone_is_swept() {
    assert_violates(without(|g| g.own_name = false), &[NOT_LOST]);
}

#[test]
fn without_the_rename_first_a_visit_before_it_is_not_noticed() {
    assert_violates(without(|g| g.rename_first = false), &[PRISTINE]);
}

#[test]
fn without_comparing_sessions_a_visited_spare_is_used() {
    assert_violates(without(|g| g.sessions_compared = false), &[PRISTINE]);
}

#[test]
fn without_comparing_tuples_a_background_workers_write_is_not_noticed() {
    assert_violates(without(|g| g.tuples_compared = false), &[PRISTINE]);
}

#[test]
fn without_comparing_the_row_an_invalid_spare_is_used() {
    assert_violates(without(|g| g.row_compared = false), &[PRISTINE]);
}

/// A crash sets the counters to zero, and one visit makes them those of the baseline.
#[test]
fn without_comparing_resets_a_crash_is_not_noticed() {
    let budget = Budget {
        crashes: 1,
        ..ADOPTION
    };
    let model = with(budget, |g| g.resets_compared = false);
    assert_violates(model, &[PRISTINE]);
}

/// The template was collected, and the next run has built it again under the same name.
#[test]
fn without_comparing_the_template_a_spare_of_an_older_one_is_used() {
    assert_violates(without(|g| g.template_compared = false), &[TEMPLATE]);
}

#[test]
fn without_the_template_lock_a_spare_of_another_template_is_used() {
    let budget = Budget {
        visits: 0,
        collections: 1,
        ..CONVERSION
    };
    let model = with(budget, |g| g.template_lock = false);
    assert_violates(model, &[TEMPLATE]);
}

#[test]
fn without_the_run_lock_a_dead_adopters_clone_outlives_its_directory() {
    assert_violates(without(|g| g.adopters_hold_lock = false), &[REMOVABLE]);
}

#[test]
fn without_the_fence_a_live_lease_is_converted() {
    assert_violates(conversion_without(|g| g.fence = false), &[NOT_LOST]);
}

#[test]
fn without_comparing_at_the_conversion_is_redundant() {
    assert_holds(
        conversion_without(|g| g.conversion_compares = false),
        10_000,
    );
}

#[test]
fn without_the_baseline_of_the_entry_is_redundant() {
    assert_holds(conversion_without(|g| g.baseline_kept = false), 10_000);
}

#[test]
fn without_both_a_visited_clone_becomes_a_spare() {
    let model = conversion_without(|g| {
        g.conversion_compares = false;
        g.baseline_kept = false;
    });
    assert_violates(model, &[PRISTINE]);
}

#[test]
fn without_an_end_by_name_an_adopted_clone_stays() {
    assert_violates(without(|g| g.end_by_name = false), &[REMOVABLE]);
}

#[test]
fn without_drop_by_name_the_sweep_drops_an_adopted_clone() {
    assert_violates(without(|g| g.drop_by_name = false), &[NOT_LOST]);
}

#[test]
fn without_plain_drop_a_session_is_ended() {
    assert_violates(without(|g| g.plain_drop = false), &[VISITOR]);
}

#[test]
fn without_sweeping_orphans_a_spare_stays_after_its_template() {
    assert_violates(without(|g| g.sweeps_orphans = false), &[REMOVABLE]);
}

#[test]
fn without_dropping_unfit_spares_they_stay() {
    assert_violates(without(|g| g.drops_unfit = false), &[REMOVABLE]);
}
