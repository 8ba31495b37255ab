//! The claimant of a database: one line of JSON in its entry, written through the descriptor that holds the claim. The line stays in the entry, so
//! the kept database of a test can be found by the test's name, even if the test was killed.
//!
//! A crash before the line is complete leaves an entry of an unknown test. Clients in other languages may leave the entry empty.

use std::env::var;

use serde::{Deserialize, Serialize};

use crate::env;

/// The test that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// The name of the test.
    pub test: String,
    /// nextest's id of the test binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// The number of the attempt, from 1.
    #[serde(default = "first")]
    pub attempt: u32,
    /// The round of a stress run, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stress: Option<u32>,
    /// nextest's run id. (On the slow path each attempt has its own run of ours.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nextest_run: Option<String>,
}

fn first() -> u32 {
    1
}

impl Claimant {
    /// A test with only its name known.
    pub fn named(test: &str) -> Self {
        Self {
            test: test.to_owned(),
            binary: None,
            attempt: first(),
            stress: None,
            nextest_run: None,
        }
    }

    /// The test that nextest started this process for, if any.
    pub fn from_nextest() -> Option<Self> {
        let number = |name| var(name).ok()?.parse().ok();
        Some(Self {
            test: var(env::NEXTEST_TEST_NAME).ok()?,
            binary: var(env::NEXTEST_BINARY_ID).ok(),
            attempt: number(env::NEXTEST_ATTEMPT).unwrap_or(first()),
            stress: number(env::NEXTEST_STRESS_CURRENT),
            nextest_run: var(env::NEXTEST_RUN_ID).ok(),
        })
    }

    /// The test as nextest prints it, with the attempt of a retry.
    pub fn label(&self) -> String {
        let binary = self.binary.as_ref().map(|binary| format!("{binary} "));
        let attempt = self
            .is_retry()
            .then(|| format!(" (attempt {})", self.attempt));
        let (binary, attempt) = (binary.unwrap_or_default(), attempt.unwrap_or_default());
        format!("{binary}{}{attempt}", self.test)
    }

    /// Whether it is a retry, so that an earlier attempt of the same test failed.
    pub fn is_retry(&self) -> bool {
        self.attempt > first()
    }

    /// Whether both are attempts of one test. Call it only for claimants of one run of ours or of nextest's.
    pub fn is_same_test(&self, other: &Self) -> bool {
        let of = |c: &Self| Self {
            attempt: first(),
            ..c.clone()
        };
        of(self) == of(other)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
