//! Decides what a sweep may remove. Pure: the state of the server and of this host goes in, verdicts come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{DbName, Kind, Presence, RunId};
use kapsel_testdb_core::run::kept::{KeepLimits, expired};

/// The state that a plan is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Our databases on the server.
    pub databases: &'a [DatabaseRow],
    /// Run directories on this host, and whether their runs are alive.
    pub directories: &'a BTreeMap<RunId, Presence>,
    /// How many kept databases stay, and for how long.
    pub keep: KeepLimits,
    /// Now.
    pub now: SystemTime,
}

/// What a sweep may do about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its processes live on this host.
    Alive,
    /// It ran on this host and none of its processes is alive: remove it under the fence.
    DeadHere,
    /// It has no directory here and shows no activity: watch it, then remove it under the fence.
    Quiet,
    /// It has no directory here, but one of its databases has a session.
    InUseElsewhere,
}

/// A run and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// The verdict.
    pub verdict: Verdict,
    /// Its databases, without kept ones.
    pub databases: Vec<DbName>,
}

/// What a sweep may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepPlan {
    /// All runs that have a directory or a database.
    pub runs: Vec<RunState>,
    /// Kept databases beyond the limits, oldest first.
    pub expired: Vec<DbName>,
}

/// Makes the plan.
pub fn plan(inputs: &Inputs<'_>) -> SweepPlan {
    let of_runs = || {
        let rows = inputs.databases.iter();
        rows.filter(|row| row.name.kind() != Kind::Kept)
            .filter_map(|row| Some((row.name.run()?, row)))
    };
    let mut runs: BTreeSet<&RunId> = of_runs().map(|(run, _)| run).collect();
    runs.extend(inputs.directories.keys());
    let runs = runs
        .into_iter()
        .map(|run| {
            let rows: Vec<&DatabaseRow> = of_runs()
                .filter(|(r, _)| *r == run)
                .map(|(_, row)| row)
                .collect();
            RunState {
                run: run.clone(),
                verdict: verdict(inputs, run, &rows),
                databases: rows.iter().map(|row| row.name.clone()).collect(),
            }
        })
        .collect();
    SweepPlan {
        runs,
        expired: expired(inputs.databases, inputs.keep, inputs.now)
            .into_iter()
            .map(|row| row.name.clone())
            .collect(),
    }
}

fn verdict(inputs: &Inputs<'_>, run: &RunId, rows: &[&DatabaseRow]) -> Verdict {
    match inputs.directories.get(run) {
        Some(Presence::Alive) => return Verdict::Alive,
        Some(Presence::Dead) => return Verdict::DeadHere,
        Some(Presence::Unknown) | None => {}
    }
    if rows.iter().any(|row| row.sessions > 0) {
        return Verdict::InUseElsewhere;
    }
    Verdict::Quiet
}

/// Whether nothing happened on a run's databases between two checks from one session: no database has a session, had one meanwhile, or
/// is new. A counter that went back means a crash recovery, which also ends the sessions and locks of live runs.
pub fn is_still_quiet(before: &[DatabaseRow], after: &[DatabaseRow]) -> bool {
    after.iter().all(|row| {
        row.sessions == 0
            && before
                .iter()
                .any(|b| b.name == row.name && b.activity == row.activity)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapsel_testdb_core::protocol::{Fingerprint, KeepConfig, Namespace, RunKey};
    use kapsel_testdb_core::run::kept::KeptNote;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn run(key: usize, age: Duration) -> RunId {
        RunId::new(now() - age, &RunKey::new(&[&key.to_string()]))
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn row(run: &RunId, kind: Kind, sessions: i64) -> DatabaseRow {
        let namespace = Namespace::new("app").expect("valid");
        let fingerprint = Fingerprint::from_hash(&[3; 32]);
        let name = match kind {
            Kind::Template => DbName::template(&namespace, &fingerprint),
            kind => DbName::for_run(&namespace, kind, &fingerprint, run),
        };
        DatabaseRow {
            sessions,
            activity: 5,
            ..DatabaseRow::unused(name)
        }
    }

    fn keep(max: usize, max_age_days: u64) -> KeepConfig {
        KeepConfig {
            failed: true,
            max,
            max_age_days,
        }
    }

    fn presence() -> impl Strategy<Value = Option<Presence>> {
        prop_oneof![
            Just(None),
            Just(Some(Presence::Alive)),
            Just(Some(Presence::Dead)),
            Just(Some(Presence::Unknown)),
        ]
    }

    proptest! {
        /// In any state: live runs of this host and runs with sessions are never removed, nor are templates; each database belongs to its own run only.
        #[test]
        fn live_runs_are_never_removed(
            runs in prop::collection::vec((presence(), 0..3i64, 0..5usize), 0..6)
        ) {
            let mut databases = Vec::new();
            let mut directories = BTreeMap::new();
            for (key, (presence, sessions, kinds)) in runs.iter().enumerate() {
                let run = run(key, Duration::ZERO);
                for kind in [Kind::Template, Kind::Building, Kind::Clone, Kind::Shared, Kind::Kept].iter().take(*kinds) {
                    databases.push(row(&run, *kind, *sessions));
                }
                directories.extend(presence.map(|p| (run, p)));
            }
            let plan = plan(&Inputs { databases: &databases, directories: &directories, keep: KeepLimits::Common(keep(100, 100)), now: now() });
            prop_assert!(plan.expired.is_empty());
            for state in &plan.runs {
                for name in &state.databases {
                    prop_assert_eq!(name.run(), Some(&state.run));
                    prop_assert!(!matches!(name.kind(), Kind::Kept | Kind::Template));
                }
                let presence = directories.get(&state.run);
                match state.verdict {
                    Verdict::DeadHere => prop_assert_eq!(presence, Some(&Presence::Dead)),
                    Verdict::Quiet => {
                        prop_assert!(!matches!(presence, Some(Presence::Alive | Presence::Dead)));
                        prop_assert!(databases.iter().filter(|d| state.databases.contains(&d.name)).all(|d| d.sessions == 0));
                    }
                    Verdict::Alive | Verdict::InUseElsewhere => {}
                }
            }
        }
    }

    #[test]
    fn kept_databases_expire_by_number_and_by_age_oldest_first() {
        let day = Duration::from_secs(86_400);
        let ages = [0, 1, 2, 9].map(|days| run(days, day * days as u32));
        let databases: Vec<_> = ages.iter().map(|r| row(r, Kind::Kept, 0)).collect();
        let expired = |keep| {
            plan(&Inputs {
                databases: &databases,
                directories: &BTreeMap::new(),
                keep: KeepLimits::Common(keep),
                now: now(),
            })
            .expired
        };
        let names: Vec<_> = databases.iter().map(|d| d.name.clone()).collect();
        assert_eq!(expired(keep(20, 7)), [names[3].clone()]);
        assert_eq!(expired(keep(2, 100)), [names[3].clone(), names[2].clone()]);
        assert_eq!(expired(keep(20, 100)), []);
    }

    #[test]
    fn a_kept_database_stays_within_the_limits_of_its_run_and_other_roles_do_not_count() {
        let hour = Duration::from_secs(3600);
        let kept = |hours: u32, keep: Option<KeepConfig>| {
            let run = run(hours as usize, hour * hours);
            let mut row = row(&run, Kind::Kept, 0);
            let note = KeptNote {
                tool: String::new(),
                template: row.name.template_name(),
                kept_at: run
                    .created_at()
                    .duration_since(UNIX_EPOCH)
                    .expect("later")
                    .as_millis() as u64,
                run,
                keep,
                cause: None,
                claimant: None,
            };
            row.comment = Some(serde_json::to_string(&note).expect("JSON"));
            row
        };
        let (few, many) = (Some(keep(1, 9)), Some(keep(4, 9)));
        let mut databases = vec![
            kept(7, many),
            kept(6, many),
            kept(5, few),
            kept(4, None),
            kept(3, few),
            kept(2, many),
            kept(1, few),
        ];
        for row in &mut databases[5..] {
            row.owned = false;
        }
        let own = |limits| {
            let expired = expired(&databases, limits, now());
            let place = |row: &&DatabaseRow| databases.iter().position(|d| d.name == row.name);
            expired.iter().filter_map(place).collect::<Vec<_>>()
        };
        assert_eq!(own(KeepLimits::OfItsRun(keep(1, 9))), [0, 2, 3]);
        assert_eq!(own(KeepLimits::OfItsRun(keep(9, 9))), [0, 2]);
        assert_eq!(own(KeepLimits::OfItsRun(keep(9, u64::MAX))), [0, 2]);
        assert_eq!(own(KeepLimits::Common(keep(3, 9))), [0, 1]);
    }

    #[test]
    fn past_session_new_database_or_crash_is_not_quiet() {
        let run = run(1, Duration::ZERO);
        let before = [row(&run, Kind::Clone, 0), row(&run, Kind::Shared, 0)];
        assert!(is_still_quiet(&before, &before));
        assert!(is_still_quiet(&before, &before[..1]), "one was dropped");
        assert!(!is_still_quiet(&before[..1], &before), "one is new");
        for (sessions, activity) in [(1, 5), (0, 6), (0, 0)] {
            let mut after = before.clone();
            after[1].sessions = sessions;
            after[1].activity = activity;
            assert!(!is_still_quiet(&before, &after), "{sessions} {activity}");
        }
    }
}
