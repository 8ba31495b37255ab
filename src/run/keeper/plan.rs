//! What the keeper does next, decided without doing it.

use crate::name::DbName;

/// What the keeper sees in the run directory.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Databases that wait for a test.
    pub ready: usize,
    /// Databases that are being made.
    pub creating: usize,
    /// Databases that tests gave back and that nobody drops yet.
    pub released: Vec<DbName>,
    /// Databases that are being dropped.
    pub dropping: usize,
    /// Databases of failed tests that are not preserved yet.
    pub failed: Vec<DbName>,
    /// Whether a test has claimed a database of its own in this run.
    pub demand: bool,
    /// Whether the shared clone is there or being made.
    pub shared: bool,
    /// Tests that run at once.
    pub threads: usize,
    /// Hands that are free.
    pub free: usize,
    /// Clones that the disk budget has room for.
    pub room: usize,
}

/// A piece of work for one administrative session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Make the shared clone.
    Shared,
    /// Make a clone.
    Create,
    /// Rename a failed test's clone to its kept name.
    Preserve(DbName),
    /// Drop a database that was given back.
    Drop(DbName),
}

/// How many clones should be ready: one until somebody asks, then twice what can run at once.
pub fn target(demand: bool, threads: usize) -> usize {
    if demand { threads.max(1) * 2 } else { 1 }
}

/// The next jobs, at most one per free hand. What a test may wait for comes first; failed tests' databases before drops, because
/// their names are printed already. While fewer clones than threads are ready only one hand drops.
pub fn plan(view: &View) -> Vec<Job> {
    let mut jobs = Vec::new();
    if !view.shared {
        jobs.push(Job::Shared);
    }
    jobs.extend(view.failed.iter().cloned().map(Job::Preserve));
    let missing = target(view.demand, view.threads)
        .saturating_sub(view.ready + view.creating)
        .min(view.room.saturating_sub(view.creating));
    let scarce = view.demand && view.ready < view.threads;
    let mut drops = view.released.iter().cloned().map(Job::Drop);
    if scarce {
        // One hand drops whatever the demand, so that what tests give back never piles up.
        if view.dropping == 0 {
            jobs.extend(drops.next());
        }
        jobs.extend(std::iter::repeat_n(Job::Create, missing));
        jobs.extend(drops);
    } else {
        jobs.extend(drops);
        jobs.extend(std::iter::repeat_n(Job::Create, missing));
    }
    jobs.truncate(view.free);
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Fingerprint, Kind, Namespace, RunId, RunKey};
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn names(count: usize) -> Vec<DbName> {
        let namespace = Namespace::new("app").expect("valid");
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let fingerprint = Fingerprint::from_hash(&[1; 32]);
        (0..count)
            .map(|_| DbName::for_run(&namespace, Kind::Clone, &fingerprint, &run))
            .collect()
    }

    #[test]
    fn a_run_without_demand_makes_one_clone_and_the_shared_one() {
        let view = View {
            threads: 8,
            free: 3,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Shared, Job::Create]);
    }

    #[test]
    fn with_demand_twice_the_threads_are_made_ready() {
        let view = View {
            demand: true,
            shared: true,
            ready: 5,
            creating: 1,
            threads: 4,
            free: 10,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Create, Job::Create]);
    }

    proptest! {
        #[test]
        fn no_more_than_the_target_and_no_more_than_the_hands(
            ready in 0..20usize, creating in 0..5usize, released in 0..30usize, failed in 0..3usize,
            demand: bool, shared: bool, threads in 1..10usize, free in 0..5usize, room in 0..40usize, dropping in 0..2usize,
        ) {
            let view = View { ready, creating, released: names(released), failed: names(failed), demand, shared, threads, free, room, dropping };
            let jobs = plan(&view);
            let creates = jobs.iter().filter(|j| **j == Job::Create).count();
            prop_assert!(jobs.len() <= free);
            prop_assert!(creates == 0 || ready + creating + creates <= target(demand, threads));
            prop_assert!(creates == 0 || creating + creates <= room);
            let wanted = target(demand, threads).saturating_sub(ready + creating).min(room.saturating_sub(creating)) + released + failed + usize::from(!shared);
            prop_assert_eq!(jobs.len(), wanted.min(free), "no hand is idle while there is work");
        }

        /// With one hand free at a time, as in the steady state, neither creates nor drops starve.
        #[test]
        fn neither_starves(released in 1..30usize, threads in 1..10usize, ready in 0..3usize, dropping in 0..2usize) {
            let view = View { released: names(released), demand: true, shared: true, threads, ready, dropping, free: 1, room: 100, ..View::default() };
            let job = &plan(&view)[0];
            prop_assert_eq!(matches!(job, Job::Drop(_)), dropping == 0 || ready >= threads);
        }
    }
}
