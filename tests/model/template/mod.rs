//! Templates: two runs that want one template, a build that starts from it, the collector that may drop it, the sweep that clears
//! up after dead builders.
//!
//! Modelled: build lock and template lock, lookups, a build in steps (drop a wreck, create, migrate, seal, rename), the handover from
//! `prepare` to the keeper, death between any two steps, a session lost with its locks (once), collection in steps.
//! The collector works in place: it holds the build lock, and the template's lock exclusively, unseals, then drops. What a crash
//! leaves in between stands unsealed under the template's name (a wreck); no lookup takes it for a template, the next builder,
//! under the build lock, or the next collection drops it.
//! Abstracted away: fingerprints (there is one), how many prefixes there are, seeds, failing migrations (a death leaves the same),
//! how the sweep knows that a run is dead ([`super::here`], [`super::afar`]), which templates the collector chooses.
//! Not protected, and not modelled: a run whose keeper was killed, or that has none, holds the template's lock only while one of its
//! test processes has an administrative session; a template that is collected in between is missing for the next clone.
//! Implemented in `src/template/mod.rs` (lookup), `src/template/build.rs` (second look, build, publish), `src/sweep/templates.rs`
//! (`collect_templates`), `src/pg/databases.rs` (`drop_database`), `src/pg/lock.rs`; the handover in `src/cli/prepare.rs` and
//! `src/run/spawn.rs`.

mod steps;
mod tests;

use stateright::{Model, Property};

pub(super) const BUILDERS: usize = 2;

pub(super) const WHOLE: &str = "a template's name leads to a whole template, a wreck or nothing";
pub(super) const USED_SEALED: &str = "no run uses a wreck";
pub(super) const NOT_BLOCKED: &str = "nothing left behind stops a build";
pub(super) const IN_USE: &str = "no template is dropped between its lookup and the end of its use";
pub(super) const ONE_BUILD: &str = "there is one build at a time";
pub(super) const NOT_REBUILT: &str = "what is published is not built again";
pub(super) const UNDISTURBED: &str = "no live builder's database is swept";
pub(super) const REMOVABLE: &str = "whatever the dead leave can be removed";

#[derive(Clone, Debug)]
pub(super) struct Safeguards {
    pub build_lock: bool,
    /// Look again once the build lock is won.
    pub second_look: bool,
    /// Build under a private name; otherwise under the template's own.
    pub private_name: bool,
    /// The private name carries the builder's run, so that a sweep can tell whose it is.
    pub named_by_run: bool,
    /// The builder is in its run (run lock held) before it builds.
    pub run_lock_first: bool,
    pub seal_before_rename: bool,
    /// The lookup passes over what is not sealed.
    pub lookup_wants_sealed: bool,
    /// A run holds the template lock shared before it looks.
    pub lock_before_lookup: bool,
    /// The builder's statements, migrations excepted, run on the session that holds its locks: who lost them cannot go on.
    pub one_session: bool,
    /// Under the build lock the builder drops what stands unsealed under the template's name.
    pub clears_wrecks: bool,
    /// The keeper has the template lock before `prepare` gives its own up. (The code does not wait for it yet.)
    pub handover_overlaps: bool,
    /// The collector holds the build lock: no build starts from what it drops.
    pub collector_build_lock: bool,
    /// The collector wins the template lock exclusively.
    pub collector_locks: bool,
    /// The sweep unsets `is_template` first: a sealed database cannot be dropped.
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
    /// Holds the template lock, where the safeguard says so.
    Looking,
    Missing,
    /// Won the build lock.
    Building,
    /// Saw a wreck under the build lock.
    Clearing,
    Created,
    Migrated,
    /// Sealed, or renamed where the order is turned round.
    Nearly,
    /// `prepare` has it.
    Found,
    /// `prepare` is gone, the keeper has no session yet (only where the safeguard is out).
    HandingOver,
    /// The keeper has it, and clones are made from it.
    Using,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Collector {
    Idle,
    Chosen,
    /// Holds the build lock, where the safeguard says so.
    Alone,
    /// Holds the template lock exclusively, where the safeguard says so.
    Locked,
    /// Unsealed; DROP is next.
    Condemned,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    template: Option<Database>,
    /// Private names, one per builder.
    private: [Option<Database>; BUILDERS],
    builders: [Builder; BUILDERS],
    /// Whose session, and with it every lock, is lost.
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
        // What a half-built template does next is only a consequence.
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
            // A cut session costs a second build, no more.
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
                "a second look finds the template",
                |_, s: &State| matches!(s.builders, [Builder::Building, _] if s.template.is_some()),
            ),
            Property::sometimes("a builder meets a wreck", |_, s: &State| {
                s.builders.contains(&Builder::Clearing)
            }),
            Property::sometimes("a collector meets a wreck", |_, s: &State| {
                s.collector == Collector::Locked && s.template.is_some_and(|t| t.condemned)
            }),
            Property::sometimes("a cut builder's place is taken", |_, s: &State| {
                s.cut[0] && s.builders[1] == Builder::Using
            }),
            Property::sometimes("a sealed leftover waits for the sweep", |_, s: &State| {
                s.builders[0] == Builder::Dead && s.private[0].is_some_and(|d| d.sealed)
            }),
            Property::sometimes("a collected template is built again", |_, s: &State| {
                s.collections_left < 2 && s.builders == [Builder::Done, Builder::Using]
            }),
        ]
    }
}

/// What a collector has unsealed counts as a wreck, whether it is about to drop it or dead.
fn whole(_: &Templates, s: &State) -> bool {
    s.template
        .is_none_or(|t| t.migrated && (t.sealed || t.condemned))
}
