//! One host: a run directory whose flock says who lives, from `prepare` over the keeper to its end, against a sweep.
//!
//! Modelled: the directory and its lock file as an inode that can be unlinked under whoever opened it, flock shared and exclusive
//! (Linux frees the shared lock when an upgrade fails: tried), the run lock beside it, `prepare`'s handover to the keeper, a test
//! process that joins late, the keeper's end, the sweep step by step, a server restart that frees every advisory lock.
//! Abstracted away: leases and sessions (the promise here is stronger: a live run loses nothing), plain DROP against FORCE (a run
//! dead beyond doubt has only orphaned backends), `prepare` run twice.
//! Not modelled: a run without a keeper (`--no-keeper`). Between `prepare`'s exit and its first test process, and between two test
//! processes, nobody holds its flock: a sweep may take the directory then, and the tests after it take the slow path.
//! Implemented in `src/run_dir/` (directory, flock, gate), `src/run/mod.rs` (opening), `src/run/spawn.rs` (handover),
//! `src/run/teardown.rs` (end), `src/sweep/execute.rs` (`remove_here`) and `src/pg/lock.rs`.

mod members;
mod sweeper;
mod tests;

use stateright::{Model, Property};

/// Database 0 is `prepare`'s, database 1 the keeper's.
const DATABASES: usize = 2;

pub(super) const NOT_DROPPED: &str = "a live run loses no database";
pub(super) const LINKED: &str = "who has joined a run has its directory";
pub(super) const REMOVABLE: &str = "whatever a dead run leaves can be removed from here";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The keeper inherits `prepare`'s descriptor. It takes its own run lock when it is up, perhaps after `prepare`'s exit: in
    /// between, the flock alone says here that the run lives ([`super::afar`]: elsewhere, the 30 s).
    pub handover_overlaps: bool,
    /// Who gets the flock looks whether the lock file is still in place.
    pub join_checks_directory: bool,
    /// The keeper ends the run only with the flock exclusive.
    pub keeper_waits: bool,
    /// The sweep wins the directory's flock exclusively.
    pub sweep_flocks: bool,
    /// The sweep wins the run lock exclusively.
    pub sweep_fences: bool,
    /// The sweep holds both until it is through (not only probes).
    pub sweep_holds: bool,
    /// The sweep lists the run's databases once it holds both.
    pub lists_under_fence: bool,
    /// The sweep removes the directory after the databases.
    pub directory_last: bool,
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
        }
    }
}

/// Which lock file: a directory that was removed and made again has another.
type Inode = u8;

/// How far a process is into the run.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Stage {
    Idle,
    Opened(Inode),
    Flocked(Inode),
    Joined(Inode),
    /// The keeper whose upgrade failed: its shared flock is gone.
    Unlocked(Inode),
    /// The keeper that ends the run: its flock is exclusive.
    Ending(Inode),
    /// Found the run gone: a test process takes the slow path, a keeper stops.
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
            restarts_left: 1,
            live_dropped: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // What follows a loss is only a consequence.
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
            Action::End => members::end(&mut s, g),
            Action::Restart => {
                s.restarts_left = s.restarts_left.checked_sub(1)?;
                s.members.iter_mut().for_each(|m| m.lock = false);
                // The sweep's locks go with its session, and so do its drops.
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
            Property::sometimes("a keeper ends its run", |_, s: &State| {
                matches!(s.members[KEEPER].stage, Stage::Ending(_)) && s.directory.is_none()
            }),
            Property::sometimes("a late test process finds its run gone", |_, s: &State| {
                s.members[TEST].stage == Stage::Gone
            }),
            Property::sometimes("prepare makes its directory again", |_, s: &State| {
                s.inodes == 2 && matches!(s.members[PREPARE].stage, Stage::Joined(_))
            }),
            Property::sometimes("only the run lock stops a sweep", |_, s: &State| {
                matches!(s.sweeper, Sweeper::Flocked(_)) && s.members[KEEPER].lock
            }),
        ]
    }
}
