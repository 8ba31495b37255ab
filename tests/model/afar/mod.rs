//! The fence alone: a sweep that cannot see the run directory (another host) against a keeper and a test process.
//!
//! Modelled: the run lock shared and exclusive, sessions on clones, lost connections, server restarts and crash recovery (which
//! ends every session, frees every lock and forgets the statistics but keeps `pg_postmaster_start_time`: tried on 15), a keeper
//! that is suspended, deaths that leave a backend behind. The sweep as the code does it: one session for all looks, the fence and
//! the drops (where it breaks, the sweep ends); a first look; looks every 0.5 s for 30 s; the fence; before each drop one more look
//! at all of the run's databases. Any session, any counter that moved and any new database ends it for this run.
//! Time is one rule: in the 30 s of looks whoever is awake has noticed a lost connection and is back. That a look sees what came
//! back is the other: who is back stays back until the next look, 0.5 s later.
//!
//! Residual risks, and what closes them:
//! - With the keeper dead, a lease whose only session was cut, and whose test touches no database for the whole 30 s, would look dead
//!   to another host. [`Watch::WithoutKeeper`] closes it, and is what the code does: each test process looks for the keeper every
//!   10 s, and where there is none takes the run lock itself and verifies it as often (`watch_keeper` in `src/testing/session.rs`).
//! - The same with the keeper alive but suspended (stopped, or on a host that sleeps): the helper finds a keeper and does nothing.
//!   Accepted. Only [`Watch::Always`] closes it, which is what "all safeguards" means here.
//! - A test process that is itself suspended until its sessions are gone (a laptop that sleeps in the middle of a run on another
//!   machine's server) looks like a dead one; it finds its database gone when it wakes. Not modelled.
//!
//! Abstracted away: entries other than `ready/` ([`super::lease`] has them), the keeper's own drops, more than one run, the
//! sweep's probes of the run lock (it takes it exclusive for one round trip at each look). Between the last look at a database and
//! its DROP (one round trip) no session is both opened and lost. Counters are taken to be current: before PostgreSQL 15 they may
//! lag by up to 0.5 s.
//! Implemented in `src/sweep/execute.rs` (`settle_quiet`, `remove_elsewhere`, `drop_quiet`), `src/sweep/plan.rs` (`still_quiet`),
//! `src/run/locks.rs`, `src/run/clone.rs` (`admin`: fallback) and `src/pg/lock.rs`.

mod members;
mod sweeper;
mod tests;

use stateright::{Model, Property};

/// Clone 0 is ready at the start, clone 1 is made later, by the keeper or by the test process itself.
const CLONES: usize = 2;

pub(super) const NOT_DROPPED: &str = "no live lease's database is dropped";
pub(super) const AWAKE: &str = "a run whose keeper is awake loses nothing";
pub(super) const NOT_STALE: &str = "a keeper that holds its lock offers no lost clone";
pub(super) const REMOVABLE: &str = "whatever the dead leave can be removed";

/// How the sweeper knows that all its looks are of one uninterrupted server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Restart {
    Unchecked,
    /// The postmaster's start time is the same.
    StartTime,
    /// All looks are made on one session, which survives neither a restart nor a crash recovery; the sweep ends with it.
    SameSession,
}

/// Who notices that a lease's only session is lost while its test touches no database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Watch {
    Nobody,
    /// The helper process, while it finds no keeper.
    WithoutKeeper,
    Always,
}

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The run lock is won exclusively and held while dropping (not only seen free in `pg_locks`).
    pub fence: bool,
    /// DROP runs on the session that holds the fence.
    pub drop_inside_fence: bool,
    pub looks_for_sessions: bool,
    /// 30 s pass between the first look and the fence.
    pub waits: bool,
    /// ... with looks all the time: any sign of life ends the sweep of this run.
    pub keeps_looking: bool,
    pub restart: Restart,
    /// `pg_stat_database.sessions` of all clones stands still from the first look to right before each drop, and none is new.
    pub session_counts: bool,
    /// Plain DROP, which a session prevents.
    pub plain_drop: bool,
    /// The keeper takes a lost lock back before it goes on.
    pub reverify: bool,
    /// ... and then looks which of its clones still exist.
    pub relist: bool,
    /// A lost session of a lease is noticed, not only when the test happens to use it.
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

/// How many of each fault happen.
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
    /// A killed client's backend that goes on.
    orphan: bool,
    /// `pg_stat_database.sessions`.
    sessions: u8,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Keeper {
    Holding,
    /// The connection is lost; not noticed yet.
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
    /// Has a lease whose only session is lost.
    Cut(usize),
    /// Nothing was ready: holds the run lock shared and makes a clone.
    Making,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Sighting {
    start: u8,
    /// `None`: the clone did not exist.
    counts: [Option<u8>; CLONES],
    /// The keeper was suspended at some time since: it may be fenced off. Not the sweeper's knowledge, only the property's.
    slept: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Sweeper {
    Idle,
    /// Looks all the time.
    Seen(Sighting),
    /// The 30 s are over; the fence is next.
    Waited(Sighting),
    /// Drops what its first look listed; `next` has been looked at for the last time.
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
    /// Server starts so far.
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

    /// Every session ends and every advisory lock is free; who has a lease does not notice by itself.
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
        // What follows a loss is only a consequence.
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
