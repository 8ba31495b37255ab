//! The runtime directory: the run directories of this user on this host, and the gate, the lock for creating and removing them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::entries::{TEMPLATES, list_templates};
use super::run::{KEEPER_PID, LOCK};
use super::runtime_files::LOGS;
use super::{IoContext, lock_file, uid};
use crate::env;
use crate::platform::{self, LockMode, SHORT_LOCK_LIMIT};
use crate::protocol::{
    DbName, EntryState, RunDir, RunDirError, RunFile, RunId, RunKey, check_ancestors,
    check_private, open_lock, private_dir,
};

const RUNS: &str = "runs";
const GATE: &str = "runs.lock";

/// The runtime directory of this user on this host.
#[derive(Debug, Clone)]
pub struct Runtime {
    base: PathBuf,
}

/// The lock that a process holds while it creates, joins or removes a run directory. Hold it briefly, never during a statement on the server.
#[derive(Debug)]
pub struct Gate(#[expect(dead_code, reason = "held for its `flock`")] File);

impl Runtime {
    /// Opens the runtime directory, or creates it, and checks that it is private.
    ///
    /// # Errors
    /// [`RunDirError::NotPrivate`] if another user could create files in it.
    pub fn open() -> Result<Self, RunDirError> {
        Self::open_at(&default_base())
    }

    /// [`Self::open`] at a given path.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_at(base: &Path) -> Result<Self, RunDirError> {
        check_ancestors(base)?;
        private_dir(base)?;
        private_dir(&base.join(RUNS))?;
        private_dir(&base.join(LOGS))?;
        Ok(Self {
            base: base.to_path_buf(),
        })
    }

    /// The runtime directory that contains a run directory.
    pub(super) fn containing(run_dir: &Path) -> Self {
        let base = run_dir.ancestors().nth(2).unwrap_or(run_dir);
        Self {
            base: base.to_path_buf(),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.base
    }

    /// Waits for the gate and takes it.
    pub fn gate(&self) -> Result<Gate, RunDirError> {
        let path = self.base.join(GATE);
        let file = open_lock(&path)?;
        lock_file(&file, &path)?;
        Ok(Gate(file))
    }

    /// The runs that have a directory, dead or alive; oldest first.
    pub fn runs(&self) -> Vec<RunId> {
        let entries = fs::read_dir(self.base.join(RUNS));
        let mut runs: Vec<RunId> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        runs.sort();
        runs
    }

    /// The path of a run's directory, whether or not it exists.
    pub fn run_path(&self, run: &RunId) -> PathBuf {
        self.base.join(RUNS).join(run.as_str())
    }

    /// Whether a run has, or had, a keeper that handles SIGTERM.
    pub fn has_keeper_pid(&self, run: &RunId) -> bool {
        self.run_path(run).join(KEEPER_PID).exists()
    }

    /// Creates a run directory and takes its lock shared.
    pub fn create(&self, _gate: &Gate, run: &RunId) -> Result<RunDir, RunDirError> {
        let path = self.run_path(run);
        private_dir(&path)?;
        for state in EntryState::ALL {
            private_dir(&path.join(state.as_str()))?;
        }
        private_dir(&path.join(TEMPLATES))?;
        let lock = open_lock(&path.join(LOCK))?;
        platform::lock(&lock, LockMode::Shared, SHORT_LOCK_LIMIT).at("lock", &path)?;
        Ok(RunDir::new(path, lock))
    }

    /// Joins the live run with this key.
    pub fn find(&self, _gate: &Gate, key: &RunKey) -> Option<RunDir> {
        self.runs()
            .into_iter()
            .rev()
            .filter(|run| run.has_key(key))
            .find_map(|run| RunDir::join_once(&self.run_path(&run)).ok())
            .filter(|dir| dir.read().is_ok())
    }

    /// The `run.json` of each run that is alive on this host.
    pub fn alive(&self) -> Result<Vec<RunFile>, RunDirError> {
        let gate = self.gate()?;
        let alive = |run: &RunId| self.presence(&gate, run) == Presence::Alive;
        let runs = self.runs().into_iter().filter(alive);
        Ok(runs
            .filter_map(|run| RunDir::peek(&self.run_path(&run)))
            .collect())
    }

    /// The templates that live runs of this host use.
    pub fn templates_in_use(&self) -> Result<Vec<DbName>, RunDirError> {
        let of = |file: RunFile| {
            let others = list_templates(&self.run_path(&file.run));
            others.into_iter().chain([file.template])
        };
        Ok(self.alive()?.into_iter().flat_map(of).collect())
    }

    /// Whether a process of the run is alive on this host.
    pub fn presence(&self, gate: &Gate, run: &RunId) -> Presence {
        let path = self.run_path(run);
        match fs::symlink_metadata(&path) {
            Err(_) => Presence::Unknown,
            Ok(_) => match RunDir::fence(gate, &path) {
                Ok(Some(_)) => Presence::Dead,
                _ => Presence::Alive,
            },
        }
    }
}

/// The state of a run, as far as this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A process holds its lock.
    Alive,
    /// It has a directory, and no process holds the lock.
    Dead,
    /// It has no directory here: it belongs to another host or another user.
    Unknown,
}

fn default_base() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dir) = var(env::RUNTIME_DIR) {
        return dir.into();
    }
    // `sudo` or a container may pass the variable on to another user or machine.
    let ours = |dir: &PathBuf| check_private(dir, uid()).is_ok();
    match var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(ours) {
        Some(dir) => dir.join("kapsel-testdb"),
        None => std::env::temp_dir().join(format!("kapsel-testdb-{}", uid())),
    }
}
