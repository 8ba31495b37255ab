//! The tests that may have committed the differences: all that used the shared clone or, if the server recorded the times of all commits,
//! those that used it at these times. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use kapsel_testdb_core::protocol::{SharedUse, UseMode};

use crate::compare::Comparison;

/// Maximum number of listed tests.
const MAX_TESTS: usize = 20;

/// Tests that may have committed the differences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// Whether the list is limited to tests that used the shared clone when the rows were committed.
    pub by_commit_time: bool,
    /// Tests that used it directly.
    pub shared: Vec<String>,
    /// Tests that used it in a transaction: only a `COMMIT` of their own can have changed it.
    pub transaction: Vec<String>,
    /// Number of tests that are not listed.
    pub unlisted: usize,
}

/// The offset between the server's clock and this host's, which tests record their times with.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// How far the server's clock is ahead, in seconds.
    ahead: f64,
    /// Maximum error of `ahead`, in seconds.
    slack: f64,
}

impl Clock {
    /// From one query: its start by our clock, the server's time in the result, and the duration of the query.
    pub fn new(asked: f64, server: f64, took: Duration) -> Self {
        let took = took.as_secs_f64();
        Self {
            ahead: server - (asked + took / 2.0),
            slack: took / 2.0 + 0.005,
        }
    }

    fn covers(&self, shared: &SharedUse, commit: f64) -> bool {
        let (from, until) = self.span(shared);
        from <= commit && commit <= until
    }

    /// The time of a use by the server's clock, at most.
    pub(super) fn span(&self, shared: &SharedUse) -> (f64, f64) {
        let until = shared.until.unwrap_or(f64::INFINITY);
        (
            shared.at - self.slack + self.ahead,
            until + self.slack + self.ahead,
        )
    }
}

impl Tests {
    /// Lists all tests that used the shared clone or, if all commit times are known and fall into uses, only the tests of these uses.
    pub fn of(uses: &[SharedUse], difference: &Comparison, clock: &Clock) -> Self {
        // What is left of the added rows is not of tests that commit under keys of their own.
        let others: Vec<SharedUse>;
        let uses = match difference.is_only_added() {
            true => {
                others = uses.iter().filter(|u| !u.own_keys).cloned().collect();
                &others[..]
            }
            false => uses,
        };
        let at_that_time = |commits: &[f64]| -> Vec<&SharedUse> {
            let then = |shared: &&SharedUse| commits.iter().any(|at| clock.covers(shared, *at));
            uses.iter().filter(then).collect()
        };
        let matching = commits(difference).map(|commits| at_that_time(&commits));
        match matching.filter(|uses| !uses.is_empty()) {
            Some(uses) => Self::listed(uses, true),
            None => Self::all(uses),
        }
    }

    /// Lists all tests that used the shared clone.
    pub fn all(uses: &[SharedUse]) -> Self {
        Self::listed(uses.iter().collect(), false)
    }

    fn listed(uses: Vec<&SharedUse>, by_commit_time: bool) -> Self {
        let labels = |mode| -> BTreeSet<String> {
            let uses = uses.iter().filter(|shared| shared.mode == mode);
            uses.map(|shared| shared.label()).collect()
        };
        let shared = labels(UseMode::Shared);
        let transaction: Vec<String> = labels(UseMode::Begin)
            .into_iter()
            .filter(|label| !shared.contains(label))
            .collect();
        let all = shared.len() + transaction.len();
        let shared: Vec<String> = shared.into_iter().take(MAX_TESTS).collect();
        let room = MAX_TESTS - shared.len();
        let transaction: Vec<String> = transaction.into_iter().take(room).collect();
        Self {
            by_commit_time,
            unlisted: all - shared.len() - transaction.len(),
            shared,
            transaction,
        }
    }
}

/// The commit times of all differences, if all are known.
fn commits(difference: &Comparison) -> Option<Vec<f64>> {
    if !difference.schema.is_empty() || !difference.not_compared.is_empty() {
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
            own_keys: false,
            at,
            until,
            keys: Vec::new(),
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
    fn known_commit_times_limit_the_list_of_tests() {
        let uses = [
            used("early", UseMode::Shared, 10.0, Some(11.0)),
            used("then", UseMode::Shared, 12.0, Some(14.0)),
            used("killed", UseMode::Shared, 9.0, None),
            used("undone", UseMode::Begin, 12.5, Some(13.5)),
        ];
        // The server's clock is 100 s ahead.
        let clock = Clock::new(0.0, 100.0005, Duration::from_millis(1));
        let tests = Tests::of(&uses, &differs(Some(vec![113.0])), &clock);
        assert!(tests.by_commit_time);
        assert_eq!(tests.shared, ["killed", "then"]);
        assert_eq!(tests.transaction, ["undone"]);
        let all = Tests::of(&uses, &differs(None), &clock);
        assert_eq!((all.by_commit_time, all.shared.len()), (false, 3));
        let none = Tests::of(&uses[..2], &differs(Some(vec![150.0])), &clock);
        assert_eq!((none.by_commit_time, none.shared.len()), (false, 2));
    }

    #[test]
    fn list_is_limited_and_direct_users_come_first() {
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
            (tests.shared.len(), tests.transaction.len(), tests.unlisted),
            (15, 5, 10)
        );
    }
}
