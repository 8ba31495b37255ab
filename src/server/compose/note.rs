//! What was found out about a service, noted in the runtime folder so that the next process need not ask again: `docker-compose`
//! takes half a second for each question. It is a note, not the truth: it counts only while the same cluster answers there to the
//! same login, and a missing or wrong one costs the questions again.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::name::hex;
use crate::pg::Address;
use crate::run_dir::{RunDirError, Runtime, open_lock, private_dir, write_atomically};

/// What decides which service is meant, besides the configuration.
const VARIABLES: &[&str] = &[
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "COMPOSE_PROJECT_NAME",
    "CONTAINER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
];

/// What was found out about a service.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    /// The tool's words.
    pub command: Vec<String>,
    /// The service.
    pub service: String,
    /// Where it is published; the password is apart, because the type does not write it.
    pub server: Address,
    /// Its password.
    pub password: Option<String>,
    /// The cluster's identifier.
    pub cluster: String,
    /// Where the engine is, if on another machine.
    pub remote_engine: Option<String>,
    /// Whether we brought the service up; else it ran already.
    pub brought_up: bool,
}

/// Where the note about the configured service is, and the lock that lets one process at a time bring it up.
#[derive(Debug)]
pub struct Place {
    note: PathBuf,
    lock: PathBuf,
}

impl Place {
    /// Makes the folder, 0700 in the private runtime folder.
    ///
    /// # Errors
    /// The operating system refused, or another user could write there.
    pub fn open(config: &Config) -> Result<Self, RunDirError> {
        let folder = Runtime::open()?.path().join("compose");
        private_dir(&folder)?;
        let key = key(config);
        Ok(Self {
            note: folder.join(format!("{key}.json")),
            lock: folder.join(format!("{key}.lock")),
        })
    }

    /// The note, if there is one that can be read.
    pub fn read(&self) -> Option<Note> {
        let text = std::fs::read_to_string(&self.note).ok()?;
        let mut note: Note = serde_json::from_str(&text).ok()?;
        note.server.password = note.password.clone();
        Some(note)
    }

    /// Writes the note (0600).
    ///
    /// # Errors
    /// The operating system refused.
    pub fn write(&self, note: &Note) -> Result<(), RunDirError> {
        let text = serde_json::to_string(note).unwrap_or_default();
        write_atomically(&self.note, &text)
    }

    /// Forgets the service.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(&self.note);
    }

    /// The lock's file, not locked yet.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn lock(&self) -> Result<(File, &Path), RunDirError> {
        Ok((open_lock(&self.lock)?, &self.lock))
    }
}

fn key(config: &Config) -> String {
    let compose = &config.server.compose;
    let mut hash = Sha256::new();
    hash.update(format!("{:?} {compose:?}", config.root));
    for name in VARIABLES {
        hash.update(format!("\n{name}={:?}", std::env::var_os(name)));
    }
    hex(&hash.finalize()[..8])
}
