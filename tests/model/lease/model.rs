//! The actions and properties of the model.

use stateright::{Model, Property};

use super::{
    Action, CLONE_EXISTS, ENTRY_HELD, FAILED_KEPT, HELPERS, Helper, Keeper, LEASED_CLEAN,
    LEASED_ONCE, Leases, NAMES, NOT_DROPPED, Name, READY_ALONE, READY_CLEAN, RECLAIMABLE,
    REMOVABLE, RENEWED, State, helper, keeper, recycle, straggler,
};

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            names: Default::default(),
            helpers: [Helper::Idle; HELPERS],
            keeper: Keeper::Idle,
            left: self.budget,
            made: false,
            live_dropped: false,
            leased_nothing: false,
            leased_written: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // Steps after a loss show only consequences of it.
        if !not_dropped(self, s) || !leased_once(self, s) || !ready_clean(self, s) {
            return;
        }
        for h in 0..HELPERS {
            actions.extend(
                (0..NAMES)
                    .filter(|n| s.names[*n].ready.is_some())
                    .map(|n| Action::Open(h, n)),
            );
            actions.extend(
                (0..NAMES)
                    .filter(|n| s.names[*n].released.is_some())
                    .map(|n| Action::TakeOver(h, n)),
            );
            actions.extend([
                Action::Step(h),
                Action::Fallback(h),
                Action::Clean(h),
                Action::Release(h),
                Action::Fail(h),
                Action::Die(h),
            ]);
        }
        let exists = |n: &usize| s.names[*n] != Name::default();
        for n in (0..NAMES).filter(exists) {
            actions.extend([
                Action::BackendEnds(n),
                Action::StragglerConnects(n),
                Action::StragglerIsCounted(n),
                Action::StragglerWritesAndLeaves(n),
                Action::StragglerAlters(n),
                Action::WorkerWrites(n),
                Action::KeeperReclaims(n),
                Action::KeeperCleans(n),
                Action::KeeperRenews(n),
                Action::KeeperDropsReleased(n),
                Action::KeeperPreserves(n),
            ]);
        }
        actions.extend([
            Action::KeeperMakes,
            Action::KeeperGivesUp,
            Action::KeeperSteps,
            Action::KeeperDies,
            Action::SuccessorBegins,
        ]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Open(h, n) => helper::open(&mut s, h, n),
            Action::Step(h) => helper::step(&mut s, g, h),
            Action::Fallback(h) => helper::fallback(&mut s, g, h),
            Action::TakeOver(h, n) => helper::take_over(&mut s, g, h, n),
            Action::Clean(h) => helper::clean(&mut s, h),
            Action::Release(h) => helper::release(&mut s, h),
            Action::Fail(h) => helper::fail(&mut s, h),
            Action::Die(h) => helper::die(&mut s, h),
            Action::BackendEnds(n) => straggler::backend_ends(&mut s, n),
            Action::StragglerConnects(n) => straggler::connect(&mut s, n),
            Action::StragglerIsCounted(n) => straggler::is_counted(&mut s, n),
            Action::StragglerWritesAndLeaves(n) => straggler::write_and_leave(&mut s, n),
            Action::StragglerAlters(n) => straggler::alter(&mut s, n),
            Action::WorkerWrites(n) => straggler::worker_writes(&mut s, n),
            Action::KeeperMakes => keeper::make(&mut s, g),
            Action::KeeperReclaims(n) => keeper::reclaim(&mut s, g, n),
            Action::KeeperCleans(n) => recycle::keeper_cleans(&mut s, g, n),
            Action::KeeperGivesUp => recycle::keeper_gives_up(&mut s),
            Action::KeeperRenews(n) => recycle::renew(&mut s, g, n),
            Action::KeeperDropsReleased(n) => keeper::drop_released(&mut s, g, n),
            Action::KeeperPreserves(n) => keeper::preserve(&mut s, n),
            Action::KeeperSteps => keeper::step(&mut s, g),
            Action::KeeperDies => keeper::die(&mut s),
            Action::SuccessorBegins => keeper::succeed(&mut s),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always();
        if self.budget.renewals == 0 {
            properties.extend(sometimes());
        } else {
            properties.extend(sometimes_recycled());
        }
        if self.budget.renewals > 0 && self.budget.fallbacks != [0; HELPERS] {
            properties.extend(sometimes_taken_over());
        }
        if self.budget.visits > 0 {
            properties.extend(sometimes_visited());
        }
        properties
    }
}

fn always() -> Vec<Property<Leases>> {
    vec![
        Property::always(NOT_DROPPED, not_dropped),
        Property::always(LEASED_ONCE, leased_once),
        Property::always(ENTRY_HELD, |_, s: &State| {
            s.helpers.iter().all(|h| match *h {
                Helper::Leased(n, i) | Helper::Cleaning(n, i, _) | Helper::Cleaned(n, i) => {
                    s.names[n].leased == Some(i)
                }
                _ => true,
            })
        }),
        Property::always(CLONE_EXISTS, |_, s: &State| !s.leased_nothing),
        Property::always(LEASED_CLEAN, |_, s: &State| !s.leased_written),
        Property::always(RECLAIMABLE, keeper::can_reclaim_all),
        Property::always(READY_CLEAN, ready_clean),
        Property::always(READY_ALONE, |_, s: &State| {
            let alone = |n: &Name| n.database.as_ref().is_none_or(|d| d.straggler.is_none());
            s.names.iter().all(|n| n.ready.is_none() || alone(n))
        }),
        Property::always(FAILED_KEPT, |_, s: &State| {
            let kept = |n: &Name| n.database.as_ref().is_none_or(|d| !d.failed || d.written);
            s.names.iter().all(kept)
        }),
        Property::always(REMOVABLE, keeper::end_removes_all),
    ]
}

fn sometimes() -> Vec<Property<Leases>> {
    vec![
        Property::sometimes(
            "two helpers want one entry",
            |_, s: &State| matches!(s.helpers, [Helper::Opened(a, _), Helper::Opened(b, _)] if a == b),
        ),
        Property::sometimes("the loser of a race holds the flock", |_, s: &State| {
            s.helpers
                .iter()
                .any(|h| matches!(*h, Helper::Locked(n, _) if s.names[n].ready.is_none()))
        }),
        Property::sometimes(
            "a dead helper's lease is reclaimed",
            |_, s: &State| matches!(s.keeper, Keeper::Reclaiming(n, _) if s.connected(n, None)),
        ),
        Property::sometimes("helpers continue without the keeper", |_, s: &State| {
            s.keeper == Keeper::Dead
                && s.in_use(0)
                && s.helpers.iter().any(|h| h.leases(1) || h.leases(2))
        }),
    ]
}

fn sometimes_recycled() -> Vec<Property<Leases>> {
    vec![
        Property::sometimes("a recycled clone is leased again", |_, s: &State| {
            s.in_use(RENEWED)
        }),
        Property::sometimes(
            "the keeper cleans what its client did not",
            |_, s: &State| matches!(s.keeper, Keeper::Cleaning(..)),
        ),
        Property::sometimes("a keeper dies before the new entry", |_, s: &State| {
            let renewed = &s.names[RENEWED];
            s.keeper == Keeper::Dead && renewed.database.is_some() && renewed.ready.is_none()
        }),
        Property::sometimes(
            "a successor finds an entry without a database",
            |_, s: &State| {
                let left = |n: &Name| n.released.is_some() && n.database.is_none();
                s.keeper == Keeper::Idle && s.left.successors == 0 && s.names.iter().any(left)
            },
        ),
    ]
}

fn sometimes_taken_over() -> Vec<Property<Leases>> {
    vec![
        Property::sometimes(
            "a test takes over what another has released",
            |_, s: &State| {
                let took = |h: &Helper| matches!(h, Helper::TookOver { equal: true, .. });
                s.helpers.iter().any(took)
            },
        ),
        Property::sometimes(
            "a taker dies before the old entry is removed",
            |_, s: &State| {
                let left = |n: &Name| n.released.is_some() && n.database.is_none();
                let dead = |h: &Helper| *h == Helper::Dead;
                s.keeper == Keeper::Idle && s.helpers.iter().any(dead) && s.names.iter().any(left)
            },
        ),
    ]
}

fn sometimes_visited() -> Vec<Property<Leases>> {
    vec![
        Property::sometimes("a visit is noticed after the rename", |_, s: &State| {
            matches!(s.keeper, Keeper::Renamed { equal: false, .. })
        }),
        Property::sometimes("a session prevents the rename", |_, s: &State| {
            let cleaned = |n: usize| s.names[n].released.is_some() && s.names[n].cleaned.is_some();
            (0..NAMES).any(|n| cleaned(n) && s.connected(n, None))
        }),
        Property::sometimes("a straggler finds its old name gone", |_, s: &State| {
            s.left.visits > 0 && s.names[0].known && s.in_use(RENEWED)
        }),
    ]
}

fn not_dropped(_: &Leases, s: &State) -> bool {
    !s.live_dropped
}

fn leased_once(_: &Leases, s: &State) -> bool {
    let leases = |n: &Name| n.database.as_ref().map_or(0, |d| d.leases);
    s.names.iter().all(|n| leases(n) <= 1)
}

fn ready_clean(_: &Leases, s: &State) -> bool {
    let clean = |n: &Name| {
        n.database
            .as_ref()
            .is_none_or(|d| !d.written || d.leases > 0)
    };
    s.names.iter().all(|n| n.ready.is_none() || clean(n))
}
