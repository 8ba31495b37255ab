//! Leases: the entries of a run directory, two test processes that claim them, and the keeper that reclaims them.
//!
//! Modeled:
//! - open, `flock` and rename as separate system calls on inodes (the name of an entry can get another inode), and death between any two of them
//! - fallback clones, recycling (once), orphaned backends of killed clients, the keeper's death
//!
//! Not modeled: states other than `ready/`, `leased/` and `released/`; time; failing system calls; faults of the server (see [`super::afar`]); the
//! sweep of a run without live processes (see [`super::here`]).
//!
//! Differences from the code:
//! - The code does not recycle: it drops every released clone.
//! - In the model, a reclaimed entry stays in `leased/` while its database is dropped. The code renames the entry to `failed/` under the `flock`, and
//!   then renames the database to its kept name or, if nothing is kept, drops it. For a process that still uses the database, both are its loss. A
//!   kept database is no clone any more; its removal is not modeled.
//!
//! Implemented in `crates/core/src/protocol/run_dir/` (entries: `offer`, `claim`, `create_leased`, `move_leased`, `move_abandoned`), `crates/helper/src/session.rs`
//! (claim, fallback, release), `crates/core/src/run/clone.rs` and `crates/core/src/run/kept.rs`, and `src/keeper/` (keeper).

mod helper;
mod keeper;
mod tests;

use stateright::{Model, Property};

/// The keeper creates clone 0; helper `h` creates clone `1 + h` if nothing is ready.
const CLONES: usize = 3;
const HELPERS: usize = 2;

pub(super) const NOT_DROPPED: &str = "no live database is dropped";
pub(super) const LEASED_ONCE: &str = "no clone is leased twice";
pub(super) const ENTRY_HELD: &str = "a live lease holds its own entry";
pub(super) const CLONE_EXISTS: &str = "a claimed clone exists";
pub(super) const RECLAIMABLE: &str = "the keeper can reclaim all leftovers of dead helpers";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// The claimant takes the `flock` of the entry and keeps the descriptor.
    pub flock: bool,
    /// The `flock` comes before the rename, so that `leased/` never has an unlocked entry.
    pub flock_first: bool,
    /// The claim removes the entry from `ready/`. (A link would leave it there.)
    pub claim_renames: bool,
    /// Only a successful rename is a claim; the `flock` alone is not.
    pub rename_decides: bool,
    /// The keeper treats a lease as abandoned only if it gets the `flock` of the entry.
    pub keeper_probes: bool,
    /// The keeper keeps that `flock` while it drops the database.
    pub keeper_holds: bool,
    /// The keeper drops leftovers of its run with FORCE, or ends their sessions before it keeps them, because the backend of a killed client can run
    /// for hours.
    pub force_own: bool,
    /// Recycling moves the entry; a new file under the old name would be another inode.
    pub same_inode: bool,
    /// An entry appears in `ready/` after its database exists.
    pub create_first: bool,
    /// The entry of a fallback clone is written before its database exists.
    pub entry_first: bool,
    /// The entry of a fallback clone is locked before it appears in `leased/` (locked under a private name, then renamed).
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

/// The inode of an entry. The first entry of a clone is inode 0.
type Inode = u8;

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    exists: bool,
    /// The backend of a killed client is still at work.
    orphan: bool,
    /// Number of leases since the clone was created or recycled. A second one would find the rows of the first.
    leases: u8,
    ready: Option<Inode>,
    leased: Option<Inode>,
    released: Option<Inode>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Helper {
    Idle,
    Opened(usize, Inode),
    /// Renamed without a `flock` (only without the safeguard).
    Renamed(usize, Inode),
    Locked(usize, Inode),
    /// Fallback: the entry is in `leased/` but not locked yet (only without the safeguard).
    Written(usize),
    /// Fallback: the entry is in `leased/` and locked; the database is next.
    Announced(usize),
    /// Fallback: the database exists; the entry is next (only without the safeguard).
    Created(usize),
    Leased(usize, Inode),
    /// The entry is in `released/`; the descriptor is still open.
    Releasing(usize, Inode),
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Keeper {
    Idle,
    /// The first half of creating a ready clone: the database, or without that safeguard the entry.
    Making,
    /// Holds the `flock` of the entry (with the safeguard); the drop is next.
    Reclaiming(usize, Inode),
    Dropped(usize),
    Dead,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    clones: [Database; CLONES],
    helpers: [Helper; HELPERS],
    /// Claims that a helper may still start; a process leases several databases one after the other.
    claims_left: [u8; HELPERS],
    /// Whether a helper has created its clone; names are never reused.
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
    /// Whether a process holds the `flock` of the entry `inode` of clone `n`.
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
        // Steps after a database was lost or leased twice show only consequences of it.
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
            Property::sometimes("helpers continue without the keeper", |_, s: &State| {
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
