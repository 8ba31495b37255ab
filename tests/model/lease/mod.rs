//! Leases: the entries of a run directory, two test processes that claim them, and the keeper that reclaims, recycles or drops what they release.
//!
//! Modeled:
//! - open, `flock` and rename as separate system calls on inodes (the name of an entry can get another inode), and death between any two of them
//! - fallback clones, orphaned backends of killed clients, failed tests, the keeper's death; a process that continues where a dead keeper stopped
//! - recycling (once): a clone is cleaned by its test process, or by the keeper; then it gets a new name, is compared with the `cleaned` line, and
//!   becomes ready again
//! - a test process that finds nothing ready takes a cleaned clone over by itself: under the name of its own new entry, with the same comparison
//! - stragglers of a test: a session that outlives the test or comes back by the old name, `ALTER DATABASE` from a session elsewhere, and a background
//!   worker, which the server does not count as a session
//!
//! The worst case is assumed: a straggler's write moves no counter of the database (as `setval`: tested on 15), it comes at the session's end, and
//! the session is counted at any time between its begin and its end (the server counts it soon after the begin: tested on 15). Sessions of the cleaning
//! process itself are not counted here.
//!
//! Residual risk: an `ALTER DATABASE … SET` that waits for the rename changes the database under its new name, because the server looks up the name
//! before it waits. (Connections and DROP fail then. All tested on 15.)
//!
//! Not modeled: states other than `ready/`, `leased/`, `released/` and `failed/`; what cleaning does (see `crates/core/src/recycle/`); spares and a
//! rename that outlives its client (see [`super::spares`]); retries; time; failing system calls; faults of the server (see [`super::afar`]); the sweep
//! of a run without live processes (see [`super::here`]); visitors of a clone that no test has had yet.
//!
//! Differences from the code:
//! - An abandoned entry goes to `released/`, as without `keep.failed`. With it, the entry goes to `failed/`, as that of a failed test here. A kept
//!   database is no clone any more; its removal is not modeled.
//! - The keeper's workers act one after the other. The process that continues after the keeper's death handles any entry, not only its own.
//!
//! Implemented in `crates/core/src/protocol/run_dir/` (entries: `offer`, `claim`, `create_leased`, `move_leased`, `move_abandoned`), `crates/helper/src/session.rs`
//! (claim, fallback, release), `crates/core/src/recycle/` (cleaning), `crates/core/src/run/{clone,renew,kept}.rs` (`obtain` takes over), and `src/keeper/` (keeper).

mod helper;
mod keeper;
mod model;
mod recycle;
mod straggler;
mod tests;

use recycle::Cleaning;

/// The keeper creates clone 0; helper `h` creates clone `1 + h` if nothing is ready.
const NAMES: usize = 4;
/// The new name of a recycled clone.
const RENEWED: usize = 3;
const HELPERS: usize = 2;

pub(super) const NOT_DROPPED: &str = "no live database is dropped";
pub(super) const LEASED_ONCE: &str = "no clone is leased twice without being recycled";
pub(super) const ENTRY_HELD: &str = "a live lease holds its own entry";
pub(super) const LEASED_CLEAN: &str = "a test gets a clone that equals its template";
pub(super) const CLONE_EXISTS: &str = "a claimed clone exists";
pub(super) const RECLAIMABLE: &str = "the keeper can reclaim all leftovers of dead helpers";
pub(super) const READY_CLEAN: &str = "a ready clone equals its template";
pub(super) const READY_ALONE: &str = "no straggler is connected to a ready clone";
pub(super) const FAILED_KEPT: &str = "the database of a failed test is neither cleaned nor ready";
pub(super) const REMOVABLE: &str = "all databases of a dead run can be found";

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
    /// The keeper keeps that `flock` while it moves the entry.
    pub keeper_holds: bool,
    /// The keeper drops leftovers of its run with FORCE, or ends their sessions before it keeps them, because the backend of a killed client can run
    /// for hours.
    pub force_own: bool,
    /// An entry appears in `ready/` after its database exists.
    pub create_first: bool,
    /// The entry of a fallback clone is written before its database exists.
    pub entry_first: bool,
    /// The entry of a fallback clone is locked before it appears in `leased/` (locked under a private name, then renamed).
    pub born_locked: bool,
    /// Cleaning begins when no other session is on the clone.
    pub quiet: bool,
    /// The sessions are counted before that check, and this number is compared later. A number that is read later includes a session that began in
    /// between and writes afterwards.
    pub count_first: bool,
    /// The entry has a `cleaned` line before the clone is offered again.
    pub needs_line: bool,
    /// A recycled clone gets a new name and with it a new entry.
    pub new_name: bool,
    /// The comparison comes after the rename, when no visitor can come any more.
    pub rename_first: bool,
    /// The server refuses to rename a database that has sessions.
    pub rename_alone: bool,
    /// The number of sessions is compared.
    pub sessions_compared: bool,
    /// The numbers of written rows are compared.
    pub tuples_compared: bool,
    /// The database's own row and settings are compared.
    pub row_compared: bool,
    /// The entry of the old name goes after the entry of the new one is there.
    pub old_entry_last: bool,
    /// The run's end goes by the names of databases, not by entries.
    pub end_by_name: bool,
    /// Only what is in `released/` is recycled, and a failed test's entry never gets there.
    pub failed_apart: bool,
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
            create_first: true,
            entry_first: true,
            born_locked: true,
            quiet: true,
            count_first: true,
            needs_line: true,
            new_name: true,
            rename_first: true,
            rename_alone: true,
            sessions_compared: true,
            tuples_compared: true,
            row_compared: true,
            old_entry_last: true,
            end_by_name: true,
            failed_apart: true,
        }
    }
}

/// How often things happen at most.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Budget {
    /// Claims of each helper; a process leases several databases one after the other.
    pub claims: [u8; HELPERS],
    pub fallbacks: [u8; HELPERS],
    pub renewals: u8,
    /// What stragglers do.
    pub visits: u8,
    /// Processes that continue after the keeper's death.
    pub successors: u8,
}

/// The inode of an entry. The first entry of a name is inode 0.
type Inode = u8;

/// What sessions on other databases can see of a database.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq)]
pub(super) struct Seen {
    /// Sessions of stragglers.
    sessions: u8,
    tuples: u8,
    row: u8,
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    /// The backend of a killed client is still at work.
    orphan: bool,
    /// A straggler is connected; `Some(true)`: the server has counted its session.
    straggler: Option<bool>,
    /// Differs from its template.
    written: bool,
    seen: Seen,
    /// Number of leases since the clone was created or recycled.
    leases: u8,
    /// Its test has failed.
    failed: bool,
}

/// A name, the database that has it now, and its entries.
#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub(super) struct Name {
    database: Option<Database>,
    ready: Option<Inode>,
    leased: Option<Inode>,
    released: Option<Inode>,
    failed: Option<Inode>,
    /// The `cleaned` line of the entry.
    cleaned: Option<Seen>,
    /// A test has had this name, so its stragglers know it.
    known: bool,
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
    /// Has renamed the released clone `old` to `new`, the name of its own entry, and compared. The removal of the old entry is next.
    TookOver {
        old: usize,
        new: usize,
        equal: bool,
    },
    Leased(usize, Inode),
    /// The test has passed, and its process cleans the clone.
    Cleaning(usize, Inode, Cleaning),
    /// The entry has a `cleaned` line; the session is still open, but idle.
    Cleaned(usize, Inode),
    /// The entry is in `released/` or `failed/`, the session is closed; the descriptor is still open.
    Releasing(usize, Inode),
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Keeper {
    Idle,
    /// The first half of creating a ready clone: the database, or without that safeguard the entry.
    Making,
    /// Holds the `flock` of the entry (with the safeguard); the move to `released/` is next.
    Reclaiming(usize, Inode),
    Dropped(usize),
    /// Cleans a clone that was released without a `cleaned` line.
    Cleaning(usize, Cleaning),
    /// Has compared; the rename is next (only without the safeguard).
    Compared(usize, bool),
    /// Has renamed `old` to `new`, and compared. Next: the new entry, or the drop.
    Renamed {
        old: usize,
        new: usize,
        equal: bool,
    },
    /// The new entry is there, the old one is next.
    Offered(usize),
    /// The old entry is gone, the new one is next (only without the safeguard).
    Forgotten(usize, Inode),
    Dead,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    names: [Name; NAMES],
    helpers: [Helper; HELPERS],
    keeper: Keeper,
    left: Budget,
    made: bool,
    live_dropped: bool,
    leased_nothing: bool,
    leased_written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Open(usize, usize),
    Step(usize),
    Fallback(usize),
    TakeOver(usize, usize),
    Clean(usize),
    Release(usize),
    Fail(usize),
    Die(usize),
    BackendEnds(usize),
    StragglerConnects(usize),
    StragglerIsCounted(usize),
    StragglerWritesAndLeaves(usize),
    StragglerAlters(usize),
    WorkerWrites(usize),
    KeeperMakes,
    KeeperReclaims(usize),
    KeeperCleans(usize),
    KeeperGivesUp,
    KeeperRenews(usize),
    KeeperDropsReleased(usize),
    KeeperPreserves(usize),
    KeeperSteps,
    KeeperDies,
    SuccessorBegins,
}

pub(super) struct Leases {
    pub guards: Safeguards,
    pub budget: Budget,
}

impl State {
    /// Whether a process holds the `flock` of the entry `inode` of name `n`.
    fn flocked(&self, guards: &Safeguards, n: usize, inode: Inode) -> bool {
        let by_helper = self.helpers.iter().any(|h| match *h {
            Helper::Locked(m, i)
            | Helper::Leased(m, i)
            | Helper::Cleaning(m, i, _)
            | Helper::Cleaned(m, i)
            | Helper::Releasing(m, i) => guards.flock && (m, i) == (n, inode),
            Helper::Announced(m) | Helper::TookOver { new: m, .. } => (m, 0) == (n, inode),
            _ => false,
        });
        let by_keeper = guards.keeper_holds && self.keeper == Keeper::Reclaiming(n, inode);
        by_helper || by_keeper
    }

    /// Whether a session is on the database `n`, other than that of the helper `but`.
    fn connected(&self, n: usize, but: Option<usize>) -> bool {
        let database = self.names[n].database.as_ref();
        let stray = database.is_some_and(|d| d.orphan || d.straggler.is_some());
        stray || (0..HELPERS).any(|h| Some(h) != but && self.helpers[h].leases(n))
    }

    fn in_use(&self, n: usize) -> bool {
        let takes = |h: &Helper| matches!(*h, Helper::TookOver { new, .. } if new == n);
        self.helpers.iter().any(|h| h.leases(n) || takes(h))
    }

    fn drop_database(&mut self, n: usize) {
        let existed = self.names[n].database.take().is_some();
        self.live_dropped |= existed && self.in_use(n);
    }
}

impl Helper {
    fn leases(self, n: usize) -> bool {
        match self {
            Self::Leased(m, _) | Self::Cleaning(m, ..) | Self::Cleaned(m, _) => m == n,
            _ => false,
        }
    }
}
