//! Leases: the entry files of a run directory, two test processes that claim, and the keeper that reclaims.
//!
//! Modelled step by step: open, flock and rename as separate system calls on inodes (an entry's name can come to lead to another
//! inode), death between any two of them, fallback clones, recycling (once), orphaned backends of killed clients, the keeper's death.
//! Abstracted away: directories other than `ready/`, `leased/`, `released/`; time; failing system calls; the server's own faults
//! ([`super::afar`] has those); who may sweep when nobody is left ([`super::here`]).
//! More than the code does today: recycling (every released clone is dropped), and a reclaimed entry that stays in `leased/` while its
//! database is dropped. The code renames it to `failed/` under the flock and takes the database away from there, by its kept name or,
//! where nothing is kept, by a drop: to whoever might still use it, both are the loss of the database. What is kept is no clone any more,
//! and when it goes is not modelled.
//! Implemented in `src/run_dir/` (entries: `offer`, `claim`, `enter_leased`, `move_leased`, `settle_abandoned`), `src/testing/session.rs`
//! (claim, fallback, release), `src/run/clone.rs` and `src/run/kept.rs`, and `src/run/keeper/` (keeper).

mod helper;
mod keeper;
mod tests;

use stateright::{Model, Property};

/// Clone 0 is the keeper's, clone `1 + h` is the one helper `h` makes when nothing is ready.
const CLONES: usize = 3;
const HELPERS: usize = 2;

pub(super) const NOT_DROPPED: &str = "no live database is dropped";
pub(super) const LEASED_ONCE: &str = "no clone is leased twice";
pub(super) const ENTRY_HELD: &str = "a live lease holds its own entry";
pub(super) const CLONE_EXISTS: &str = "a claimed clone exists";
pub(super) const RECLAIMABLE: &str = "the keeper can reclaim whatever dead helpers left";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The claimer flocks the entry and keeps the descriptor.
    pub flock: bool,
    /// The flock comes before the rename, so that nothing unlocked is ever in `leased/`.
    pub flock_first: bool,
    /// The claim takes the entry out of `ready/` (a link would leave it there).
    pub claim_renames: bool,
    /// Only a rename that succeeded is a claim; the flock alone is not.
    pub rename_decides: bool,
    /// The keeper takes a lease for abandoned only when it gets the entry's flock.
    pub keeper_probes: bool,
    /// The keeper keeps that flock while it drops.
    pub keeper_holds: bool,
    /// A run's own leftovers are dropped with FORCE, or kept after their sessions were ended: a killed client's backend can go on
    /// for hours.
    pub force_own: bool,
    /// Recycling moves the entry; a new file under the old name would be another inode.
    pub same_inode: bool,
    /// An entry appears in `ready/` after its database exists.
    pub create_first: bool,
    /// A fallback clone's entry is written before its database exists.
    pub entry_first: bool,
    /// A fallback clone's entry is flocked before it appears in `leased/` (locked under a private name, then renamed).
    pub born_locked: bool,
}

impl Safeguards {
    pub(super) fn all() -> Self {
        Self {
            flock: true,
            flock_first: true,
            claim_renames: true,
            rename_decides: true,
            keeper_probes: true,
            keeper_holds: true,
            force_own: true,
            same_inode: true,
            create_first: true,
            entry_first: true,
            born_locked: true,
        }
    }
}

/// An inode of an entry; a clone's first entry is inode 0.
type Inode = u8;

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    exists: bool,
    /// A backend of a killed client that goes on.
    orphan: bool,
    /// Leases since the clone was made or recycled: the second one would find the first one's rows.
    leases: u8,
    ready: Option<Inode>,
    leased: Option<Inode>,
    released: Option<Inode>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Helper {
    Idle,
    Opened(usize, Inode),
    /// Renamed without a flock (only where the safeguard is out).
    Renamed(usize, Inode),
    Locked(usize, Inode),
    /// Fallback: the entry is in `leased/`, not flocked yet (only where the safeguard is out).
    Written(usize),
    /// Fallback: the entry is in `leased/` and flocked, the database is next.
    Announced(usize),
    /// Fallback: the database exists, the entry is next (only where the safeguard is out).
    Created(usize),
    Leased(usize, Inode),
    /// Renamed to `released/`, descriptor still open.
    Releasing(usize, Inode),
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Keeper {
    Idle,
    /// The first half of making a clone ready: the database, or the entry where that safeguard is out.
    Making,
    /// Holds the entry's flock (where the safeguards say so) and drops next.
    Reclaiming(usize, Inode),
    Dropped(usize),
    Dead,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    clones: [Database; CLONES],
    helpers: [Helper; HELPERS],
    /// Claims a helper may still start: a process leases several databases one after the other.
    claims_left: [u8; HELPERS],
    /// Whether a helper has made its clone; names are never used again.
    fell_back: [bool; HELPERS],
    keeper: Keeper,
    made: bool,
    recycled: bool,
    live_dropped: bool,
    leased_nothing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Open(usize, usize),
    Step(usize),
    Fallback(usize),
    Release(usize),
    Die(usize),
    BackendEnds(usize),
    KeeperMakes,
    KeeperReclaims(usize),
    KeeperRecycles(usize),
    KeeperDropsReleased(usize),
    KeeperSteps,
    KeeperDies,
}

pub(super) struct Leases {
    pub guards: Safeguards,
    pub claims: u8,
}

impl State {
    /// Whether somebody holds the flock of clone `n`'s entry `inode`.
    fn flocked(&self, guards: &Safeguards, n: usize, inode: Inode) -> bool {
        let by_helper = self.helpers.iter().any(|h| match *h {
            Helper::Locked(m, i) | Helper::Leased(m, i) | Helper::Releasing(m, i) => {
                guards.flock && (m, i) == (n, inode)
            }
            Helper::Announced(m) => (m, 0) == (n, inode),
            _ => false,
        });
        let by_keeper = guards.keeper_holds && self.keeper == Keeper::Reclaiming(n, inode);
        by_helper || by_keeper
    }

    fn in_use(&self, n: usize) -> bool {
        self.helpers
            .iter()
            .any(|h| matches!(*h, Helper::Leased(m, _) if m == n))
    }

    fn drop_database(&mut self, n: usize) {
        self.live_dropped |= self.clones[n].exists && self.in_use(n);
        self.clones[n].exists = false;
        self.clones[n].orphan = false;
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            clones: Default::default(),
            helpers: [Helper::Idle; HELPERS],
            claims_left: [self.claims; HELPERS],
            fell_back: [false; HELPERS],
            keeper: Keeper::Idle,
            made: false,
            recycled: false,
            live_dropped: false,
            leased_nothing: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // What breaks after a database is lost or shared is only a consequence.
        if !not_dropped(self, s) || !leased_once(self, s) {
            return;
        }
        for h in 0..HELPERS {
            actions.extend((0..CLONES).map(|n| Action::Open(h, n)));
            actions.extend([
                Action::Step(h),
                Action::Fallback(h),
                Action::Release(h),
                Action::Die(h),
            ]);
        }
        for n in 0..CLONES {
            actions.extend([
                Action::BackendEnds(n),
                Action::KeeperReclaims(n),
                Action::KeeperRecycles(n),
                Action::KeeperDropsReleased(n),
            ]);
        }
        actions.extend([Action::KeeperMakes, Action::KeeperSteps, Action::KeeperDies]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Open(h, n) => helper::open(&mut s, h, n),
            Action::Step(h) => helper::step(&mut s, g, h),
            Action::Fallback(h) => helper::fallback(&mut s, g, h),
            Action::Release(h) => helper::release(&mut s, h),
            Action::Die(h) => helper::die(&mut s, h),
            Action::BackendEnds(n) => std::mem::take(&mut s.clones[n].orphan).then_some(()),
            Action::KeeperMakes => keeper::make(&mut s, g),
            Action::KeeperReclaims(n) => keeper::reclaim(&mut s, g, n),
            Action::KeeperRecycles(n) => keeper::recycle(&mut s, g, n),
            Action::KeeperDropsReleased(n) => keeper::drop_released(&mut s, n),
            Action::KeeperSteps => keeper::step(&mut s, g),
            Action::KeeperDies => keeper::die(&mut s),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_DROPPED, not_dropped),
            Property::always(LEASED_ONCE, leased_once),
            Property::always(ENTRY_HELD, |_, s: &State| {
                s.helpers.iter().all(|h| match *h {
                    Helper::Leased(n, i) => s.clones[n].leased == Some(i),
                    _ => true,
                })
            }),
            Property::always(CLONE_EXISTS, |_, s: &State| !s.leased_nothing),
            Property::always(RECLAIMABLE, keeper::can_reclaim_all),
            Property::sometimes(
                "two helpers want one entry",
                |_, s: &State| matches!(s.helpers, [Helper::Opened(a, _), Helper::Opened(b, _)] if a == b),
            ),
            Property::sometimes("the loser of a race holds the flock", |_, s: &State| {
                s.helpers
                    .iter()
                    .any(|h| matches!(*h, Helper::Locked(n, _) if s.clones[n].ready.is_none()))
            }),
            Property::sometimes(
                "a dead helper's lease is reclaimed",
                |_, s: &State| matches!(s.keeper, Keeper::Reclaiming(n, _) if s.clones[n].orphan),
            ),
            Property::sometimes("a recycled clone is leased again", |_, s: &State| {
                s.recycled && s.in_use(0)
            }),
            Property::sometimes("helpers go on without the keeper", |_, s: &State| {
                s.keeper == Keeper::Dead && s.in_use(0) && s.in_use(2)
            }),
        ]
    }
}

fn not_dropped(_: &Leases, s: &State) -> bool {
    !s.live_dropped
}

fn leased_once(_: &Leases, s: &State) -> bool {
    s.clones.iter().all(|c| c.leases <= 1)
}
