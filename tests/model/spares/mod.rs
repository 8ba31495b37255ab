//! Spares: clones that equal their template, belong to no run, and wait for the next one. Two runs adopt and leave them, beside a sweep that drops
//! spares without any lock, a collector of templates, visitors, and a crash of the server.
//!
//! Modeled:
//! - adoption: the choice from a list, then the rename and the comparison in one transaction, then the entry; death after each step, and a rename that
//!   outlives its client (the server finishes it: tested on 15)
//! - the end of a run: the list of ready clones, then each is converted to a spare or dropped; a test process that has claimed a clone and is not
//!   connected yet; the sweep of a dead run
//! - the sweep's choice and its `DROP DATABASE`, which may be interrupted; the collection of the template, and its build by the next run
//! - what makes a spare differ from its template: a visitor's session, a background worker, `ALTER DATABASE` from elsewhere, an interrupted DROP, a
//!   crash, which empties unlogged tables and resets all counters
//!
//! A template that was collected and built again has the same name, but it is another one: the oids of its relations differ, and the reset of a clone
//! goes by oids.
//!
//! The worst case is assumed: a visitor's write moves no counter, only the number of sessions. A spare has had one session when it becomes one (the
//! keeper's, which warms new clones), so after a crash one visit makes that number right again.
//!
//! Not modeled: entries of clones that were claimed and recycling ([`super::lease`]), which spares the sweep chooses (any may be too old or too many), a
//! keeper that dies before its tests, how the sweep knows that a run is dead ([`super::here`], [`super::afar`]), lost sessions, changes of a ready clone
//! by background workers, and visitors that read the new name of an adopted clone from a list of databases.
//!
//! Implemented in `crates/core/src/run/spares.rs` (`adopt`, `adopt_first`, `adopt_more`, `leave`), `crates/core/src/pg/seen.rs` (`rename_and_see`),
//! `crates/core/src/run/end.rs`, `src/sweep/spares.rs`, `src/sweep/execute.rs` (`drop_spares`) and `src/sweep/templates.rs`.

mod model;
mod run;
mod sweeper;
mod tests;
mod visitors;

const RUNS: usize = 2;
/// Database 0 is a spare at the start. Run 0 creates database 1.
const DATABASES: usize = 2;

pub(super) const PRISTINE: &str = "a run adopts only spares that equal their template";
pub(super) const ONE_RUN: &str = "no database is used by two runs";
pub(super) const NOT_LOST: &str = "a live run loses no database";
pub(super) const TEMPLATE: &str = "a run adopts only spares of the template that it uses";
pub(super) const VISITOR: &str = "no session on a spare is ended";
pub(super) const REMOVABLE: &str =
    "everything left behind is a spare that a run can adopt, or can be removed";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    /// A run adopts a spare by renaming it. (Otherwise it only enters it into its own directory.)
    pub rename_adopts: bool,
    /// The new name has the adopter's run id.
    pub own_name: bool,
    /// The comparison comes after the rename, when no visitor can come any more.
    pub rename_first: bool,
    /// The adopter compares the number of sessions,
    pub sessions_compared: bool,
    /// the numbers of written rows,
    pub tuples_compared: bool,
    /// the database's own row and settings,
    pub row_compared: bool,
    /// and the times at which counters were reset.
    pub resets_compared: bool,
    /// The comment identifies the template itself (its oid), not only its name, and the adopter compares that.
    pub template_compared: bool,
    /// A run holds the template's lock shared as long as it adopts.
    pub template_lock: bool,
    /// The session that adopts holds the run lock shared, so a remover of the run ends it first.
    pub adopters_hold_lock: bool,
    /// Clones are converted after the fence: no test process of the run is alive.
    pub fence: bool,
    /// A clone is compared with its baseline before it is converted.
    pub conversion_compares: bool,
    /// The comment has the baseline from the clone's entry. (Otherwise what the server shows at the conversion.)
    pub baseline_kept: bool,
    /// The end of a run goes by the names of databases, not by entries.
    pub end_by_name: bool,
    /// The sweep drops what has the name that it has listed. (Otherwise the database that had it.)
    pub drop_by_name: bool,
    /// The sweep drops spares without FORCE.
    pub plain_drop: bool,
    /// The sweep drops spares whose template is gone.
    pub sweeps_orphans: bool,
    /// A run that finds a spare unfit drops it. (Otherwise it leaves the spare in the list.)
    pub drops_unfit: bool,
}

impl Safeguards {
    pub(super) fn all() -> Self {
        Self {
            rename_adopts: true,
            own_name: true,
            rename_first: true,
            sessions_compared: true,
            tuples_compared: true,
            row_compared: true,
            resets_compared: true,
            template_compared: true,
            template_lock: true,
            adopters_hold_lock: true,
            fence: true,
            conversion_compares: true,
            baseline_kept: true,
            end_by_name: true,
            drop_by_name: true,
            plain_drop: true,
            sweeps_orphans: true,
            drops_unfit: true,
        }
    }
}

/// How often things happen at most.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Budget {
    /// What visitors, workers and interrupted drops do.
    pub visits: u8,
    pub crashes: u8,
    pub collections: u8,
    /// Spares that each run tries to adopt.
    pub adoptions: [u8; RUNS],
    pub creations: u8,
}

/// What sessions on other databases can see of a database.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Seen {
    sessions: u8,
    tuples: u8,
    row: u8,
    /// The server's crashes when the counters began.
    resets: u8,
}

/// The run whose id is in the name of a clone.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Owner {
    Run(usize),
    /// A run that has been over for long (only without the safeguard).
    Former,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Kind {
    Spare,
    Clone(Owner),
}

/// A database's entry in the directory of a run.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq)]
pub(super) enum Entry {
    #[default]
    Missing,
    /// The run has adopted it; the entry is next.
    Adopted,
    Ready,
    Leased,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Database {
    kind: Kind,
    /// Part of the name: it changes with each rename.
    serial: u8,
    /// Which build of the template it was created from.
    template: u8,
    /// Equals its template.
    pristine: bool,
    seen: Seen,
    /// In the entry of a clone, in the comment of a spare.
    baseline: Seen,
    visitor: bool,
    entries: [Entry; RUNS],
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Stage {
    New,
    /// Holds the run lock and the template's lock.
    Live,
    /// Has chosen a spare from a list; the number is the serial in its name.
    Chosen(usize, u8),
    /// Has compared it; the rename is next (only without the safeguard).
    Compared(usize, u8, bool),
    /// Has renamed it. Next: the entry, or the drop.
    Adopted(usize, bool),
    /// Holds the fence, and has listed its ready clones.
    Ending([bool; DATABASES]),
    Over,
    Dead,
    /// A sweep has removed the run's databases and its directory.
    Swept,
}

/// The test process of a run.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Test {
    Waiting,
    /// Has the entry; the connection is next.
    Claimed(usize),
    Using(usize),
    Done,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Run {
    stage: Stage,
    test: Test,
    /// The build of the template that it found.
    template: u8,
    /// A backend still renames this spare; its client is dead.
    orphan: Option<(usize, u8)>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Sweeper {
    Idle,
    /// Has chosen a spare from a list; DROP is next.
    Chosen(usize, u8),
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    databases: [Option<Database>; DATABASES],
    runs: [Run; RUNS],
    sweeper: Sweeper,
    /// The number of its build.
    template: Option<u8>,
    crashes: u8,
    left: Budget,
    adopted_dirty: bool,
    adopted_foreign: bool,
    lost: bool,
    thrown_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Begin(usize),
    Create(usize),
    Choose(usize, usize),
    Step(usize),
    Claim(usize, usize),
    Connect(usize),
    Release(usize),
    End(usize),
    Die(usize),
    /// The run dies while one of its sessions renames a spare.
    DieRenaming(usize),
    OrphanFinishes(usize),
    SweepRun(usize),
    SweepFormer,
    SweepChooses(usize),
    SweepDrops,
    SweepDiesDropping,
    Collect,
    VisitorConnects(usize),
    VisitorWritesAndLeaves(usize),
    WorkerWrites(usize),
    Alter(usize),
    Crash,
}

pub(super) struct Spares {
    pub guards: Safeguards,
    pub budget: Budget,
}

impl Stage {
    /// Whether the run is alive and holds its locks.
    fn is_live(self) -> bool {
        !matches!(self, Self::New | Self::Over | Self::Dead | Self::Swept)
    }
}

impl State {
    /// The database that was listed with this name, if it still has it.
    fn named(&mut self, d: usize, serial: u8) -> Option<&mut Database> {
        self.databases[d].as_mut().filter(|b| b.serial == serial)
    }

    /// Whether a live run counts on this database.
    fn is_held(&self, d: usize) -> bool {
        let holds = |r: usize| {
            let entry = self.databases[d].map(|b| b.entries[r]);
            self.runs[r].stage.is_live() && entry.is_some_and(|e| e != Entry::Missing)
        };
        (0..RUNS).any(holds)
    }

    fn connected(&self, d: usize) -> bool {
        let visited = self.databases[d].is_some_and(|b| b.visitor);
        visited || self.runs.iter().any(|r| r.test == Test::Using(d))
    }
}
