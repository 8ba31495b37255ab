//! Who claimed a database: one line of JSON in its entry, written through the descriptor that holds the claim. It moves on with
//! the entry, so a failed test's database can be named after its test, also where the test was killed.
//!
//! A crash before the line is whole leaves a claimant that nobody knows, as other clients' empty entries do.

use serde::{Deserialize, Serialize};

/// The test that a lease is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// Its name.
    pub test: String,
    /// The binary that it is in: nextest's binary id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Which attempt this is, from 1.
    #[serde(default = "first")]
    pub attempt: u32,
    /// Which round of a stress run this is, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stress: Option<u32>,
    /// nextest's id of its run: on the slow path each attempt has a run of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nextest_run: Option<String>,
}

fn first() -> u32 {
    1
}

impl Claimant {
    /// A test of which only the name is known.
    pub fn named(test: &str) -> Self {
        Self {
            test: test.to_owned(),
            binary: None,
            attempt: first(),
            stress: None,
            nextest_run: None,
        }
    }

    /// Whether an earlier attempt of the same test failed.
    pub fn is_retry(&self) -> bool {
        self.attempt > first()
    }

    /// Whether the other one is an attempt of the same test, both being of one run of ours or of nextest's.
    pub fn is_same_test(&self, other: &Self) -> bool {
        let of = |c: &Self| Self {
            attempt: first(),
            ..c.clone()
        };
        of(self) == of(other)
    }

    /// Reads an entry's line, or a part of a comment.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What stands in an entry.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
