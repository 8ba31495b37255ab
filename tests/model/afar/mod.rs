//! The fence alone: a sweep of another host, which cannot see the run directory, against a keeper and a test process.
//!
//! Modeled:
//! - the run lock, shared and exclusive; sessions on clones; lost connections; server restarts
//! - crash recovery, which ends every session, frees every lock and resets the statistics, but keeps `pg_postmaster_start_time` (tested on 15)
//! - a suspended keeper; deaths that leave a backend behind
//! - the sweep as in the code, on one session (if it breaks, the sweep ends): a first snapshot, checks every 0.5 s for 30 s, the fence, and before
//!   each drop one more check of all databases of the run. Any session, any counter that moved and any new database ends the sweep of this run.
//!
//! Two rules stand for time. Within the 30 s of checks, a process that is not suspended has noticed a lost connection and has reconnected. A process
//! that has reconnected stays connected until the next check, 0.5 s later.
//!
//! Residual risks:
//! - The keeper is dead, the only session of a lease was lost, and the test uses no database for the whole 30 s: the lease looks dead to another
//!   host. [`Watch::WithoutKeeper`] prevents this, as the code does: each test process checks for the keeper every 10 s. If there is none, it takes
//!   the run lock itself and verifies it as often (`watch_keeper` in `crates/helper/src/session/administration.rs`).
//! - The same with a keeper that is alive but suspended (stopped, or on a host that sleeps): the helper finds a keeper and does nothing. This risk is
//!   accepted. Only [`Watch::Always`] prevents it; "all safeguards" includes it here.
//! - A test process is suspended until its sessions are gone (a laptop that sleeps during a run on another machine's server): it looks dead, and finds
//!   its database gone when it wakes. Not modeled.
//!
//! Not modeled: entries other than `ready/` (see [`super::lease`]), the keeper's own drops, more than one run, and the sweep's probes of the run lock
//! (each check takes it exclusive for one round trip). Assumptions: between the last check of a database and its DROP (one round trip), no session is
//! both opened and lost; counters are current (before PostgreSQL 15 they may lag by up to 0.5 s).
//! Implemented in `src/sweep/execute.rs` (`watch_quiet`, `remove_remote`, `drop_quiet`), `src/sweep/plan.rs` (`is_still_quiet`),
//! `src/keeper/locks.rs`, `crates/core/src/run/clone.rs` (`admin`: fallback) and `crates/core/src/pg/lock.rs`.

mod members;
mod sweeper;
mod tests;

use stateright::{Model, Property};

/// Clone 0 is ready at the start. Clone 1 is created later, by the keeper or by the test process.
const CLONES: usize = 2;

pub(super) const NOT_DROPPED: &str = "the database of a live lease is not dropped";
pub(super) const AWAKE: &str = "a run with an active keeper loses no database";
pub(super) const NOT_STALE: &str = "a keeper that holds its lock offers no dropped clone";
pub(super) const REMOVABLE: &str = "all leftovers of a dead run can be removed";

/// How the sweep knows that the server was not interrupted between its checks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Restart {
    Unchecked,
    /// The postmaster's start time has not changed.
    StartTime,
    /// All checks run on one session, which survives neither a restart nor crash recovery; the sweep ends with it.
    SameSession,
}

/// Which process notices that the only session of a lease is lost while its test uses no database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Watch {
    Nobody,
    /// The helper, if it finds no keeper.
    WithoutKeeper,
    Always,
}

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The sweep takes the run lock exclusive and holds it while it drops. (Otherwise it only sees in `pg_locks` that the lock is free.)
    pub fence: bool,
    /// DROP runs on the session that holds the fence.
    pub drop_inside_fence: bool,
    pub looks_for_sessions: bool,
    /// 30 s pass between the first check and the fence.
    pub waits: bool,
    /// The sweep checks all that time; any sign of life ends the sweep of this run.
    pub keeps_looking: bool,
    pub restart: Restart,
    /// `pg_stat_database.sessions` of all clones does not change between the first check and each drop, and no clone is new.
    pub session_counts: bool,
    /// DROP without FORCE, which fails if there is a session.
    pub plain_drop: bool,
    /// The keeper reacquires a lost lock before it continues.
    pub reverify: bool,
    /// After that, the keeper checks which of its clones still exist.
    pub relist: bool,
    /// Which process notices a lost session of a lease that the test does not use.
    pub lease_watched: Watch,
}

impl Safeguards {
    pub(super) fn all() -> Self {
        Self {
            fence: true,
            drop_inside_fence: true,
            looks_for_sessions: true,
            waits: true,
            keeps_looking: true,
            restart: Restart::SameSession,
            session_counts: true,
            plain_drop: true,
            reverify: true,
            relist: true,
            lease_watched: Watch::Always,
        }
    }
}

/// How often each fault happens at most.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Faults {
    pub cuts: u8,
    pub restarts: u8,
    pub crashes: u8,
    pub suspensions: u8,
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    exists: bool,
    ready: bool,
    /// The backend of a killed client is still at work.
    orphan: bool,
    /// `pg_stat_database.sessions`.
    sessions: u8,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Keeper {
    Holding,
    /// The connection is lost; the keeper has not noticed yet.
    Cut,
    Suspended {
        holding: bool,
    },
    FencedOff,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Test {
    Idle,
    Claimed(usize),
    Leased(usize),
    /// The only session of the lease is lost.
    Cut(usize),
    /// Nothing was ready: the process holds the run lock shared and creates a clone.
    Making,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Sighting {
    start: u8,
    /// `None`: the clone did not exist.
    counts: [Option<u8>; CLONES],
    /// The keeper was suspended since the first check, so it may be fenced off. Only the property uses this; the sweep does not know it.
    slept: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Sweeper {
    Idle,
    /// Checks repeatedly.
    Seen(Sighting),
    /// The 30 s have passed; the fence is next.
    Waited(Sighting),
    /// Drops the databases of its first check; `next` has passed its last check.
    Dropping {
        seen: Sighting,
        list: [bool; CLONES],
        next: Option<usize>,
        fence: bool,
    },
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    clones: [Database; CLONES],
    made: bool,
    keeper: Keeper,
    test: Test,
    leases_left: u8,
    sweeper: Sweeper,
    left: Faults,
    /// Number of server starts.
    start: u8,
    live_dropped: bool,
    awake_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    CutKeeper,
    CutTest,
    Restart,
    CrashRecovery,
    BackendEnds(usize),
    Suspend,
    Wake,
    KeeperReverifies,
    KeeperMakes,
    KeeperDies,
    Claim(usize),
    TestSteps,
    TestFallsBack,
    TestReleases,
    TestDies,
    Look,
    Wait,
    Fence,
    LastLook(usize),
    Drop,
    SweepEnds,
}

pub(super) struct Afar {
    pub guards: Safeguards,
    pub faults: Faults,
}

impl State {
    fn run_lock_held(&self) -> bool {
        matches!(
            self.keeper,
            Keeper::Holding | Keeper::Suspended { holding: true }
        ) || self.test == Test::Making
    }

    fn fence_held(&self) -> bool {
        matches!(self.sweeper, Sweeper::Dropping { fence: true, .. })
    }

    fn session_on(&self, d: usize) -> bool {
        self.test == Test::Leased(d) || self.clones[d].orphan
    }

    /// Ends every session and frees every advisory lock. The holder of a lease does not notice by itself.
    fn interrupt(&mut self, g: &Safeguards) {
        members::cut_keeper(self);
        members::cut_test(self);
        sweeper::interrupted(self, g);
        self.clones.iter_mut().for_each(|c| c.orphan = false);
    }
}

impl Model for Afar {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let ready = Database {
            exists: true,
            ready: true,
            ..Database::default()
        };
        vec![State {
            clones: [ready, Database::default()],
            made: false,
            keeper: Keeper::Holding,
            test: Test::Idle,
            leases_left: 1,
            sweeper: Sweeper::Idle,
            left: self.faults,
            start: 0,
            live_dropped: false,
            awake_lost: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // Steps after a loss show only consequences of it.
        if s.live_dropped || s.awake_lost {
            return;
        }
        actions.extend([
            Action::CutKeeper,
            Action::CutTest,
            Action::Restart,
            Action::CrashRecovery,
            Action::Suspend,
            Action::Wake,
            Action::KeeperReverifies,
            Action::KeeperMakes,
            Action::KeeperDies,
            Action::TestSteps,
            Action::TestFallsBack,
            Action::TestReleases,
            Action::TestDies,
            Action::Look,
            Action::Wait,
            Action::Fence,
            Action::Drop,
            Action::SweepEnds,
        ]);
        for d in 0..CLONES {
            actions.extend([
                Action::BackendEnds(d),
                Action::Claim(d),
                Action::LastLook(d),
            ]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::CutKeeper => {
                s.left.cuts = s.left.cuts.checked_sub(1)?;
                members::cut_keeper(&mut s).then_some(())
            }
            Action::CutTest => {
                let last_look = matches!(s.sweeper, Sweeper::Dropping { next: Some(_), .. });
                s.left.cuts = s.left.cuts.checked_sub(1)?;
                (!last_look && members::cut_test(&mut s)).then_some(())
            }
            Action::Restart => {
                s.left.restarts = s.left.restarts.checked_sub(1)?;
                s.start += 1;
                s.interrupt(g);
                Some(())
            }
            Action::CrashRecovery => {
                s.left.crashes = s.left.crashes.checked_sub(1)?;
                s.interrupt(g);
                s.clones.iter_mut().for_each(|c| c.sessions = 0);
                Some(())
            }
            Action::BackendEnds(d) => std::mem::take(&mut s.clones[d].orphan).then_some(()),
            Action::Suspend => members::suspend(&mut s),
            Action::Wake => members::wake(&mut s),
            Action::KeeperReverifies => members::reverify(&mut s, g),
            Action::KeeperMakes => members::keeper_makes(&mut s, g),
            Action::KeeperDies => members::keeper_dies(&mut s),
            Action::Claim(d) => members::claim(&mut s, d),
            Action::TestSteps => members::test_steps(&mut s),
            Action::TestFallsBack => members::fall_back(&mut s),
            Action::TestReleases => members::release(&mut s),
            Action::TestDies => members::test_dies(&mut s),
            Action::Look => sweeper::look(&mut s, g),
            Action::Wait => sweeper::wait(&mut s, g),
            Action::Fence => sweeper::fence(&mut s, g),
            Action::LastLook(d) => sweeper::last_look(&mut s, g, d),
            Action::Drop => sweeper::drop_next(&mut s, g),
            Action::SweepEnds => sweeper::end(&mut s),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_DROPPED, |_, s: &State| !s.live_dropped),
            Property::always(AWAKE, |_, s: &State| !s.awake_lost),
            Property::always(NOT_STALE, |_, s: &State| {
                s.keeper != Keeper::Holding || s.clones.iter().all(|c| c.exists || !c.ready)
            }),
            Property::always(REMOVABLE, sweeper::removes_all),
            Property::sometimes("a dead run is swept", |_, s: &State| {
                s.keeper == Keeper::Dead && s.made && s.clones.iter().all(|c| !c.exists)
            }),
            Property::sometimes("a keeper is fenced off", |_, s: &State| {
                s.keeper == Keeper::FencedOff
            }),
            Property::sometimes(
                "a sweep meets a session at its DROP",
                |_, s: &State| matches!(s.sweeper, Sweeper::Dropping { next: Some(d), .. } if s.session_on(d)),
            ),
            Property::sometimes("a lease outlives a server restart", |_, s: &State| {
                s.start > 0 && matches!(s.test, Test::Leased(d) if s.clones[d].sessions > 1)
            }),
            Property::sometimes(
                "a claimed clone is swept before its lease",
                |_, s: &State| matches!(s.test, Test::Claimed(d) if !s.clones[d].exists),
            ),
        ]
    }
}
