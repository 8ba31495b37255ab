//! Tests that fail and are tried again, and what is kept of them.

use serde_json::Value;

use super::{Outcome, PATIENCE, Project, Tool, poll_until};
use crate::processes::child;

/// One attempt of a test, as nextest tells it to the test's process.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The variables of a run; none for the slow path.
    pub exported: &'a str,
    /// The test.
    pub test: &'a str,
    /// Which attempt it is, from 1.
    pub number: u32,
}

impl<'a> Attempt<'a> {
    /// The first one.
    pub fn first(exported: &'a str, test: &'a str) -> Self {
        Self {
            exported,
            test,
            number: 1,
        }
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self {
            number: self.number + 1,
            ..self
        }
    }

    /// Its process, which does this.
    pub fn command(self, project: &Project, task: &str) -> Tool {
        child::command(project, self.exported, task)
            .env("NEXTEST_RUN_ID", "7f0f6b0c-0000-4000-8000-000000000000")
            .env("NEXTEST_BINARY_ID", "shop::it")
            .env("NEXTEST_TEST_NAME", self.test)
            .env("NEXTEST_ATTEMPT", self.number.to_string())
            .env("NEXTEST_STRESS_CURRENT", "none")
    }

    /// Runs it to its end.
    pub fn run(self, project: &Project, task: &str) -> Outcome {
        self.command(project, task).run()
    }
}

/// What `kept list --json` lists.
#[track_caller]
pub fn kept(project: &Project) -> Vec<Value> {
    let list = project.run("kept list --json").code(0).json();
    assert_eq!(list["schema"], 1);
    list["kept"].as_array().expect("a list").clone()
}

/// Waits until exactly these are kept, as test and attempt, in any order, and lists them as [`kept`] does.
#[track_caller]
pub fn wait_for_kept(project: &Project, expected: &[(&str, u32)]) -> Vec<Value> {
    let mut expected: Vec<(String, u64)> = expected
        .iter()
        .map(|(test, attempt)| ((*test).to_owned(), u64::from(*attempt)))
        .collect();
    expected.sort();
    poll_until("the right databases are kept", PATIENCE, || {
        let list = kept(project);
        let told = |one: &Value| {
            let test = one["test"].as_str().unwrap_or("?").to_owned();
            (test, one["attempt"].as_u64().unwrap_or(0))
        };
        let mut found: Vec<_> = list.iter().map(told).collect();
        found.sort();
        if found == expected {
            Ok(list)
        } else {
            Err(format!("{found:?}"))
        }
    })
}
