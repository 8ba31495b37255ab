//! Explores a model completely and compares the failed properties with the expected ones.
//!
//! `cargo test --test model -- --nocapture` prints the sizes and, for each failed property, one counterexample (not the shortest).
#![allow(
    clippy::print_stdout,
    reason = "the output is for runs with --nocapture"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, Model};

/// Explores all states: every `always` must hold, and every `sometimes` must have an example.
///
/// A model with `more_than` states or fewer has lost behavior.
pub(crate) fn assert_holds<M>(model: M, more_than: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = explore(model);
    checker.assert_properties();
    let states = checker.unique_state_count();
    assert!(
        states > more_than,
        "only {states} states, expected more than {more_than}"
    );
}

/// Explores all states: exactly the `always` properties in `expected` must have a counterexample.
pub(crate) fn assert_violates<M>(model: M, expected: &[&'static str])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = explore(model);
    let mut violated = BTreeSet::new();
    let properties = checker.model().properties();
    for property in properties
        .iter()
        .filter(|p| p.expectation == Expectation::Always)
    {
        if let Some(path) = checker.discovery(property.name) {
            println!("{}:", property.name);
            for action in path.into_actions() {
                println!("    {action:?}");
            }
            violated.insert(property.name);
        }
    }
    assert_eq!(violated, expected.iter().copied().collect());
}

fn explore<M>(model: M) -> impl Checker<M>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let start = Instant::now();
    let checker = model.checker().spawn_bfs().join();
    println!(
        "{} states, depth {}, {:.2?}",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    checker
}
