//! Decides the keeper's next jobs, as a pure function.

use kapsel_testdb_core::platform;
use kapsel_testdb_core::protocol::DbName;

/// The state that the decision depends on.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Number of ready clones.
    pub ready: usize,
    /// Number of clones that are being created or adopted.
    pub coming: usize,
    /// Released databases that no worker handles yet; not all of them if there are many.
    pub released: Vec<DbName>,
    /// Number of released databases that no worker handles yet.
    pub waiting: usize,
    /// Number of released databases that are being recycled.
    pub settling: usize,
    /// Databases that are not used again.
    pub unfit: Vec<DbName>,
    /// Databases of failed tests that no worker preserves yet.
    pub failed: Vec<DbName>,
    /// What tests have used and will probably use.
    pub demand: Demand,
    /// Whether there may be spares.
    pub spares: bool,
    /// Number of tests that use a database at the same time.
    pub threads: usize,
    /// Number of free workers.
    pub free: usize,
    /// How many of these may create or drop a database. If the run recycles, one worker is left for it: a durable server takes seconds for a CREATE or
    /// DROP DATABASE, and clones that wait to be recycled would be missed, so that tests create more.
    pub slow: usize,
    /// Number of clones that the disk budget still allows.
    pub room: usize,
}

/// How much a run needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// How many clones tests of this run have claimed.
    pub claims: usize,
    /// How many clones the last run used at the same time.
    pub last_run: usize,
}

/// A job for one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Adopt up to so many spares.
    Adopt(usize),
    /// Create a clone.
    Create,
    /// Rename a failed test's clone to its kept name.
    Preserve(DbName),
    /// Recycle a released database.
    Settle(DbName),
    /// Drop a database that is not used again.
    Drop(DbName),
}

impl Job {
    /// The released or failed database that it handles.
    pub fn database(&self) -> Option<&DbName> {
        match self {
            Self::Preserve(name) | Self::Settle(name) | Self::Drop(name) => Some(name),
            Self::Adopt(_) | Self::Create => None,
        }
    }
}

impl Demand {
    /// How many clones should be ready if that costs only a rename: what the last run used, until a second test of this run shows that there are many.
    fn to_adopt(self, threads: usize) -> usize {
        match self.claims {
            0 | 1 => self.last_run.clamp(1, max(threads)),
            _ => max(threads),
        }
    }

    /// How many should be ready if each must be created. A run of one test needs no second one.
    fn to_create(self, threads: usize) -> usize {
        match self.claims {
            0 => 1,
            1 => 0,
            _ => max(threads),
        }
    }
}

fn max(threads: usize) -> usize {
    threads.max(1) * 2
}

/// How many tests use a database at the same time. If there are many more threads than cores, most tests wait for a core, and creating clones for them
/// would take it from the others.
pub fn concurrent_tests(threads: usize) -> usize {
    threads.min(2 * platform::cores())
}

/// The most clones that are kept ready in a run with this number of test threads.
pub fn max_ready(threads: usize) -> usize {
    max(concurrent_tests(threads))
}

/// The next jobs, at most one per free worker. Preserving comes first, because the kept names are printed already. Recycling comes before creating,
/// because it costs less. One worker is left to create while clones are scarce. What is not used again is left to the end of the run unless there is
/// much of it: on a durable server each DROP DATABASE waits for a checkpoint, which slows every test down.
pub fn plan(view: &View) -> Vec<Job> {
    let mut jobs: Vec<Job> = view.failed.iter().cloned().map(Job::Preserve).collect();
    let coming = view.ready + view.coming;
    let room = view.room.saturating_sub(view.coming);
    let mut supply = Vec::new();
    let adopt = view
        .demand
        .to_adopt(view.threads)
        .saturating_sub(coming)
        .min(room);
    // Clones that are being settled are probably ready soon.
    let soon = view.settling + view.waiting;
    let create = view
        .demand
        .to_create(view.threads)
        .saturating_sub(coming + soon)
        .min(room)
        .min(view.slow);
    if view.spares && adopt > 0 {
        supply.push(Job::Adopt(adopt));
    } else {
        supply.extend(std::iter::repeat_n(Job::Create, create));
    }
    let mut settle = view.released.iter().cloned().map(Job::Settle);
    // One worker always settles, so that released databases do not pile up.
    if view.settling == 0 {
        jobs.extend(settle.next());
    }
    if view.ready == 0 && view.settling > 0 {
        jobs.extend(supply);
        jobs.extend(settle);
    } else {
        jobs.extend(settle);
        jobs.extend(supply);
    }
    let creates = jobs.iter().filter(|job| **job == Job::Create).count();
    let unfit = view
        .unfit
        .iter()
        .skip(view.threads)
        .take(view.slow - creates)
        .cloned();
    jobs.extend(unfit.map(Job::Drop));
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

    fn demand(claims: usize, last_run: usize) -> Demand {
        Demand { claims, last_run }
    }

    #[test]
    fn a_run_without_demand_creates_one_clone() {
        let view = View {
            threads: 8,
            free: 3,
            slow: 2,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Create]);
    }

    #[test]
    fn a_run_of_one_test_creates_no_second_clone() {
        let view = View {
            threads: 8,
            free: 3,
            slow: 2,
            room: 100,
            demand: demand(1, 1),
            ..View::default()
        };
        assert_eq!(plan(&view), []);
    }

    #[test]
    fn a_run_adopts_what_the_last_one_used_before_it_creates_anything() {
        let view = View {
            threads: 8,
            free: 3,
            slow: 2,
            room: 100,
            spares: true,
            demand: demand(0, 5),
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Adopt(5)]);
        assert_eq!(
            plan(&View {
                spares: false,
                ..view
            }),
            [Job::Create]
        );
    }

    #[test]
    fn with_demand_twice_the_threads_are_ready() {
        let view = View {
            demand: demand(9, 0),
            ready: 5,
            coming: 1,
            threads: 4,
            free: 10,
            slow: 9,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Create, Job::Create]);
    }

    #[test]
    fn what_is_being_recycled_is_not_created_again() {
        let view = View {
            demand: demand(9, 0),
            settling: 2,
            ready: 5,
            threads: 4,
            free: 10,
            slow: 9,
            room: 100,
            ..View::default()
        };
        assert_eq!(plan(&view), [Job::Create]);
    }

    #[test]
    fn what_waits_to_be_recycled_is_not_created_again_even_if_it_is_not_listed() {
        let view = View {
            demand: demand(9, 0),
            released: names(1),
            waiting: 8,
            threads: 4,
            free: 10,
            slow: 9,
            room: 100,
            ..View::default()
        };
        assert!(matches!(plan(&view)[..], [Job::Settle(_)]));
    }

    #[test]
    fn unfit_databases_are_dropped_only_if_there_are_many_and_one_worker_stays_free() {
        let view = View {
            demand: demand(9, 0),
            ready: 7,
            unfit: names(5),
            threads: 4,
            free: 3,
            slow: 2,
            room: 100,
            ..View::default()
        };
        assert!(matches!(plan(&view)[..], [Job::Create, Job::Drop(_)]));
        let busy = View {
            slow: 1,
            ..view.clone()
        };
        assert_eq!(plan(&busy), [Job::Create]);
        let few = View {
            unfit: names(4),
            ..view.clone()
        };
        assert_eq!(plan(&few), [Job::Create]);
        let recycling = View {
            released: names(1),
            waiting: 1,
            slow: 0,
            free: 1,
            ..view
        };
        assert!(matches!(plan(&recycling)[..], [Job::Settle(_)]));
    }

    proptest! {
        #[test]
        fn jobs_do_not_exceed_the_target_or_the_free_workers(
            ready in 0..20usize, coming in 0..5usize, released in 0..30usize, failed in 0..3usize, claims in 0..3usize, last_run in 0..30usize,
            spares: bool, threads in 1..10usize, free in 0..5usize, room in 0..40usize, settling in 0..2usize,
        ) {
            let demand = demand(claims, last_run);
            let view = View { ready, coming, released: names(released), waiting: released, failed: names(failed), demand, spares, threads, free, slow: free.saturating_sub(1), room, settling, ..View::default() };
            let jobs = plan(&view);
            let supplied: usize = jobs.iter().map(|job| match job {
                Job::Create => 1,
                Job::Adopt(count) => *count,
                Job::Preserve(_) | Job::Settle(_) | Job::Drop(_) => 0,
            }).sum();
            prop_assert!(jobs.len() <= free);
            prop_assert!(supplied == 0 || ready + coming + supplied <= 2 * threads);
            prop_assert!(supplied == 0 || coming + supplied <= room);
            let waiting = failed + released;
            prop_assert!(jobs.len() == free || jobs.len() >= waiting.min(free), "no worker is idle while there is work");
        }

        /// With one worker free at a time, as in the steady state, neither supply nor recycling starves.
        #[test]
        fn neither_supply_nor_recycling_starves(released in 1..30usize, threads in 1..10usize, ready in 0..3usize, settling in 0..2usize) {
            let view = View { released: names(released), waiting: released, demand: demand(2, 0), spares: true, threads, ready, settling, free: 1, slow: 1, room: 100, ..View::default() };
            let job = &plan(&view)[0];
            prop_assert_eq!(matches!(job, Job::Settle(_)), settling == 0 || ready > 0);
        }
    }
}
