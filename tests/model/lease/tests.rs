//! The properties hold with all safeguards; these fail without each of them.

use super::{
    Budget, CLONE_EXISTS, ENTRY_HELD, FAILED_KEPT, LEASED_CLEAN, LEASED_ONCE, Leases, NOT_DROPPED,
    READY_ALONE, READY_CLEAN, RECLAIMABLE, REMOVABLE, Safeguards,
};
use crate::check::{assert_holds, assert_violates};

/// Two helpers that claim databases. Nothing is recycled.
const CLAIMS: Budget = Budget {
    claims: [2, 1],
    fallbacks: [1, 1],
    renewals: 0,
    visits: 0,
    successors: 0,
};

/// One clone is recycled, and a straggler acts once.
const RECYCLING: Budget = Budget {
    claims: [2, 1],
    fallbacks: [0, 0],
    renewals: 1,
    visits: 1,
    successors: 1,
};

/// A test process takes over what another one has cleaned, beside the keeper.
const TAKING: Budget = Budget {
    claims: [1, 1],
    fallbacks: [0, 1],
    ..RECYCLING
};

fn with(budget: Budget, take_out: impl FnOnce(&mut Safeguards)) -> Leases {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Leases { guards, budget }
}

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Leases {
    with(CLAIMS, take_out)
}

fn recycling_without(take_out: impl FnOnce(&mut Safeguards)) -> Leases {
    with(RECYCLING, take_out)
}

#[test]
fn holds_with_all_safeguards() {
    let budget = Budget {
        claims: [2, 2],
        ..CLAIMS
    };
    assert_holds(with(budget, |_| {}), 15_000);
}

#[test]
fn recycling_holds_with_all_safeguards() {
    let budget = Budget {
        visits: 2,
        ..RECYCLING
    };
    assert_holds(with(budget, |_| {}), 40_000);
}

#[test]
fn recycling_beside_fallback_clones_holds_with_all_safeguards() {
    let budget = Budget {
        fallbacks: [1, 0],
        visits: 0,
        ..RECYCLING
    };
    assert_holds(with(budget, |_| {}), 30_000);
}

#[test]
fn taking_over_holds_with_all_safeguards() {
    assert_holds(with(TAKING, |_| {}), 60_000);
}

#[test]
fn without_a_cleaned_line_a_used_clone_is_taken_over() {
    assert_violates(
        with(TAKING, |g| g.needs_line = false),
        &[LEASED_CLEAN, READY_CLEAN],
    );
}

#[test]
fn without_comparing_sessions_a_visited_clone_is_taken_over() {
    assert_violates(
        with(TAKING, |g| g.sessions_compared = false),
        &[LEASED_CLEAN, READY_CLEAN],
    );
}

#[test]
fn without_the_flock_a_live_database_is_dropped() {
    assert_violates(without(|g| g.flock = false), &[NOT_DROPPED, ENTRY_HELD]);
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
        &[LEASED_ONCE, LEASED_CLEAN, CLONE_EXISTS, RECLAIMABLE],
    );
}

#[test]
fn without_rename_deciding_a_clone_is_leased_twice() {
    assert_violates(
        without(|g| g.rename_decides = false),
        &[LEASED_ONCE, LEASED_CLEAN, CLONE_EXISTS, ENTRY_HELD],
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
    assert_holds(without(|g| g.keeper_holds = false), 8_000);
}

#[test]
fn without_force_on_own_leftovers_they_stay() {
    assert_violates(without(|g| g.force_own = false), &[RECLAIMABLE]);
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
        &[NOT_DROPPED, ENTRY_HELD, RECLAIMABLE],
    );
}

/// A session that began before the evidence was counted before, so only this check notices it.
#[test]
fn without_quiet_a_write_after_the_evidence_is_offered() {
    assert_violates(recycling_without(|g| g.quiet = false), &[READY_CLEAN]);
}

#[test]
fn without_counting_first_a_session_between_the_checks_is_not_noticed() {
    assert_violates(recycling_without(|g| g.count_first = false), &[READY_CLEAN]);
}

#[test]
fn without_a_cleaned_line_a_used_clone_is_offered() {
    assert_violates(recycling_without(|g| g.needs_line = false), &[READY_CLEAN]);
}

#[test]
fn without_a_new_name_a_straggler_reaches_the_next_test() {
    assert_violates(
        recycling_without(|g| g.new_name = false),
        &[
            READY_ALONE,
            READY_CLEAN,
            NOT_DROPPED,
            ENTRY_HELD,
            CLONE_EXISTS,
            RECLAIMABLE,
        ],
    );
}

#[test]
fn without_the_rename_first_a_visit_before_it_is_not_noticed() {
    assert_violates(
        recycling_without(|g| g.rename_first = false),
        &[READY_CLEAN],
    );
}

#[test]
fn without_a_rename_that_sessions_prevent_a_straggler_is_in_a_ready_clone() {
    assert_violates(
        recycling_without(|g| g.rename_alone = false),
        &[READY_ALONE, READY_CLEAN],
    );
}

#[test]
fn without_comparing_sessions_a_visit_is_not_noticed() {
    assert_violates(
        recycling_without(|g| g.sessions_compared = false),
        &[READY_CLEAN],
    );
}

#[test]
fn without_comparing_tuples_a_background_workers_write_is_not_noticed() {
    assert_violates(
        recycling_without(|g| g.tuples_compared = false),
        &[READY_CLEAN],
    );
}

#[test]
fn without_comparing_the_row_a_setting_is_not_noticed() {
    assert_violates(
        recycling_without(|g| g.row_compared = false),
        &[READY_CLEAN],
    );
}

/// A keeper that dies in between leaves a clone without an entry in both cases, and the run's end finds it by its name.
#[test]
fn without_the_old_entry_last_is_redundant() {
    assert_holds(recycling_without(|g| g.old_entry_last = false), 10_000);
}

#[test]
fn without_an_end_by_name_a_renamed_clone_stays() {
    assert_violates(recycling_without(|g| g.end_by_name = false), &[REMOVABLE]);
}

#[test]
fn without_failed_tests_apart_their_evidence_is_lost() {
    assert_violates(
        recycling_without(|g| g.failed_apart = false),
        &[FAILED_KEPT],
    );
}
