//! Templates: two runs that need the same template, a build that starts from it, a collector that may drop it, and a sweep that removes the leftovers
//! of dead builders.
//!
//! Modeled:
//! - build lock and template lock, lookups, the handover from `prepare` to the keeper
//! - a build in steps (drop a wreck, create, migrate, seal, rename), and a collection in steps
//! - death between any two steps; a session that is lost with its locks (once)
//!
//! The collector holds the build lock, takes the template's lock exclusive, unseals the template, and drops it. A crash between the last two steps
//! leaves an unsealed database under the template's name (a wreck). No lookup treats it as a template; the next builder, under the build lock, or the
//! next collection drops it.
//!
//! Not modeled: more than one fingerprint, the number of prefixes, seeds, failing migrations (a death leaves the same), how the sweep knows that a run
//! is dead ([`super::here`], [`super::afar`]), which templates the collector chooses, and a stale template: under the build lock, the builder exchanges
//! it for the new one in one transaction.
//!
//! Not protected and not modeled: a run without a keeper, or whose keeper was killed, holds the template's lock only while one of its test processes
//! has an administrative session. If the template is collected in between, the next clone cannot be created from it.
//!
//! Implemented in `crates/core/src/template/mod.rs` (lookup), `crates/core/src/template/build.rs` (second lookup, build, publish),
//! `src/sweep/templates.rs` (`collect_templates`), `crates/core/src/pg/databases.rs` (`drop_database`) and `crates/core/src/pg/lock.rs`; the handover
//! in `src/commands/prepare.rs` and `src/keeper/spawn.rs`.

mod steps;
mod tests;

use stateright::{Model, Property};

pub(super) const BUILDERS: usize = 2;

pub(super) const WHOLE: &str =
    "the name of a template belongs to a complete template, a wreck or no database";
pub(super) const USED_SEALED: &str = "no run uses a wreck";
pub(super) const NOT_BLOCKED: &str = "no leftover prevents a build";
pub(super) const IN_USE: &str = "no template is dropped between its lookup and the end of its use";
pub(super) const ONE_BUILD: &str = "there is one build at a time";
pub(super) const NOT_REBUILT: &str = "a published template is not built again";
pub(super) const UNDISTURBED: &str = "the database of a live builder is not swept";
pub(super) const REMOVABLE: &str = "all leftovers of dead processes can be removed";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    pub build_lock: bool,
    /// The builder looks the template up again after it got the build lock.
    pub second_look: bool,
    /// The build uses a private name; without this, the name of the template.
    pub private_name: bool,
    /// The private name has the builder's run id, so that a sweep knows which run it belongs to.
    pub named_by_run: bool,
    /// The builder holds the run lock before it builds.
    pub run_lock_first: bool,
    pub seal_before_rename: bool,
    /// The lookup ignores an unsealed database.
    pub lookup_wants_sealed: bool,
    /// A run takes the template lock shared before the lookup.
    pub lock_before_lookup: bool,
    /// All statements of the builder except migrations run on the session that holds its locks, so a builder without locks cannot continue.
    pub one_session: bool,
    /// Under the build lock, the builder drops an unsealed database with the template's name.
    pub clears_wrecks: bool,
    /// The keeper has the template lock before `prepare` frees its own. (The code does not wait for that yet.)
    pub handover_overlaps: bool,
    /// The collector holds the build lock, so no build starts from the template that it drops.
    pub collector_build_lock: bool,
    /// The collector takes the template lock exclusive.
    pub collector_locks: bool,
    /// The sweep unsets `is_template` first, because a sealed database cannot be dropped.
    pub sweep_unseals: bool,
}

impl Safeguards {
    pub(super) fn all() -> Self {
        Self {
            build_lock: true,
            second_look: true,
            private_name: true,
            named_by_run: true,
            run_lock_first: true,
            seal_before_rename: true,
            lookup_wants_sealed: true,
            lock_before_lookup: true,
            one_session: true,
            clears_wrecks: true,
            handover_overlaps: true,
            collector_build_lock: true,
            collector_locks: true,
            sweep_unseals: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    migrated: bool,
    sealed: bool,
    /// A collector has unsealed it.
    condemned: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Holder {
    Builder(usize),
    Borrower,
    Collector,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Builder {
    Start,
    /// Holds the template lock (with the safeguard).
    Looking,
    Missing,
    /// Got the build lock.
    Building,
    /// Found a wreck under the build lock.
    Clearing,
    Created,
    Migrated,
    /// Sealed, or renamed if the order is reversed.
    Nearly,
    /// `prepare` holds the template lock.
    Found,
    /// `prepare` has exited, and the keeper has no session yet (only without the safeguard).
    HandingOver,
    /// The keeper holds the template lock, and clones are created from the template.
    Using,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Collector {
    Idle,
    Chosen,
    /// Holds the build lock (with the safeguard).
    Alone,
    /// Holds the template lock exclusive (with the safeguard).
    Locked,
    /// Has unsealed the template; DROP is next.
    Condemned,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    template: Option<Database>,
    /// Databases with private names, one per builder.
    private: [Option<Database>; BUILDERS],
    builders: [Builder; BUILDERS],
    /// Builders that have lost their session, and with it every lock.
    cut: [bool; BUILDERS],
    build_lock: Option<Holder>,
    borrowing: bool,
    borrows_left: u8,
    collector: Collector,
    collections_left: u8,
    blocked: bool,
    rebuilt: bool,
    disturbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Build(usize),
    Cut(usize),
    BuilderDies(usize),
    Borrow,
    Collect,
    CollectorDies,
    Sweep(usize),
}

pub(super) struct Templates {
    pub guards: Safeguards,
}

impl State {
    fn template_locked_shared(&self, g: &Safeguards) -> bool {
        let holds = |b: &Builder| match b {
            Builder::Start | Builder::HandingOver | Builder::Done | Builder::Dead => false,
            Builder::Using => true,
            _ => g.lock_before_lookup,
        };
        let mut builders = self.builders.iter().zip(self.cut);
        builders.any(|(b, cut)| holds(b) && !cut)
    }

    fn template_locked_exclusive(&self, g: &Safeguards) -> bool {
        g.collector_locks && matches!(self.collector, Collector::Locked | Collector::Condemned)
    }
}

impl Builder {
    fn builds(self) -> bool {
        matches!(
            self,
            Builder::Building
                | Builder::Clearing
                | Builder::Created
                | Builder::Migrated
                | Builder::Nearly
        )
    }
}

impl Model for Templates {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            template: None,
            private: [None; BUILDERS],
            builders: [Builder::Start; BUILDERS],
            cut: [false; BUILDERS],
            build_lock: None,
            borrowing: false,
            borrows_left: 1,
            collector: Collector::Idle,
            collections_left: 2,
            blocked: false,
            rebuilt: false,
            disturbed: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // Steps after an incomplete template is visible show only consequences of it.
        if !whole(self, s) {
            return;
        }
        for b in 0..BUILDERS {
            actions.extend([
                Action::Build(b),
                Action::Cut(b),
                Action::BuilderDies(b),
                Action::Sweep(b),
            ]);
        }
        actions.extend([Action::Borrow, Action::Collect, Action::CollectorDies]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Build(b) => steps::build(&mut s, g, b),
            Action::Cut(b) => steps::cut(&mut s, g, b),
            Action::BuilderDies(b) => steps::builder_dies(&mut s, b),
            Action::Borrow => steps::borrow(&mut s, g),
            Action::Collect => steps::collect(&mut s, g),
            Action::CollectorDies => steps::collector_dies(&mut s),
            Action::Sweep(b) => steps::sweep(&mut s, g, b),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, whole),
            Property::always(IN_USE, |_, s: &State| {
                let used = |b: &Builder| matches!(b, Builder::HandingOver | Builder::Using);
                s.template.is_some_and(|t| !t.condemned)
                    || !(s.borrowing || s.builders.iter().any(used))
            }),
            Property::always(USED_SEALED, |_, s: &State| {
                s.template.is_none_or(|t| t.sealed) || !s.builders.contains(&Builder::Found)
            }),
            Property::always(NOT_BLOCKED, |_, s: &State| !s.blocked),
            // A lost session may cause a second build at the same time, nothing worse.
            Property::always(ONE_BUILD, |_, s: &State| {
                s.cut.contains(&true) || s.builders.iter().filter(|b| b.builds()).count() <= 1
            }),
            Property::always(NOT_REBUILT, |_, s: &State| !s.rebuilt),
            Property::always(UNDISTURBED, |_, s: &State| !s.disturbed),
            Property::always(REMOVABLE, steps::can_remove_all),
            Property::sometimes("both runs use one template", |_, s: &State| {
                s.builders == [Builder::Using; BUILDERS]
            }),
            Property::sometimes(
                "a second lookup finds the template",
                |_, s: &State| matches!(s.builders, [Builder::Building, _] if s.template.is_some()),
            ),
            Property::sometimes("a builder meets a wreck", |_, s: &State| {
                s.builders.contains(&Builder::Clearing)
            }),
            Property::sometimes("a collector meets a wreck", |_, s: &State| {
                s.collector == Collector::Locked && s.template.is_some_and(|t| t.condemned)
            }),
            Property::sometimes(
                "another run builds after a builder lost its session",
                |_, s: &State| s.cut[0] && s.builders[1] == Builder::Using,
            ),
            Property::sometimes("a sealed leftover waits for the sweep", |_, s: &State| {
                s.builders[0] == Builder::Dead && s.private[0].is_some_and(|d| d.sealed)
            }),
            Property::sometimes("a collected template is built again", |_, s: &State| {
                s.collections_left < 2 && s.builders == [Builder::Done, Builder::Using]
            }),
        ]
    }
}

/// A template that a collector has unsealed counts as a wreck, whether or not the collector is alive.
fn whole(_: &Templates, s: &State) -> bool {
    s.template
        .is_none_or(|t| t.migrated && (t.sealed || t.condemned))
}
