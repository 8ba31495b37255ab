//! Why a test's name leads to no kept database, or to several.

use super::find::KeptDatabase;
use crate::name::{DbName, Namespace};

/// How many candidates an error lists.
const LISTED: usize = 10;

/// What was asked for is not there, or more than one thing is.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Nothing is kept at all.
    #[error("no database of `{wanted}` is kept; in the namespace `{namespace}` none is")]
    Nothing {
        /// What was asked for.
        wanted: String,
        /// Where we looked.
        namespace: Namespace,
    },
    /// No such test or database.
    #[error("no database of `{wanted}` is kept; those that are: {there}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is instead.
        there: String,
    },
    /// The name fits several tests.
    #[error(
        "`{wanted}` fits several tests with kept databases: {candidates}; give more of the name, or the database's"
    )]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// The tests.
        candidates: String,
    },
    /// The test has databases, but not of that attempt.
    #[error("no database of attempt {attempt} is kept; those that are: {there}")]
    NoSuchAttempt {
        /// The attempt.
        attempt: u32,
        /// The test with its attempts.
        there: String,
    },
    /// One attempt has left several databases.
    #[error("`{test}` had several databases: {}; name one of them", list(names))]
    Several {
        /// The test.
        test: String,
        /// Its databases.
        names: Vec<DbName>,
    },
}

fn list(names: &[DbName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// Tests with their attempts, for an error to list; databases of unknown tests by their own names.
pub fn candidates<'a>(kept: impl IntoIterator<Item = &'a KeptDatabase>) -> String {
    let mut tests: Vec<(String, Vec<u32>)> = Vec::new();
    for one in kept {
        let attempt = one.claimant.as_ref().map(|claimant| claimant.attempt);
        let title = one.title();
        match tests.iter_mut().find(|(test, _)| *test == title) {
            Some((_, attempts)) => attempts.extend(attempt),
            None => tests.push((title, attempt.into_iter().collect())),
        }
    }
    let surplus = tests.len().saturating_sub(LISTED);
    let mut shown: Vec<String> = tests.drain(..).take(LISTED).map(with_attempts).collect();
    if surplus > 0 {
        shown.push(format!("{surplus} more (`kapsel-testdb kept list`)"));
    }
    shown.join(", ")
}

fn with_attempts((title, mut attempts): (String, Vec<u32>)) -> String {
    attempts.sort_unstable();
    attempts.dedup();
    let numbers: Vec<String> = attempts.iter().map(u32::to_string).collect();
    match numbers.as_slice() {
        [] => format!("`{title}`"),
        [one] => format!("`{title}` (attempt {one})"),
        several => format!("`{title}` (attempts {})", several.join(", ")),
    }
}
