//! Which tests could have committed what was found: those that used the shared clone; where the server kept the times of commits and
//! they tell everything, those that used it then. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compare::Comparison;
use crate::run_dir::{SharedUse, UseMode};

/// Most tests that are named.
const MOST: usize = 20;

/// Tests that could have committed something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// Whether only those are named that used the shared clone when the rows were committed.
    pub narrowed: bool,
    /// Those that used it as it is.
    pub shared: Vec<String>,
    /// Those that had a transaction there: only a `COMMIT` of their own could have done it.
    pub begin: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// How the server's clock and this host's, by which tests note their times, compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What the server's is ahead, in seconds.
    ahead: f64,
    /// By how much that may be wrong.
    slack: f64,
}

impl Clock {
    /// From one question: when it was asked by our clock, the server's time in the answer, and how long the answer took.
    pub fn new(asked: f64, server: f64, took: Duration) -> Self {
        let took = took.as_secs_f64();
        Self {
            ahead: server - (asked + took / 2.0),
            slack: took / 2.0 + 0.005,
        }
    }

    fn covers(&self, shared: &SharedUse, commit: f64) -> bool {
        let commit = commit - self.ahead;
        let until = shared.until.unwrap_or(f64::INFINITY);
        shared.at - self.slack <= commit && commit <= until + self.slack
    }
}

impl Tests {
    /// Names them: all that used the shared clone, unless every difference's time of commit is known and was in somebody's use.
    pub fn of(uses: &[SharedUse], difference: &Comparison, clock: &Clock) -> Self {
        let at_that_time = |commits: &[f64]| -> Vec<&SharedUse> {
            let then = |shared: &&SharedUse| commits.iter().any(|at| clock.covers(shared, *at));
            uses.iter().filter(then).collect()
        };
        let narrowed = commits(difference).map(|commits| at_that_time(&commits));
        match narrowed.filter(|uses| !uses.is_empty()) {
            Some(uses) => Self::named(uses, true),
            None => Self::named(uses.iter().collect(), false),
        }
    }

    fn named(uses: Vec<&SharedUse>, narrowed: bool) -> Self {
        let labels = |mode| -> BTreeSet<String> {
            let uses = uses.iter().filter(|shared| shared.mode == mode);
            uses.map(|shared| shared.label()).collect()
        };
        let shared = labels(UseMode::Shared);
        let begin: Vec<String> = labels(UseMode::Begin)
            .into_iter()
            .filter(|label| !shared.contains(label))
            .collect();
        let all = shared.len() + begin.len();
        let shared: Vec<String> = shared.into_iter().take(MOST).collect();
        let room = MOST - shared.len();
        let begin: Vec<String> = begin.into_iter().take(room).collect();
        Self {
            narrowed,
            more: all - shared.len() - begin.len(),
            shared,
            begin,
        }
    }
}

/// When everything that differs was committed, if that is known of everything.
fn commits(difference: &Comparison) -> Option<Vec<f64>> {
    if !difference.schema.is_empty() {
        return None;
    }
    let times = difference.tables.iter().map(|table| table.commits.clone());
    let times: Option<Vec<Vec<f64>>> = times.collect();
    times.map(|times| times.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::TableDifference;

    fn used(test: &str, mode: UseMode, at: f64, until: Option<f64>) -> SharedUse {
        SharedUse {
            id: test.to_owned(),
            database: "app_shared_0000000000000_000000000000000_000000"
                .parse()
                .expect("a name"),
            mode,
            test: test.to_owned(),
            binary: None,
            attempt: None,
            at,
            until,
        }
    }

    fn differs(commits: Option<Vec<f64>>) -> Comparison {
        let table = TableDifference {
            table: "t".to_owned(),
            added: 1,
            removed: 0,
            changed: 0,
            rows: Vec::new(),
            commits,
        };
        Comparison {
            tables: vec![table],
            ..Comparison::default()
        }
    }

    #[test]
    fn times_narrow_the_tests_down_and_lack_of_them_does_not() {
        let uses = [
            used("early", UseMode::Shared, 10.0, Some(11.0)),
            used("then", UseMode::Shared, 12.0, Some(14.0)),
            used("killed", UseMode::Shared, 9.0, None),
            used("undone", UseMode::Begin, 12.5, Some(13.5)),
        ];
        // The server's clock is 100 s ahead.
        let clock = Clock::new(0.0, 100.0005, Duration::from_millis(1));
        let tests = Tests::of(&uses, &differs(Some(vec![113.0])), &clock);
        assert!(tests.narrowed);
        assert_eq!(tests.shared, ["killed", "then"]);
        assert_eq!(tests.begin, ["undone"]);
        let all = Tests::of(&uses, &differs(None), &clock);
        assert_eq!((all.narrowed, all.shared.len()), (false, 3));
        let nobody = Tests::of(&uses[..2], &differs(Some(vec![150.0])), &clock);
        assert_eq!((nobody.narrowed, nobody.shared.len()), (false, 2));
    }

    #[test]
    fn few_are_named_and_those_that_commit_first() {
        let use_of = |i: usize| {
            let mode = if i < 15 {
                UseMode::Begin
            } else {
                UseMode::Shared
            };
            used(&format!("test {i:02}"), mode, 0.0, None)
        };
        let uses: Vec<_> = (0..30).chain(0..30).map(use_of).collect();
        let clock = Clock::new(0.0, 0.0, Duration::ZERO);
        let tests = Tests::of(&uses, &differs(None), &clock);
        assert_eq!(
            (tests.shared.len(), tests.begin.len(), tests.more),
            (15, 5, 10)
        );
    }
}
