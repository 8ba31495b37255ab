//! Which added rows belong to tests that commit only under keys of their own. Pure.
//!
//! If the server records commit times, these are the rows that were committed while such a test used the shared clone, and no test that may commit
//! anything did. Rows with a word of `test_id()` belong to such a test at any time. Without commit times all added rows do, unless another test used
//! the clone directly.

use kapsel_testdb_core::protocol::{SharedUse, UseMode};

use crate::compare::OwnRows;
use crate::pollution::suspects::Clock;

/// Maximum number of words that rows are searched for.
const MAX_WORDS: usize = 2000;

/// The rows that are no pollution.
pub(super) fn own_rows(uses: &[SharedUse], clock: &Clock, has_commit_times: bool) -> OwnRows {
    let direct = || uses.iter().filter(|shared| shared.mode == UseMode::Shared);
    let own = || direct().filter(|shared| shared.own_keys);
    let others = || direct().filter(|shared| !shared.own_keys);
    let words = own().flat_map(|shared| shared.keys.iter().cloned());
    OwnRows {
        all: !has_commit_times && others().next().is_none() && own().next().is_some(),
        committed: if has_commit_times {
            let span = |shared| clock.span(shared);
            without(
                union(own().map(span).collect()),
                &union(others().map(span).collect()),
            )
        } else {
            Vec::new()
        },
        words: words.take(MAX_WORDS).collect(),
    }
}

/// The spans, sorted and without overlaps.
fn union(mut spans: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut union: Vec<(f64, f64)> = Vec::new();
    for span in spans {
        match union.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => union.push(span),
        }
    }
    union
}

/// The parts of `spans` that none of `others` covers. Both are sorted and without overlaps.
fn without(spans: Vec<(f64, f64)>, others: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut left = Vec::new();
    for (start, to) in spans {
        let mut from = start;
        let overlapping = others
            .iter()
            .filter(|other| other.1 >= start && other.0 <= to);
        for (begin, end) in overlapping {
            if *begin > from {
                left.push((from, *begin));
            }
            from = from.max(*end);
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn used(mode: UseMode, own_keys: bool, at: f64, until: Option<f64>) -> SharedUse {
        SharedUse {
            id: String::new(),
            database: "app_shared_0000000000000_000000000000000_000000"
                .parse()
                .expect("a name"),
            mode,
            test: String::new(),
            binary: None,
            attempt: None,
            own_keys,
            at,
            until,
            keys: vec![format!("key{at}")],
        }
    }

    /// Without an offset, and with a slack of 5 ms.
    fn clock() -> Clock {
        Clock::new(0.0, 0.0, Duration::ZERO)
    }

    fn rounded(own: &OwnRows) -> Vec<(f64, f64)> {
        let round = |at: f64| (at * 10.0).round() / 10.0;
        own.committed
            .iter()
            .map(|(a, b)| (round(*a), round(*b)))
            .collect()
    }

    #[test]
    fn commits_while_another_test_may_commit_are_not_own() {
        let uses = [
            used(UseMode::Shared, true, 1.0, Some(3.0)),
            used(UseMode::Shared, true, 2.0, Some(9.0)),
            used(UseMode::Begin, false, 1.0, None),
            used(UseMode::Shared, false, 4.0, Some(5.0)),
            used(UseMode::Shared, false, 8.0, None),
            used(UseMode::Shared, true, 20.0, None),
        ];
        let own = own_rows(&uses, &clock(), true);
        assert_eq!(rounded(&own), [(1.0, 4.0), (5.0, 8.0)]);
        assert_eq!(own.words, ["key1", "key2", "key20"]);
        assert!(!own.all);
        let own = own_rows(&uses[..3], &clock(), true);
        assert_eq!((rounded(&own), own.all), (vec![(1.0, 9.0)], false));
    }

    #[test]
    fn without_commit_times_one_other_test_makes_all_rows_suspect() {
        let uses = [
            used(UseMode::Shared, true, 1.0, Some(3.0)),
            used(UseMode::Begin, false, 1.0, None),
            used(UseMode::Shared, false, 4.0, Some(5.0)),
        ];
        assert!(own_rows(&uses[..2], &clock(), false).all);
        let own = own_rows(&uses, &clock(), false);
        assert_eq!(
            (own.all, own.committed, own.words.len()),
            (false, vec![], 1)
        );
        assert!(!own_rows(&uses[1..], &clock(), false).all);
    }
}
