//! Errors of looking up a kept database: none matches, or several do.

use kapsel_testdb_core::protocol::{DbName, Namespace};

/// No kept database matches, or several do.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The namespace has no kept databases.
    #[error("no kept database matches `{name}`: the namespace `{namespace}` has no kept databases")]
    Nothing {
        /// The name that was given.
        name: String,
        /// The namespace that was searched.
        namespace: Namespace,
    },
    /// No such test or database.
    #[error("no kept database matches `{name}`; kept databases: {available}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The tests that have kept databases.
        available: String,
    },
    /// The name matches several tests.
    #[error(
        "`{name}` matches several tests with kept databases: {candidates}; give a longer part of the name, or the name of the database"
    )]
    Ambiguous {
        /// The name that was given.
        name: String,
        /// The tests.
        candidates: String,
    },
    /// The test has kept databases, but none of that attempt.
    #[error("no kept database matches attempt {attempt}; kept databases: {available}")]
    NoSuchAttempt {
        /// The attempt.
        attempt: u32,
        /// The test with its attempts.
        available: String,
    },
    /// One attempt has several kept databases.
    #[error(
        "`{test}` has several kept databases: {}; name one of them",
        list(names)
    )]
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
