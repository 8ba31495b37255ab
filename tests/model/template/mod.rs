//! Templates: two runs that want one template, the collector that may drop it, the sweep that clears up after dead builders.
//!
//! Modelled: build lock and template lock, lookups, a build in steps (create, migrate, seal, rename), death between any two, a
//! build lock lost with its connection (once), collection in steps.
//! Abstracted away: fingerprints (there is one), prefix templates, seeds, failing migrations (a death leaves the same), how the sweep
//! knows that a run is dead ([`super::here`], [`super::afar`]).
//! Implemented in `src/template/` (build, publish, collect), `src/sweep/` and `src/pg/lock.rs`.

mod steps;
mod tests;

use stateright::{Model, Property};

pub(super) const BUILDERS: usize = 2;

pub(super) const WHOLE: &str = "a template's name leads to a whole template or to nothing";
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
    /// The collector wins the template lock exclusively.
    pub collector_locks: bool,
    /// The collector renames the template to a private name of its run before it unseals and drops it.
    pub collector_renames: bool,
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
            collector_locks: true,
            collector_renames: true,
            sweep_unseals: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Hash, PartialEq)]
pub(super) struct Database {
    migrated: bool,
    sealed: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Builder {
    Start,
    /// Holds the template lock, where the safeguard says so.
    Looking,
    Missing,
    /// Won the build lock.
    Building,
    Created,
    Migrated,
    /// Sealed, or renamed where the order is turned round.
    Nearly,
    Found,
    Using,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) enum Collector {
    Idle,
    Chosen,
    /// Holds the template lock exclusively, where the safeguard says so.
    Locked,
    /// Renamed or unsealed; DROP is next.
    Condemned,
    Dead,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct State {
    template: Option<Database>,
    /// Private names, one per builder.
    private: [Option<Database>; BUILDERS],
    /// The collector's private name.
    condemned: Option<Database>,
    builders: [Builder; BUILDERS],
    build_lock: Option<usize>,
    collector: Collector,
    collections_left: u8,
    lock_lost: bool,
    rebuilt: bool,
    disturbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Build(usize),
    LoseBuildLock,
    BuilderDies(usize),
    Collect,
    CollectorDies,
    Sweep(usize),
    SweepCondemned,
}

pub(super) struct Templates {
    pub guards: Safeguards,
}

impl State {
    fn template_locked_shared(&self, g: &Safeguards) -> bool {
        self.builders.iter().any(|b| match b {
            Builder::Start | Builder::Done | Builder::Dead => false,
            Builder::Using => true,
            _ => g.lock_before_lookup,
        })
    }

    fn template_locked_exclusive(&self, g: &Safeguards) -> bool {
        g.collector_locks && matches!(self.collector, Collector::Locked | Collector::Condemned)
    }
}

impl Builder {
    fn builds(self) -> bool {
        matches!(
            self,
            Builder::Building | Builder::Created | Builder::Migrated | Builder::Nearly
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
            condemned: None,
            builders: [Builder::Start; BUILDERS],
            build_lock: None,
            collector: Collector::Idle,
            collections_left: 2,
            lock_lost: false,
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
            actions.extend([Action::Build(b), Action::BuilderDies(b), Action::Sweep(b)]);
        }
        actions.extend([
            Action::LoseBuildLock,
            Action::Collect,
            Action::CollectorDies,
            Action::SweepCondemned,
        ]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Build(b) => steps::build(&mut s, g, b),
            Action::LoseBuildLock => steps::lose_build_lock(&mut s),
            Action::BuilderDies(b) => steps::builder_dies(&mut s, b),
            Action::Collect => steps::collect(&mut s, g),
            Action::CollectorDies => steps::collector_dies(&mut s),
            Action::Sweep(b) => steps::sweep(&mut s, g, b),
            Action::SweepCondemned => steps::sweep_condemned(&mut s, g),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, whole),
            Property::always(IN_USE, |_, s: &State| {
                s.template.is_some() || !s.builders.contains(&Builder::Using)
            }),
            // A lost build lock costs a second build, no more.
            Property::always(ONE_BUILD, |_, s: &State| {
                s.lock_lost || s.builders.iter().filter(|b| b.builds()).count() <= 1
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
            Property::sometimes("two builds race to the rename", |_, s: &State| {
                s.builders == [Builder::Nearly; BUILDERS]
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

/// A collector at work may have unsealed it: nobody looks meanwhile. One that died must not have.
fn whole(_: &Templates, s: &State) -> bool {
    s.template
        .is_none_or(|t| t.migrated && (t.sealed || s.collector == Collector::Condemned))
}
