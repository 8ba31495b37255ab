//! The directory of one run: live processes join it, and a process that removes it fences it off first.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::entries::{baseline_line, list_templates, parse_baseline};
use super::file::RUN_JSON;
use super::{IoContext, is_locked, uid};
use crate::address::Address;
use crate::protocol::{
    Baseline, DbName, Entries, EntryState, Gate, KeepConfig, PROTOCOL, Profile, ReuseCounts,
    ReuseEvent, RunDirError, RunFile, RunSummary, Runtime, check_ancestors, check_private,
    open_lock, write_atomically,
};

pub(super) const LOCK: &str = "lock";
pub(super) const KEEPER_PID: &str = "keeper.pid";
const KEEPER_LOCK: &str = "keeper.lock";
const PASSFILE: &str = "pgpass";
const ADMIN_PASSFILE: &str = "pgpass.admin";
const SHARED: &str = "shared";
const SHARED_LOCK: &str = "shared.lock";
const PROFILE: &str = "profile";
const REUSE: &str = "reuse";

/// How long to wait for checks of other processes, which take microseconds.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(5);

/// A run directory whose lock this process holds shared.
#[derive(Debug)]
pub struct RunDir {
    runtime: Runtime,
    path: PathBuf,
    lock: File,
}

/// The directory of a dead run, whose lock this process holds exclusive.
#[derive(Debug)]
pub struct DeadRunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    pub(super) fn new(path: PathBuf, lock: File) -> Self {
        Self {
            runtime: Runtime::containing(&path),
            path,
            lock,
        }
    }

    /// Joins a run: takes its lock shared.
    ///
    /// # Errors
    /// [`RunDirError::Gone`] if the directory has been removed or is being removed.
    pub fn join(path: &Path) -> Result<Self, RunDirError> {
        if path.is_relative() {
            let path = path.to_path_buf();
            return Err(RunDirError::Relative { path });
        }
        match Self::join_once(path) {
            // A process that only checks whether the run is alive holds its lock briefly, under the gate. So the second attempt is under the gate, too:
            // after it, another process might check.
            Err(RunDirError::Gone { .. }) if path.exists() => {
                let _gate = Runtime::containing(path).gate()?;
                Self::join_once(path)
            }
            result => result,
        }
    }

    /// [`Self::join`] under the gate.
    pub(super) fn join_once(path: &Path) -> Result<Self, RunDirError> {
        let gone = || RunDirError::Gone {
            path: path.to_path_buf(),
        };
        let lock_path = path.join(LOCK);
        let lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(source) => return Err(source).at("open", &lock_path),
        };
        check_private(path, uid())?;
        check_ancestors(path)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(gone()),
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &lock_path),
        }
        // A process that held it exclusive may have removed the file between our open and our flock.
        if lock.metadata().at("check", &lock_path)?.nlink() == 0 {
            return Err(gone());
        }
        Ok(Self::new(path.to_path_buf(), lock))
    }

    /// Joins with a lock that was inherited from another process of the run.
    pub fn inherit(path: &Path, lock: File) -> Self {
        Self::new(path.to_path_buf(), lock)
    }

    /// The runtime directory that contains it.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The directory of the entries in a state, to be watched.
    pub fn entries_dir(&self, state: EntryState) -> PathBuf {
        self.path.join(state.as_str())
    }

    /// The descriptor that holds the lock.
    pub fn lock_file(&self) -> &File {
        &self.lock
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tries to take the lock of a run directory exclusive. `None`: a process of the run is alive, or the directory is gone. Only under the gate, so that
    /// no process that joins, and no other check, takes this attempt for a sweep.
    pub fn fence(_gate: &Gate, path: &Path) -> Result<Option<DeadRunDir>, RunDirError> {
        let lock_path = path.join(LOCK);
        if fs::symlink_metadata(path).is_err() {
            return Ok(None);
        }
        // A crash between creating the directory and the lock file leaves a directory without it.
        let lock = open_lock(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &lock_path),
        }
        let linked = lock.metadata().at("check", &lock_path)?.nlink() > 0;
        Ok(linked.then(|| DeadRunDir {
            path: path.to_path_buf(),
            _lock: lock,
        }))
    }

    /// Reads the `run.json` of a run directory without joining the run, and without passwords. `None` if it cannot be read: see [`RunSummary`].
    pub fn peek(path: &Path) -> Option<RunFile> {
        let text = fs::read_to_string(path.join(RUN_JSON)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The databases of a dead run that are kept when it is removed: of tests that failed, and of claimants that died.
    pub fn databases_to_keep(path: &Path) -> Vec<DbName> {
        if !RunSummary::read(path).is_some_and(|run| run.keeps_failed()) {
            return Vec::new();
        }
        [EntryState::Failed, EntryState::Leased]
            .map(|state| Entries::of(path).list(state))
            .concat()
    }

    /// Leaves the run and tries to take the lock exclusive.
    ///
    /// # Errors
    /// Other processes of the run are alive; the lock is still held shared.
    pub fn end(self) -> Result<DeadRunDir, Self> {
        // flock converts a lock by freeing it first, so a failed attempt must take it again. The gap is harmless: only a process that ends the run
        // is here, and a process that takes the lock exclusive in the gap is a sweep, which removes the same databases.
        match self.lock.try_lock() {
            Ok(()) => Ok(DeadRunDir {
                path: self.path,
                _lock: self.lock,
            }),
            Err(_) => {
                let _ = self.lock.try_lock_shared();
                Err(self)
            }
        }
    }

    /// Writes `run.json`, and the passfiles if there are passwords.
    pub fn write(&self, file: &RunFile) -> Result<(), RunDirError> {
        if let Some(lines) = file.server.passfile_lines() {
            write_atomically(&self.passfile(), &lines)?;
        }
        if let Some(lines) = file.admin.as_ref().and_then(Address::passfile_lines) {
            write_atomically(&self.path.join(ADMIN_PASSFILE), &lines)?;
        }
        let path = self.path.join(RUN_JSON);
        let text = serde_json::to_string_pretty(file).map_err(|e| RunDirError::Unreadable {
            path: path.clone(),
            message: e.to_string(),
        })?;
        write_atomically(&path, &text)
    }

    /// Reads `run.json` and the passfiles.
    ///
    /// # Errors
    /// [`RunDirError::Unreadable`] if it is damaged or has another protocol version.
    pub fn read(&self) -> Result<RunFile, RunDirError> {
        let path = self.path.join(RUN_JSON);
        let unreadable = |message: String| RunDirError::Unreadable {
            path: path.clone(),
            message,
        };
        let text = fs::read_to_string(&path).at("read", &path)?;
        let mut file: RunFile =
            serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        if file.protocol != PROTOCOL {
            return Err(unreadable(format!(
                "its protocol version is {}, expected {PROTOCOL}",
                file.protocol
            )));
        }
        let password = |name: &str| {
            let text = fs::read_to_string(self.path.join(name)).ok()?;
            Address::read_passfile(&text)
        };
        file.server.password = password(PASSFILE);
        if let Some(admin) = &mut file.admin {
            admin.password = password(ADMIN_PASSFILE);
        }
        Ok(file)
    }

    /// The passfile for the drivers of tests.
    pub fn passfile(&self) -> PathBuf {
        self.path.join(PASSFILE)
    }

    /// Stores the profile of the run's template.
    pub fn set_profile(&self, profile: &Profile) -> Result<(), RunDirError> {
        write_atomically(&self.path.join(PROFILE), &profile.to_string())
    }

    /// The profile of the run's template, if clones are recycled.
    pub fn profile(&self) -> Option<Profile> {
        profile_in(&self.path)
    }

    /// Records what happened to a clone. Only `status` reads it, so an error is no reason to stop.
    pub fn note_reuse(&self, event: ReuseEvent) {
        let mut line = serde_json::to_string(&event).unwrap_or_default();
        line.push('\n');
        let mut options = fs::OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.path.join(REUSE));
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            tracing::debug!("failed to record the reuse of a clone: {error}");
        }
    }

    /// What happened to the clones of a run.
    pub fn reuse_counts(path: &Path) -> ReuseCounts {
        let text = fs::read_to_string(path.join(REUSE)).unwrap_or_default();
        let mut counts = ReuseCounts::default();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events.for_each(|event| counts.add(event));
        counts
    }

    /// The run's shared clone, if there is one.
    pub fn shared(&self) -> Option<DbName> {
        shared_in(&self.path)
    }

    /// What the shared clone was like when it was last known to equal its template.
    pub fn shared_baseline(&self) -> Option<Baseline> {
        shared_baseline_in(&self.path)
    }

    /// Stores the name of the run's shared clone, and what it is like. `None`: the next process that needs one obtains it.
    pub fn set_shared(
        &self,
        shared: Option<(&DbName, Option<&Baseline>)>,
    ) -> Result<(), RunDirError> {
        let path = self.path.join(SHARED);
        match shared {
            Some((name, baseline)) => {
                let baseline = baseline.map(baseline_line).unwrap_or_default();
                write_atomically(&path, &format!("{name}\n{baseline}"))
            }
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", &path),
                _ => Ok(()),
            },
        }
    }

    /// The file whose lock is the right to create the shared clone.
    pub fn shared_clone_lock(&self) -> Result<File, RunDirError> {
        open_lock(&self.path.join(SHARED_LOCK))
    }

    /// Tries to take that lock; `false` while another process holds it.
    pub fn try_lock_shared_clone(&self, file: &File) -> Result<bool, RunDirError> {
        try_lock(file, &self.path.join(SHARED_LOCK))
    }

    /// Takes the lock of the run's keeper; `None` if the run has a keeper. Waits for processes that only check whether there is one.
    pub fn lock_keeper(&self) -> Result<Option<File>, RunDirError> {
        let started = Instant::now();
        loop {
            if let Some(lock) = self.try_lock_file(KEEPER_LOCK)? {
                return Ok(Some(lock));
            }
            if self.has_keeper() || started.elapsed() > CHECKS_TIMEOUT {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stores the keeper's process id. From now on it ends the run when it receives SIGTERM.
    pub fn set_keeper_pid(&self, pid: u32) -> Result<(), RunDirError> {
        write_atomically(&self.path.join(KEEPER_PID), &format!("{pid}\n"))
    }

    /// The keeper's process id, once it handles SIGTERM.
    pub fn keeper_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.path.join(KEEPER_PID)).ok()?;
        text.trim().parse().ok()
    }

    fn try_lock_file(&self, name: &str) -> Result<Option<File>, RunDirError> {
        let path = self.path.join(name);
        let file = open_lock(&path)?;
        Ok(try_lock(&file, &path)?.then_some(file))
    }

    /// Whether the run has a keeper. Not called on the fast path.
    pub fn has_keeper(&self) -> bool {
        is_locked(&self.path.join(KEEPER_LOCK))
    }
}

impl DeadRunDir {
    /// Its entries.
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(&self.path)
    }

    /// Whether the databases of failed tests are kept. A directory without `run.json` never had any.
    pub fn keeps_failed(&self) -> bool {
        RunSummary::read(&self.path).is_some_and(|run| run.keeps_failed())
    }

    /// The limits of kept databases, if they are known.
    pub fn keep(&self) -> Option<KeepConfig> {
        RunSummary::read(&self.path)?.keep
    }

    /// The clones that no test has claimed.
    pub fn ready(&self) -> Vec<DbName> {
        self.entries().list(EntryState::Ready)
    }

    /// The run's shared clone, if there is one.
    pub fn shared(&self) -> Option<DbName> {
        shared_in(&self.path)
    }

    /// What the shared clone was like when it was last known to equal its template.
    pub fn shared_baseline(&self) -> Option<Baseline> {
        shared_baseline_in(&self.path)
    }

    /// The profile of the run's template, if clones are recycled.
    pub fn profile(&self) -> Option<Profile> {
        profile_in(&self.path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The templates that the run's tests used besides the run's own.
    pub fn templates(&self) -> Vec<DbName> {
        list_templates(&self.path)
    }

    /// Removes the directory, under the gate, so that no process joins meanwhile.
    pub fn remove(self, _gate: &Gate) -> Result<(), RunDirError> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", &self.path),
            _ => Ok(()),
        }
    }
}

fn try_lock(file: &File, path: &Path) -> Result<bool, RunDirError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source).at("lock", path),
    }
}

fn profile_in(run_dir: &Path) -> Option<Profile> {
    fs::read_to_string(run_dir.join(PROFILE)).ok()?.parse().ok()
}

fn shared_in(run_dir: &Path) -> Option<DbName> {
    let text = fs::read_to_string(run_dir.join(SHARED)).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn shared_baseline_in(run_dir: &Path) -> Option<Baseline> {
    parse_baseline(&fs::read_to_string(run_dir.join(SHARED)).ok()?)
}
