//! What tests of a run left open: `leaks`, one JSON object per line, each appended by one write.
//!
//! A test's own output is hidden if the test passes, so a later command reports the file: the process that removes the run directory moves it into
//! the runtime directory ([`Runtime::preserve_leaks`]). A crash before that leaves it to the next process that removes the directory. Lines that
//! cannot be parsed are ignored.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::append_line;
use crate::protocol::{Claimant, DbName};

const FILE: &str = "leaks";

/// What a passing test left open on its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// Its database.
    pub database: DbName,
    /// The test.
    #[serde(flatten)]
    pub claimant: Claimant,
    /// Connections of the test's pool that were not returned.
    pub held: usize,
    /// The sessions, if they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<LeakedSession>,
}

/// A session that a test left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakedSession {
    /// `idle`, `active`, `idle in transaction` and so on.
    pub state: String,
    /// Its `application_name`.
    pub application: String,
    /// Time in that state, in milliseconds.
    pub since_ms: u64,
    /// The current or last query, shortened.
    pub query: String,
}

impl Leak {
    /// Appends it to the file of a run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, run_dir: &Path) -> io::Result<()> {
        append_line(&run_dir.join(FILE), self)
    }

    /// The file of a run.
    pub(super) fn file_of(run_dir: &Path) -> PathBuf {
        run_dir.join(FILE)
    }

    /// The leaks in a file.
    pub fn read(file: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}
