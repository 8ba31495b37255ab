//! Decides the keeper's next jobs, as a pure function.

use kapsel_testdb_core::platform;
use kapsel_testdb_core::protocol::DbName;

/// The state that the decision depends on.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Number of ready clones.
    pub ready: usize,
    /// Number of clones that are being created.
    pub creating: usize,
    /// Released databases that no worker drops yet.
    pub released: Vec<DbName>,
    /// Number of databases that are being dropped.
    pub dropping: usize,
    /// Databases of failed tests that no worker preserves yet.
    pub failed: Vec<DbName>,
    /// Whether a test of this run has claimed a clone.
    pub demand: bool,
    /// Whether the shared clone exists or is being created.
    pub shared: bool,
    /// Number of tests that use a database at the same time.
    pub threads: usize,
    /// Number of free workers.
    pub free: usize,
    /// Number of clones that the disk budget still allows.
    pub room: usize,
}

/// A job for one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Create the shared clone.
    Shared,
    /// Create a clone.
    Create,
    /// Rename a failed test's clone to its kept name.
    Preserve(DbName),
    /// Drop a released database.
    Drop(DbName),
}

/// How many clones should be ready: one until there is demand, then twice the number of concurrent tests.
pub fn target(demand: bool, threads: usize) -> usize {
    if demand { threads.max(1) * 2 } else { 1 }
}

/// How many tests use a database at the same time. If there are many more threads than cores, most tests wait for a core, and creating clones for them
/// would take it from the others.
pub fn concurrent_tests(threads: usize) -> usize {
    threads.min(2 * platform::cores())
}

/// The most clones that are kept ready in a run with this number of test threads.
pub fn max_ready(threads: usize) -> usize {
    target(true, concurrent_tests(threads))
}

/// The next jobs, at most one per free worker. Jobs that a test may wait for come first. Preserving comes before dropping, because the kept names are
/// printed already. While fewer clones than threads are ready, only one worker drops.
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
        // One worker always drops, so that released databases do not pile up.
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
    use std::time::UNIX_EPOCH;

    use kapsel_testdb_core::protocol::{Fingerprint, Kind, Namespace, RunId, RunKey};
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<DbName> {
        let namespace = Namespace::new("app").expect("valid");
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let fingerprint = Fingerprint::from_hash(&[1; 32]);
        (0..count)
            .map(|_| DbName::for_run(&namespace, Kind::Clone, &fingerprint, &run))
            .collect()
    }

    #[test]
    fn a_run_without_demand_creates_one_clone_and_the_shared_one() {
        let view = View {
            threads: 8,
            free: 3,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Shared, Job::Create]);
    }

    #[test]
    fn with_demand_twice_the_threads_are_ready() {
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
        fn jobs_do_not_exceed_the_target_or_the_free_workers(
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
            prop_assert_eq!(jobs.len(), wanted.min(free), "no worker is idle while there is work");
        }

        /// With one worker free at a time, as in the steady state, neither creates nor drops starve.
        #[test]
        fn neither_creates_nor_drops_starve(released in 1..30usize, threads in 1..10usize, ready in 0..3usize, dropping in 0..2usize) {
            let view = View { released: names(released), demand: true, shared: true, threads, ready, dropping, free: 1, room: 100, ..View::default() };
            let job = &plan(&view)[0];
            prop_assert_eq!(matches!(job, Job::Drop(_)), dropping == 0 || ready >= threads);
        }
    }
}
