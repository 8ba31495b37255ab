//! The properties hold with all safeguards; these fail without each of them.

use super::{AWAKE, Afar, Faults, NOT_DROPPED, NOT_STALE, Restart, Safeguards, Watch};
use crate::check::{assert_holds, assert_violates};

const FAULTS: Faults = Faults {
    cuts: 1,
    restarts: 1,
    crashes: 1,
    suspensions: 1,
};

fn without(take_out: impl FnOnce(&mut Safeguards)) -> Afar {
    let mut guards = Safeguards::all();
    take_out(&mut guards);
    Afar {
        guards,
        faults: FAULTS,
    }
}

#[test]
fn holds_with_all_safeguards() {
    assert_holds(without(|_| {}), 50_000);
}

#[test]
fn without_the_fence_a_run_that_is_back_loses_clones() {
    assert_violates(
        without(|g| g.fence = false),
        &[AWAKE, NOT_DROPPED, NOT_STALE],
    );
}

#[test]
fn without_dropping_inside_the_fence_a_restart_opens_it() {
    assert_violates(
        without(|g| g.drop_inside_fence = false),
        &[AWAKE, NOT_DROPPED, NOT_STALE],
    );
}

#[test]
fn without_looking_for_sessions_a_live_database_is_dropped() {
    assert_violates(without(|g| g.looks_for_sessions = false), &[NOT_DROPPED]);
}

#[test]
fn without_the_30_seconds_a_live_database_is_dropped() {
    assert_violates(without(|g| g.waits = false), &[AWAKE, NOT_DROPPED]);
}

/// A restart right before the first check, a lost connection right before the last one, and the keeper connected in between.
#[test]
fn without_looking_in_between_a_live_run_loses_clones() {
    assert_violates(without(|g| g.keeps_looking = false), &[AWAKE]);
}

#[test]
fn without_the_restart_check_a_live_database_is_dropped() {
    assert_violates(without(|g| g.restart = Restart::Unchecked), &[NOT_DROPPED]);
}

/// Crash recovery keeps the postmaster and its start time. (It happens when the kernel kills one backend.)
#[test]
fn without_one_session_for_all_looks_a_crash_goes_unseen() {
    assert_violates(without(|g| g.restart = Restart::StartTime), &[NOT_DROPPED]);
}

/// A lease begins between two checks, and its session is lost at the second one: neither check sees it.
#[test]
fn without_session_counts_a_live_database_is_dropped() {
    assert_violates(without(|g| g.session_counts = false), &[NOT_DROPPED]);
}

#[test]
fn without_plain_drop_a_live_database_is_dropped() {
    assert_violates(without(|g| g.plain_drop = false), &[NOT_DROPPED]);
}

#[test]
fn without_verification_after_a_cut_a_live_run_loses_clones() {
    assert_violates(without(|g| g.reverify = false), &[AWAKE]);
}

#[test]
fn without_looking_again_a_keeper_offers_lost_clones() {
    assert_violates(without(|g| g.relist = false), &[NOT_STALE]);
}

/// The keeper is dead, the server restarts, and a test computes for a minute without a query: the run has no session.
#[test]
fn without_a_watched_lease_a_live_database_is_dropped() {
    assert_violates(without(|g| g.lease_watched = Watch::Nobody), &[NOT_DROPPED]);
}

#[test]
fn with_leases_watched_only_without_a_keeper_it_holds_while_no_keeper_is_suspended() {
    let mut model = without(|g| g.lease_watched = Watch::WithoutKeeper);
    model.faults.suspensions = 0;
    assert_violates(model, &[]);
}

/// The helper finds a keeper, but the keeper is suspended: the run has no session.
#[test]
fn with_leases_watched_only_without_a_keeper_a_suspended_one_costs_a_live_database() {
    let model = without(|g| g.lease_watched = Watch::WithoutKeeper);
    assert_violates(model, &[NOT_DROPPED]);
}

/// Statistics survive a clean restart, so the session counters show it. Only crash recovery needs the check.
#[test]
fn without_crashes_the_restart_check_is_redundant() {
    let mut model = without(|g| g.restart = Restart::Unchecked);
    model.faults.crashes = 0;
    assert_holds(model, 20_000);
}
