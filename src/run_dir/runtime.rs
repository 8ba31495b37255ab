//! The folder of all run directories of this user on this host, and the gate through which they come and go.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::entries::{Folder, TEMPLATES, list_templates};
use super::{At, RunDir, RunDirError, RunFile, check_private, open_lock, private_dir, uid};
use crate::env;
use crate::name::{DbName, RunId, RunKey};

/// The folder of all run directories of this user on this host.
#[derive(Debug, Clone)]
pub struct Runtime {
    base: PathBuf,
}

/// Held while run directories are made, joined or removed. Short: never across a statement to the server.
#[derive(Debug)]
pub struct Gate(#[expect(dead_code, reason = "held for its flock")] File);

impl Runtime {
    /// Opens (makes) the runtime folder and checks that it is private.
    ///
    /// # Errors
    /// [`RunDirError::NotPrivate`] where another user could write.
    pub fn open() -> Result<Self, RunDirError> {
        Self::open_at(&default_base())
    }

    /// [`Self::open`] in a given place.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_at(base: &Path) -> Result<Self, RunDirError> {
        private_dir(base)?;
        private_dir(&base.join("runs"))?;
        private_dir(&base.join("logs"))?;
        Ok(Self {
            base: base.to_path_buf(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.base
    }

    /// Waits for the gate.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn gate(&self) -> Result<Gate, RunDirError> {
        let path = self.base.join("runs.lock");
        let file = open_lock(&path)?;
        file.lock().at("lock", &path)?;
        Ok(Gate(file))
    }

    /// The run directories that are there, dead or alive.
    pub fn runs(&self) -> Vec<RunId> {
        let entries = fs::read_dir(self.base.join("runs"));
        let mut runs: Vec<RunId> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        runs.sort();
        runs
    }

    /// Where a run's directory is or would be.
    pub fn run_path(&self, run: &RunId) -> PathBuf {
        self.base.join("runs").join(run.as_str())
    }

    /// Where a run's keeper writes its log: outside the run directory, so that it can be read after the run's end.
    pub fn keeper_log(&self, run: &RunId) -> PathBuf {
        self.base.join("logs").join(format!("{run}.log"))
    }

    /// Removes the oldest keeper logs.
    pub fn prune_logs(&self, keep: usize) {
        let logs = fs::read_dir(self.base.join("logs"));
        // Run ids sort by age.
        let mut logs: Vec<PathBuf> = logs
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        logs.sort();
        for log in logs.iter().rev().skip(keep) {
            let _ = fs::remove_file(log);
        }
    }

    /// Makes a run directory and holds its lock shared.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn create(&self, _gate: &Gate, run: &RunId) -> Result<RunDir, RunDirError> {
        let path = self.run_path(run);
        private_dir(&path)?;
        for folder in Folder::ALL {
            private_dir(&path.join(folder.as_str()))?;
        }
        private_dir(&path.join(TEMPLATES))?;
        let lock = open_lock(&path.join("lock"))?;
        lock.lock_shared().at("lock", &path)?;
        Ok(RunDir::new(path, lock))
    }

    /// The live run with that key, joined.
    pub fn find(&self, _gate: &Gate, key: &RunKey) -> Option<RunDir> {
        self.runs()
            .into_iter()
            .rev()
            .filter(|run| run.has_key(key))
            .find_map(|run| RunDir::join_once(&self.run_path(&run)).ok())
            .filter(|dir| dir.read().is_ok())
    }

    /// The runs that live on this host, with what their `run.json` says.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn alive(&self) -> Result<Vec<RunFile>, RunDirError> {
        let _gate = self.gate()?;
        let alive = |run: &RunId| self.presence(run) == Presence::Alive;
        let runs = self.runs().into_iter().filter(alive);
        Ok(runs
            .filter_map(|run| RunDir::peek(&self.run_path(&run)))
            .collect())
    }

    /// The templates that the runs that live on this host use.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn templates_in_use(&self) -> Result<Vec<DbName>, RunDirError> {
        let of = |file: RunFile| {
            let others = list_templates(&self.run_path(&file.run));
            others.into_iter().chain([file.template])
        };
        Ok(self.alive()?.into_iter().flat_map(of).collect())
    }

    /// Whether processes of a run live on this host, or whether it has a directory at all.
    pub fn presence(&self, run: &RunId) -> Presence {
        let path = self.run_path(run);
        match fs::symlink_metadata(&path) {
            Err(_) => Presence::Unknown,
            Ok(_) => match RunDir::fence(&path) {
                Ok(Some(_)) => Presence::Dead,
                _ => Presence::Alive,
            },
        }
    }
}

/// What this host knows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Processes of it hold the lock.
    Alive,
    /// It has a directory, and nobody holds the lock.
    Dead,
    /// It has no directory here: another host's, or another user's.
    Unknown,
}

fn default_base() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    if let Some(dir) = var(env::RUNTIME_DIR) {
        return dir.into();
    }
    // Set for another user or another machine, by `sudo` or a container, it is no place for us.
    let ours = |dir: &PathBuf| check_private(dir, uid()).is_ok();
    match var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(ours) {
        Some(dir) => dir.join("kapsel-testdb"),
        None => std::env::temp_dir().join(format!("kapsel-testdb-{}", uid())),
    }
}
