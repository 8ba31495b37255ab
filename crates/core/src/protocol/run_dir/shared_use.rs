//! Which tests use the run's shared clone, and when: `shared.uses`, one JSON object per line, each appended by one write.
//!
//! It is read only if something was committed into the shared clone, to list the tests that could have done it. A crash leaves a use without an end.
//! Lines that cannot be parsed are ignored.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::append_line;
use crate::protocol::DbName;

const FILE: &str = "shared.uses";

/// How a test uses the shared clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseMode {
    /// Directly; its commits stay.
    Shared,
    /// In a transaction that is rolled back.
    Begin,
}

/// A use of the shared clone by a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedUse {
    /// A unique word.
    #[serde(rename = "use")]
    pub id: String,
    /// The shared clone. A run may have several, one after the other.
    pub database: DbName,
    /// The mode.
    pub mode: UseMode,
    /// The test.
    pub test: String,
    /// nextest's id of the test binary, under nextest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// The number of the attempt, from 1, under nextest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Whether the test commits only under keys of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_keys: bool,
    /// The start, in seconds since 1970.
    pub at: f64,
    /// The end. `None`: unknown, at the latest the end of the run.
    #[serde(skip)]
    pub until: Option<f64>,
    /// The test's own keys, as far as they are known.
    #[serde(skip)]
    pub keys: Vec<String>,
}

/// A line of `shared.uses`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum UseEvent {
    /// A use begins, before its first statement.
    Open(SharedUse),
    /// A use ends: all of its connections are closed.
    Close {
        /// The word of the use.
        #[serde(rename = "use")]
        id: String,
        /// The time, in seconds since 1970.
        at: f64,
        /// The test's own keys, as far as they are known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
    },
}

impl UseEvent {
    /// Appends the event to the file of a run.
    pub fn append(&self, run_dir: &Path) -> io::Result<()> {
        append_line(&run_dir.join(FILE), self)
    }

    /// The current time, in seconds since 1970.
    pub fn now() -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_secs_f64()
    }
}

impl SharedUse {
    /// All uses of the shared clones of a run.
    pub fn read(run_dir: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(run_dir.join(FILE)).unwrap_or_default();
        let mut uses: Vec<Self> = Vec::new();
        let mut ends = std::collections::HashMap::new();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(UseEvent::Open(open)) => uses.push(open),
                Ok(UseEvent::Close { id, at, keys }) => drop(ends.insert(id, (at, keys))),
                Err(error) => tracing::debug!("ignored the line `{line}`: {error}"),
            }
        }
        for shared in &mut uses {
            if let Some((until, keys)) = ends.remove(&shared.id) {
                shared.until = Some(until);
                shared.keys = keys;
            }
        }
        uses
    }

    /// The test as nextest prints it, with the attempt.
    pub fn label(&self) -> String {
        let binary = self.binary.as_ref().map(|binary| format!("{binary} "));
        let retry = self.attempt.filter(|n| *n > 1);
        let attempt = retry.map(|n| format!(" (attempt {n})"));
        let (binary, attempt) = (binary.unwrap_or_default(), attempt.unwrap_or_default());
        format!("{binary}{}{attempt}", self.test)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn opened(id: String) -> SharedUse {
        SharedUse {
            id,
            database: "app_shared_0000000000000_000000000000000_000000"
                .parse()
                .expect("a name"),
            mode: UseMode::Shared,
            test: "orders::pays".to_owned(),
            binary: Some("shop::it".to_owned()),
            attempt: Some(2),
            own_keys: false,
            at: UseEvent::now(),
            until: None,
            keys: Vec::new(),
        }
    }

    #[test]
    fn concurrent_lines_stay_whole_and_invalid_lines_are_ignored() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let append = |thread: usize| {
            for i in 0..100 {
                let id = format!("{thread}-{i}");
                let open = UseEvent::Open(opened(id.clone()));
                open.append(dir.path()).expect("appended");
                if i % 2 == 0 {
                    let keys = vec![format!("t{thread}")];
                    let close = UseEvent::Close { id, at: 5.0, keys };
                    close.append(dir.path()).expect("appended");
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || append(thread));
            }
        });
        let mut file = OpenOptions::new().append(true).open(dir.path().join(FILE));
        let file = file.as_mut().expect("the file");
        file.write_all(b"{\"event\":\"later\"}\n{\"ev")
            .expect("written");
        let uses = SharedUse::read(dir.path());
        assert_eq!(uses.len(), 800);
        assert_eq!(uses.iter().filter(|u| u.until == Some(5.0)).count(), 400);
        assert_eq!(uses.iter().filter(|u| u.keys.len() == 1).count(), 400);
        assert_eq!(uses[0].label(), "shop::it orders::pays (attempt 2)");
    }
}
