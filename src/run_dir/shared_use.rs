//! Who uses the run's shared clone, and when: `shared.uses`, one JSON object a line, appended by one write each.
//!
//! Read only where something was committed into the shared clone, to name the tests that could have done it. A crash leaves a use
//! without an end; a line that cannot be read is left out.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::name::DbName;

const FILE: &str = "shared.uses";

/// How a test uses the shared clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseMode {
    /// As it is: what it commits stays.
    Shared,
    /// In a transaction that is rolled back.
    Begin,
}

/// A test's use of the shared clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SharedUse {
    /// What no other use has.
    #[serde(rename = "use")]
    pub id: String,
    /// The shared clone: a run may have several, one after the other.
    pub database: DbName,
    /// How it is used.
    pub mode: UseMode,
    /// The test.
    pub test: String,
    /// The binary that it is in, where nextest says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Which attempt of the test, from 1, where nextest says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Since when, in seconds since 1970.
    pub at: f64,
    /// Until when. None: until the run's end, for all that is known.
    #[serde(skip)]
    pub until: Option<f64>,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum UseEvent {
    /// A use begins, before its first statement.
    Open(SharedUse),
    /// A use is over: all of its connections are closed.
    Close {
        /// Which one.
        #[serde(rename = "use")]
        id: String,
        /// When, in seconds since 1970.
        at: f64,
    },
}

impl UseEvent {
    /// Appends it to a run's file.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn note(&self, run_dir: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut file = OpenOptions::new();
        let file = file.create(true).append(true).mode(0o600);
        file.open(run_dir.join(FILE))?.write_all(&line)
    }

    /// The time of now as it stands there.
    pub fn now() -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default().as_secs_f64()
    }
}

impl SharedUse {
    /// All uses of a run's shared clones.
    #[cfg(feature = "cli")]
    pub fn read(run_dir: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(run_dir.join(FILE)).unwrap_or_default();
        let mut uses: Vec<Self> = Vec::new();
        let mut ends = std::collections::HashMap::new();
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(UseEvent::Open(open)) => uses.push(open),
                Ok(UseEvent::Close { id, at }) => drop(ends.insert(id, at)),
                Err(error) => tracing::debug!("`{line}` is no use of the shared clone: {error}"),
            }
        }
        for shared in &mut uses {
            shared.until = ends.get(&shared.id).copied();
        }
        uses
    }

    /// The test as people look for it.
    pub fn label(&self) -> String {
        let binary = self.binary.as_ref().map(|binary| format!("{binary} "));
        let again = self.attempt.filter(|n| *n > 1);
        let again = again.map(|n| format!(" (attempt {n})"));
        let (binary, again) = (binary.unwrap_or_default(), again.unwrap_or_default());
        format!("{binary}{}{again}", self.test)
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
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
            at: UseEvent::now(),
            until: None,
        }
    }

    #[test]
    fn lines_of_many_at_once_stay_whole_and_what_is_no_line_is_left_out() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let note = |thread: usize| {
            for i in 0..100 {
                let id = format!("{thread}-{i}");
                let open = UseEvent::Open(opened(id.clone()));
                open.note(dir.path()).expect("noted");
                if i % 2 == 0 {
                    let close = UseEvent::Close { id, at: 5.0 };
                    close.note(dir.path()).expect("noted");
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || note(thread));
            }
        });
        let mut file = OpenOptions::new().append(true).open(dir.path().join(FILE));
        let file = file.as_mut().expect("the file");
        file.write_all(b"{\"event\":\"later\"}\n{\"ev")
            .expect("written");
        let uses = SharedUse::read(dir.path());
        assert_eq!(uses.len(), 800);
        assert_eq!(uses.iter().filter(|u| u.until == Some(5.0)).count(), 400);
        assert_eq!(uses[0].label(), "shop::it orders::pays (attempt 2)");
    }
}
