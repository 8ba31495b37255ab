//! The actions and properties of the model.

use stateright::{Model, Property};

use super::{
    Action, DATABASES, Database, Entry, Kind, NOT_LOST, ONE_RUN, Owner, PRISTINE, REMOVABLE, RUNS,
    Run, Seen, Spares, Stage, State, Sweeper, TEMPLATE, Test, VISITOR, run, sweeper, visitors,
};

impl Model for Spares {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let new = Run {
            stage: Stage::New,
            test: Test::Waiting,
            template: 0,
            orphan: None,
        };
        vec![State {
            databases: [Some(Database::spare()), None],
            runs: [new; RUNS],
            sweeper: Sweeper::Idle,
            template: Some(0),
            crashes: 0,
            left: self.budget,
            adopted_dirty: false,
            adopted_foreign: false,
            lost: false,
            thrown_out: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        // Steps after a loss show only consequences of it.
        if s.lost || s.adopted_dirty {
            return;
        }
        for r in 0..RUNS {
            actions.extend([
                Action::Begin(r),
                Action::Create(r),
                Action::Step(r),
                Action::Connect(r),
                Action::Release(r),
                Action::End(r),
                Action::Die(r),
                Action::DieRenaming(r),
                Action::OrphanFinishes(r),
                Action::SweepRun(r),
            ]);
        }
        for d in (0..DATABASES).filter(|d| s.databases[*d].is_some()) {
            actions.extend((0..RUNS).flat_map(|r| [Action::Choose(r, d), Action::Claim(r, d)]));
            actions.extend([
                Action::SweepChooses(d),
                Action::VisitorConnects(d),
                Action::VisitorWritesAndLeaves(d),
                Action::WorkerWrites(d),
                Action::Alter(d),
            ]);
        }
        actions.extend([
            Action::SweepFormer,
            Action::SweepDrops,
            Action::SweepDiesDropping,
            Action::Collect,
            Action::Crash,
        ]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        let g = &self.guards;
        match action {
            Action::Begin(r) => run::begin(&mut s, r),
            Action::Create(r) => run::create(&mut s, r),
            Action::Choose(r, d) => run::choose(&mut s, g, r, d),
            Action::Step(r) => run::step(&mut s, g, r),
            Action::Claim(r, d) => run::claim(&mut s, r, d),
            Action::Connect(r) => run::connect(&mut s, r),
            Action::Release(r) => run::release(&mut s, r),
            Action::End(r) => run::end(&mut s, g, r),
            Action::Die(r) => run::die(&mut s, r),
            Action::DieRenaming(r) => run::die_renaming(&mut s, r),
            Action::OrphanFinishes(r) => run::orphan_finishes(&mut s, g, r),
            Action::SweepRun(r) => sweeper::sweep_run(&mut s, g, r),
            Action::SweepFormer => sweeper::sweep_former(&mut s),
            Action::SweepChooses(d) => sweeper::choose(&mut s, d),
            Action::SweepDrops => sweeper::drop_chosen(&mut s, g),
            Action::SweepDiesDropping => sweeper::die_dropping(&mut s),
            Action::Collect => sweeper::collect(&mut s, g),
            Action::VisitorConnects(d) => visitors::connect(&mut s, d),
            Action::VisitorWritesAndLeaves(d) => visitors::write_and_leave(&mut s, d),
            Action::WorkerWrites(d) => visitors::worker_writes(&mut s, d),
            Action::Alter(d) => visitors::alter(&mut s, d),
            Action::Crash => visitors::crash(&mut s),
        }?;
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(PRISTINE, |_, s: &State| !s.adopted_dirty),
            Property::always(ONE_RUN, |_, s: &State| {
                let users = |b: &Database| {
                    let uses =
                        |r: &usize| s.runs[*r].stage.is_live() && b.entries[*r] != Entry::Missing;
                    (0..RUNS).filter(uses).count()
                };
                s.databases.iter().flatten().all(|b| users(b) <= 1)
            }),
            Property::always(NOT_LOST, |_, s: &State| !s.lost),
            Property::always(TEMPLATE, |_, s: &State| !s.adopted_foreign),
            Property::always(VISITOR, |_, s: &State| !s.thrown_out),
            Property::always(REMOVABLE, sweeper::can_remove_all),
        ];
        properties.extend(self.sometimes());
        properties
    }
}

impl Database {
    pub(super) fn spare() -> Self {
        let seen = Seen {
            sessions: 1,
            tuples: 0,
            row: 0,
            resets: 0,
        };
        Self {
            kind: Kind::Spare,
            serial: 0,
            template: 0,
            pristine: true,
            seen,
            baseline: seen,
            visitor: false,
            entries: [Entry::Missing; RUNS],
        }
    }
}

impl Spares {
    fn sometimes(&self) -> Vec<Property<Self>> {
        let mut properties = sometimes();
        if self.budget.adoptions == [1; RUNS] {
            properties.extend(sometimes_raced());
        }
        if self.budget.creations > 0 {
            properties.extend(sometimes_converted());
        }
        if self.budget.collections > 0 {
            properties.extend(sometimes_collected());
        }
        if self.budget.crashes > 0 {
            properties.push(sometimes_crashed());
        }
        properties
    }
}

fn sometimes() -> Vec<Property<Spares>> {
    vec![
        Property::sometimes("a spare that was visited is noticed", |_, s: &State| {
            let refused = |run: &Run| matches!(run.stage, Stage::Adopted(_, false));
            s.runs.iter().any(refused)
        }),
        Property::sometimes("the sweep comes too late for a spare", |_, s: &State| {
            let Sweeper::Chosen(d, serial) = s.sweeper else {
                return false;
            };
            s.is_held(d) && s.databases[d].is_some_and(|b| b.serial != serial)
        }),
        Property::sometimes("a run dies between rename and entry", |_, s: &State| {
            let left = |b: &Database, r: usize| {
                b.kind == Kind::Clone(Owner::Run(r)) && b.entries[r] == Entry::Adopted
            };
            let dead = |r: usize| s.runs[r].stage == Stage::Dead;
            let mut databases = s.databases.iter().flatten();
            databases.any(|b| (0..RUNS).any(|r| dead(r) && left(b, r)))
        }),
    ]
}

fn sometimes_raced() -> Vec<Property<Spares>> {
    vec![
        Property::sometimes("two runs want one spare", |_, s: &State| {
            let chosen = |r: usize| match s.runs[r].stage {
                Stage::Chosen(d, serial) => Some((d, serial)),
                _ => None,
            };
            chosen(0).is_some() && chosen(0) == chosen(1)
        }),
        Property::sometimes("a run comes too late for a spare", |_, s: &State| {
            let late = |run: &Run| {
                matches!(run.stage, Stage::Chosen(d, serial)
                    if s.databases[d].is_some_and(|b| b.serial != serial && s.is_held(d)))
            };
            s.runs.iter().any(late)
        }),
    ]
}

fn sometimes_converted() -> Vec<Property<Spares>> {
    vec![
        Property::sometimes("a test uses what another run created", |_, s: &State| {
            s.runs[1].test == Test::Using(1)
        }),
        Property::sometimes("two spares are left", |_, s: &State| {
            let spare = |b: &Option<Database>| b.is_some_and(|b| b.kind == Kind::Spare);
            s.databases.iter().all(spare)
        }),
    ]
}

fn sometimes_collected() -> Vec<Property<Spares>> {
    vec![
        Property::sometimes("a spare outlives its template", |_, s: &State| {
            let mut databases = s.databases.iter().flatten();
            s.template.is_none() && databases.any(|b| b.kind == Kind::Spare)
        }),
        Property::sometimes("a spare is older than the template", |_, s: &State| {
            let older = |b: &Database| b.kind == Kind::Spare && s.template > Some(b.template);
            s.databases.iter().flatten().any(older)
        }),
    ]
}

fn sometimes_crashed() -> Property<Spares> {
    Property::sometimes("only a time of a reset shows a crash", |_, s: &State| {
        let shows = |b: &Database| {
            let expected = Seen {
                resets: b.seen.resets,
                ..b.baseline
            };
            b.kind == Kind::Spare && b.seen == expected && b.seen != b.baseline
        };
        s.databases.iter().flatten().any(shows)
    })
}
