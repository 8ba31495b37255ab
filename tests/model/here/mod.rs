//! One host: a run directory whose `flock` shows which runs are alive, from `prepare` to the end of the keeper, against a sweep.
//!
//! Modeled:
//! - the directory and its lock file, as an inode that can be unlinked while a process has it open
//! - `flock`, shared and exclusive (Linux frees the shared lock when an upgrade fails: tested), and the run lock
//! - the handover from `prepare` to the keeper, a test process that joins late, the end of the keeper
//! - a `CREATE DATABASE` that outlives the keeper
//! - the sweep step by step, and a server restart, which frees every advisory lock
//!
//! Not modeled:
//! - leases and sessions (the property here is stronger: a live run loses nothing)
//! - DROP with and without FORCE (a run that is certainly dead has only orphaned backends); a second `prepare`
//! - a run without a keeper (`--no-keeper`): between the exit of `prepare` and the first test process, and between two test processes, no process
//!   holds the `flock`. A sweep may remove the directory then; the next tests take the slow path.
//!
//! Implemented in `crates/core/src/protocol/run_dir/` (directory, flock, gate), `crates/core/src/run/mod.rs` (opening), `src/keeper/spawn.rs` (handover),
//! `crates/core/src/run/end.rs` and `src/keeper/teardown.rs` (end), `src/sweep/execute.rs` (`remove_local`) and `crates/core/src/pg/lock.rs`.

mod members;
mod sweeper;
mod tests;

use stateright::{Model, Property};

/// Database 0 is `prepare`'s, database 1 the keeper's.
const DATABASES: usize = 2;

pub(super) const NOT_DROPPED: &str = "a live run loses no database";
pub(super) const LINKED: &str = "a process that has joined a run has its directory";
pub(super) const REMOVABLE: &str = "all leftovers of a dead run can be removed from its host";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The keeper inherits the descriptor of `prepare`. It takes the run lock itself when it has a session, perhaps after the exit of `prepare`.
    /// Between the two, only the `flock` shows on this host that the run is alive; other hosts wait 30 s ([`super::afar`]).
    pub handover_overlaps: bool,
    /// A process that gets the `flock` checks whether the lock file still has its name.
    pub join_checks_directory: bool,
    /// The keeper ends the run only after it got the `flock` exclusive.
    pub keeper_waits: bool,
    /// The sweep takes the `flock` of the directory exclusive.
    pub sweep_flocks: bool,
    /// The sweep takes the run lock exclusive.
    pub sweep_fences: bool,
    /// The sweep holds both until its end. (Otherwise it only probes them.)
    pub sweep_holds: bool,
    /// The sweep lists the databases of the run after it has both.
    pub lists_under_fence: bool,
    /// The sweep removes the directory after the databases.
    pub directory_last: bool,
    /// A session that creates a database holds the run lock shared. So a `CREATE DATABASE` that outlives its client has ended, or was ended, before the
    /// sweep gets the lock.
    pub creators_hold_lock: bool,
}

impl Safeguards {
    pub(super) fn all() -> Self {
        Self {
            handover_overlaps: true,
            join_checks_directory: true,
            keeper_waits: true,
            sweep_flocks: true,
            sweep_fences: true,
            sweep_holds: true,
            lists_under_fence: true,
            directory_last: true,
            creators_hold_lock: true,
        }
    }
}

/// The inode of the lock file. A directory that was removed and created again has another one.
type Inode = u8;

/// How far a process is into the run.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Stage {
    Idle,
    Opened(Inode),
    Flocked(Inode),
    Joined(Inode),
    /// The keeper after a failed upgrade: it has lost its shared `flock`.
    Unlocked(Inode),
    /// The keeper ends the run and holds the `flock` exclusive.
    Ending(Inode),
    /// The run is gone: a test process takes the slow path, a keeper stops.
    Gone,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Member {
    stage: Stage,
    /// Holds the run lock shared.
    lock: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Sweeper {
    Idle,
    Opened(Inode),
    Flocked(Inode),
    Fenced(Inode),
    Dropping(Inode),
}

pub(super) const PREPARE: usize = 0;
pub(super) const KEEPER: usize = 1;
pub(super) const TEST: usize = 2;

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    directory: Option<Inode>,
    inodes: Inode,
    databases: [bool; DATABASES],
    made: [bool; DATABASES],
    members: [Member; 3],
    spawned: bool,
    sweeper: Sweeper,
    list: [bool; DATABASES],
    /// A backend creates the keeper's database; its client is dead.
    orphan: bool,
    restarts_left: u8,
    live_dropped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Step(usize),
    TakeRunLock(usize),
    Make(usize),
    Spawn,
    Exit,
    Die(usize),
    /// The keeper dies while one of its sessions creates its database.
    DieCreating,
    OrphanFinishes,
    End,
    Restart,
    Sweep,
    SweepBacksOut,
}

pub(super) struct Here {
    pub guards: Safeguards,
}

impl State {
    fn flocked_shared(&self, but: Option<usize>, inode: Inode) -> bool {
        self.members.iter().enumerate().any(|(m, member)| {
            Some(m) != but
                && matches!(member.stage, Stage::Flocked(i) | Stage::Joined(i) if i == inode)
        })
    }

    fn flocked_exclusive(&self, g: &Safeguards, inode: Inode) -> bool {
        let by_sweep = g.sweep_flocks
            && match self.sweeper {
                Sweeper::Flocked(i) | Sweeper::Fenced(i) => i == inode,
                Sweeper::Dropping(i) => i == inode && g.sweep_holds,
                Sweeper::Idle | Sweeper::Opened(_) => false,
            };
        by_sweep || self.members[KEEPER].stage == Stage::Ending(inode)
    }

    fn fence_held(&self, g: &Safeguards) -> bool {
        g.sweep_fences
            && match self.sweeper {
                Sweeper::Fenced(_) => true,
                Sweeper::Dropping(_) => g.sweep_holds,
                _ => false,
            }
    }

    fn drop_database(&mut self, d: usize) {
        let live = self.members.iter().any(|m| {
            let holds_lock = m.lock && matches!(m.stage, Stage::Unlocked(_));
            holds_lock || matches!(m.stage, Stage::Joined(_))
        });
        let handed_over =
            self.spawned && matches!(self.members[KEEPER].stage, Stage::Idle | Stage::Opened(_));
        self.live_dropped |= self.databases[d] && (live || handed_over);
        self.databases[d] = false;
    }
}

impl Model for Here {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let idle = Member {
            stage: Stage::Idle,
            lock: false,
        };
        vec![State {
            directory: None,
            inodes: 0,
            databases: [false; DATABASES],
            made: [false; DATABASES],
            members: [idle; 3],
            spawned: false,
            sweeper: Sweeper::Idle,
            list: [false; DATABASES],
            orphan: false,
            restarts_left: 1,
            live_dropped: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // Steps after a loss show only consequences of it.
        if s.live_dropped {
            return;
        }
        for m in [PREPARE, KEEPER, TEST] {
            actions.extend([Action::Step(m), Action::TakeRunLock(m), Action::Die(m)]);
        }
        actions.extend((0..DATABASES).map(Action::Make));
        actions.extend([
            Action::Spawn,
            Action::Exit,
            Action::DieCreating,
            Action::OrphanFinishes,
            Action::End,
            Action::Restart,
            Action::Sweep,
            Action::SweepBacksOut,
        ]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Step(m) => members::step(&mut s, g, m),
            Action::TakeRunLock(m) => members::take_run_lock(&mut s, g, m),
            Action::Make(d) => members::make(&mut s, d),
            Action::Spawn => members::spawn(&mut s, g),
            Action::Exit => members::exit(&mut s),
            Action::Die(m) => members::die(&mut s, m),
            Action::DieCreating => members::die_creating(&mut s),
            Action::OrphanFinishes => members::orphan_finishes(&mut s),
            Action::End => members::end(&mut s, g),
            Action::Restart => {
                s.restarts_left = s.restarts_left.checked_sub(1)?;
                s.members.iter_mut().for_each(|m| m.lock = false);
                s.orphan = false;
                // The sweep loses its session, and with it its locks.
                s.sweeper = Sweeper::Idle;
                Some(())
            }
            Action::Sweep => sweeper::step(&mut s, g),
            Action::SweepBacksOut => sweeper::back_out(&mut s),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_DROPPED, |_, s: &State| !s.live_dropped),
            Property::always(LINKED, |_, s: &State| {
                s.members.iter().all(|m| match m.stage {
                    Stage::Joined(i) => s.directory == Some(i),
                    _ => true,
                })
            }),
            Property::always(REMOVABLE, sweeper::removes_all),
            Property::sometimes("a dead run is swept", |_, s: &State| {
                s.made == [true; 2] && s.databases == [false; 2] && s.directory.is_none()
            }),
            Property::sometimes(
                "a sweep meets a database that a dead keeper is creating",
                |_, s: &State| s.orphan && matches!(s.sweeper, Sweeper::Flocked(_)),
            ),
            Property::sometimes("a keeper ends its run", |_, s: &State| {
                matches!(s.members[KEEPER].stage, Stage::Ending(_)) && s.directory.is_none()
            }),
            Property::sometimes("a late test process finds its run gone", |_, s: &State| {
                s.members[TEST].stage == Stage::Gone
            }),
            Property::sometimes("prepare creates its directory again", |_, s: &State| {
                s.inodes == 2 && matches!(s.members[PREPARE].stage, Stage::Joined(_))
            }),
            Property::sometimes("only the run lock stops a sweep", |_, s: &State| {
                matches!(s.sweeper, Sweeper::Flocked(_)) && s.members[KEEPER].lock
            }),
        ]
    }
}
