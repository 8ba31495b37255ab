//! The run directory: the second of the two contracts between processes (the other is [`crate::name`]; docs/PROTOCOL.md tells
//! both to other languages).
//!
//! `<runtime>/runs/<run id>/` holds `run.json`, `lock` and the folders `ready`, `leased`, `released` and `failed`, each entry a
//! file named after a database. An entry is claimed by `flock`, then `rename(2)` from `ready` to `leased`: one winner, nobody
//! asked. The claimant keeps the descriptor, so "the flock is free" means that it is dead. Everybody alive in the run holds the
//! flock of `lock` shared; who gets it exclusive knows that no process of the run lives on this host.
//!
//! What a crash leaves: a directory whose `lock` is free, with or without `run.json`; the sweep removes it. Directories appear
//! and disappear only under the runtime's gate (`runs.lock`), so nobody mistakes one that is being made for a dead one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{KeepConfig, PoolConfig};
use crate::env;
use crate::name::{DbName, Namespace, RunId, RunKey};
use crate::pg::Address;

/// Version of what is written here; another version's run directory is refused.
pub const PROTOCOL: u32 = 1;

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The operating system refused.
    #[error("failed to {doing} `{}`: {source}", path.display())]
    Io {
        /// As in "failed to …".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else could put things there.
    #[error(
        "`{}` is not a private folder of this user ({why}); remove it, or set {} to another place",
        path.display(),
        env::RUNTIME_DIR
    )]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The run has ended.
    #[error("the run of `{}` is over; run `kapsel-testdb prepare` through nextest again, or unset {}", path.display(), env::RUN_DIR)]
    Gone {
        /// The run directory.
        path: PathBuf,
    },
    /// `run.json` is damaged or of another version.
    #[error("`{}` cannot be used: {message}; use the same version of kapsel-testdb for the command line tool and the tests", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, RunDirError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, RunDirError> {
        self.map_err(|source| RunDirError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        })
    }
}

/// What `run.json` says: all that a test process needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// The run.
    pub run: RunId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The server; the password, if any, is in `pgpass` beside this file.
    pub server: Address,
    /// Where administrative work goes, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Address>,
    /// Where administrative sessions and their locks live.
    pub maintenance_database: String,
    /// What clones are made from.
    pub template: DbName,
    /// Whether clones are made with `STRATEGY FILE_COPY`.
    pub file_copy: bool,
    /// Statements that give a clone the template's database-level settings; `{}` stands for its name.
    pub settings: Vec<String>,
    /// Tests that run at once.
    pub threads: usize,
    /// Most disk space that the run's databases may take together, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_budget_mb: Option<u64>,
    /// The pools that tests get.
    pub pool: PoolConfig,
    /// Failed tests' databases.
    pub keep: KeepConfig,
}

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
        let lock = open_lock(&path.join("lock"))?;
        lock.lock_shared().at("lock", &path)?;
        Ok(RunDir { path, lock })
    }

    /// The live run with that key, joined.
    pub fn find(&self, _gate: &Gate, key: &RunKey) -> Option<RunDir> {
        self.runs()
            .into_iter()
            .rev()
            .filter(|run| run.has_key(key))
            .find_map(|run| RunDir::join(&self.run_path(&run)).ok())
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
    match var("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("kapsel-testdb"),
        None => std::env::temp_dir().join(format!("kapsel-testdb-{}", uid())),
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a folder with mode 0700, or checks that the one that is there is ours alone and no link.
pub(crate) fn private_dir(path: &Path) -> Result<(), RunDirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(source).at("make", path),
    }
    check_private(path, uid())
}

/// Checks that a folder belongs to `owner` alone and is no link.
pub(crate) fn check_private(path: &Path, owner: u32) -> Result<(), RunDirError> {
    let metadata = fs::symlink_metadata(path).at("look at", path)?;
    let why = if metadata.file_type().is_symlink() {
        "it is a symbolic link"
    } else if !metadata.is_dir() {
        "it is not a folder"
    } else if metadata.uid() != owner {
        "it belongs to another user"
    } else if metadata.mode() & 0o077 != 0 {
        "other users may enter it"
    } else {
        return Ok(());
    };
    Err(RunDirError::NotPrivate {
        path: path.to_path_buf(),
        why,
    })
}

fn open_lock(path: &Path) -> Result<File, RunDirError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// Writes a file as a whole or not at all.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<(), RunDirError> {
    let temporary = path.with_extension(format!("{}.tmp", crate::name::random_word()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .at("write", &temporary)?;
    file.write_all(text.as_bytes()).at("write", &temporary)?;
    fs::rename(&temporary, path).at("write", path)
}

/// A state that a database of the run is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Waiting for a test.
    Ready,
    /// A test's.
    Leased,
    /// Given back: to be dropped.
    Released,
    /// A failed test's: to be kept.
    Failed,
}

impl Folder {
    /// All folders.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Leased, Self::Released, Self::Failed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Released => "released",
            Self::Failed => "failed",
        }
    }
}

/// A claimed entry. Its flock says that the claimant lives; closing the descriptor frees it.
#[derive(Debug)]
pub struct Claim {
    /// The database.
    pub name: DbName,
    /// Renames that it took, failed ones included.
    pub renames: usize,
    flock: File,
}

/// A run directory whose lock this process holds shared.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: File,
}

/// A dead run's directory, its lock held exclusive.
#[derive(Debug)]
pub struct DeadRunDir {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// The descriptor that holds the claim.
    pub fn file(&self) -> &File {
        &self.flock
    }
}

impl RunDir {
    /// Joins a run: takes its lock shared.
    ///
    /// # Errors
    /// [`RunDirError::Gone`] where the directory is gone or being removed.
    pub fn join(path: &Path) -> Result<Self, RunDirError> {
        let gone = || RunDirError::Gone {
            path: path.to_path_buf(),
        };
        let lock_path = path.join("lock");
        let lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(source) => return Err(source).at("open", &lock_path),
        };
        check_private(path, uid())?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(gone()),
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &lock_path),
        }
        // Who held it exclusive may have removed the file between our open and our flock.
        if lock.metadata().at("look at", &lock_path)?.nlink() == 0 {
            return Err(gone());
        }
        Ok(Self {
            path: path.to_path_buf(),
            lock,
        })
    }

    /// Takes over a lock that another process of the run held for us: an inherited descriptor.
    pub fn inherit(path: &Path, lock: File) -> Self {
        Self {
            path: path.to_path_buf(),
            lock,
        }
    }

    /// The descriptor that holds the lock.
    pub fn lock_file(&self) -> &File {
        &self.lock
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tries to win a run directory's lock exclusive. `None`: somebody of the run lives, or the directory is gone.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn fence(path: &Path) -> Result<Option<DeadRunDir>, RunDirError> {
        let lock_path = path.join("lock");
        if fs::symlink_metadata(path).is_err() {
            return Ok(None);
        }
        // A crash between making the folder and the file leaves a folder without a lock: make it, to hold it.
        let lock = open_lock(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(source).at("lock", &lock_path),
        }
        let linked = lock.metadata().at("look at", &lock_path)?.nlink() > 0;
        Ok(linked.then(|| DeadRunDir {
            path: path.to_path_buf(),
            _lock: lock,
        }))
    }

    /// What a run directory's `run.json` says, without joining the run and without passwords.
    pub fn peek(path: &Path) -> Option<RunFile> {
        let text = fs::read_to_string(path.join("run.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Gives up being alive in the run and tries to be the last: wins the lock exclusive, or `Err(self)` while others live.
    ///
    /// # Errors
    /// The run directory, still held shared.
    pub fn end(self) -> Result<DeadRunDir, Self> {
        // flock converts a held lock by first freeing it, so a failed attempt must take it back. The gap is harmless: only who
        // ends runs comes here, and an exclusive holder in it is a sweep, which removes the same things.
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

    /// Writes `run.json`, and `pgpass` where there is a password.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn write(&self, file: &RunFile) -> Result<(), RunDirError> {
        if let Some(line) = file.server.passfile_line() {
            write_atomically(&self.passfile(), &line)?;
        }
        if let Some(line) = file.admin.as_ref().and_then(Address::passfile_line) {
            write_atomically(&self.path.join("pgpass.admin"), &line)?;
        }
        let path = self.path.join("run.json");
        let text = serde_json::to_string_pretty(file).map_err(|e| RunDirError::Unreadable {
            path: path.clone(),
            message: e.to_string(),
        })?;
        write_atomically(&path, &text)
    }

    /// Reads `run.json` and the passwords beside it.
    ///
    /// # Errors
    /// [`RunDirError::Unreadable`] where it is damaged or of another version.
    pub fn read(&self) -> Result<RunFile, RunDirError> {
        let path = self.path.join("run.json");
        let unreadable = |message: String| RunDirError::Unreadable {
            path: path.clone(),
            message,
        };
        let text = fs::read_to_string(&path).at("read", &path)?;
        let mut file: RunFile =
            serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        if file.protocol != PROTOCOL {
            return Err(unreadable(format!(
                "its protocol version is {}, this is {PROTOCOL}",
                file.protocol
            )));
        }
        let password = |name: &str| {
            let line = fs::read_to_string(self.path.join(name)).ok()?;
            Address::read_passfile_line(&line)
        };
        file.server.password = password("pgpass");
        if let Some(admin) = &mut file.admin {
            admin.password = password("pgpass.admin");
        }
        Ok(file)
    }

    /// The passfile for drivers of the tests.
    pub fn passfile(&self) -> PathBuf {
        self.path.join("pgpass")
    }

    fn entry(&self, folder: Folder, name: &str) -> PathBuf {
        self.path.join(folder.as_str()).join(name)
    }

    /// The databases in a folder, in no order.
    pub fn list(&self, folder: Folder) -> Vec<DbName> {
        fs::read_dir(self.path.join(folder.as_str()))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Offers a database to the tests. It must exist.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer(&self, name: &DbName) -> Result<(), RunDirError> {
        let path = self.entry(Folder::Ready, &name.to_string());
        open_lock(&path).map(drop)
    }

    /// Claims a ready database; `None` where none is ready. `start` spreads claimants that come at once.
    pub fn claim(&self, start: usize) -> Option<Claim> {
        let ready = self.list(Folder::Ready);
        let mut renames = 0;
        for at in 0..ready.len() {
            let name = &ready[(start + at) % ready.len()];
            let text = name.to_string();
            let from = self.entry(Folder::Ready, &text);
            // Gone, or another claimant holds it: the next one.
            let Ok(file) = File::open(&from) else {
                continue;
            };
            if file.try_lock().is_err() {
                continue;
            }
            renames += 1;
            if fs::rename(&from, self.entry(Folder::Leased, &text)).is_ok() {
                return Some(Claim {
                    name: name.clone(),
                    renames,
                    flock: file,
                });
            }
        }
        None
    }

    /// Enters a database that is about to be made as leased: locked before it is visible, so that nobody takes it for
    /// abandoned.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn enter_leased(&self, name: &DbName) -> Result<Claim, RunDirError> {
        let text = name.to_string();
        let hidden = self.path.join(format!("{text}.new"));
        let file = open_lock(&hidden)?;
        file.lock().at("lock", &hidden)?;
        fs::rename(&hidden, self.entry(Folder::Leased, &text)).at("enter", &hidden)?;
        Ok(Claim {
            name: name.clone(),
            renames: 0,
            flock: file,
        })
    }

    /// Moves a leased database on; `false` where the run or the entry is gone.
    pub fn leave(&self, claim: Claim, to: Folder) -> bool {
        self.move_leased(&claim.name, to)
    }

    /// [`Self::leave`] for a claim that another process holds; that process gives up the claim when it sees this.
    pub fn move_leased(&self, name: &DbName, to: Folder) -> bool {
        let text = name.to_string();
        fs::rename(self.entry(Folder::Leased, &text), self.entry(to, &text)).is_ok()
    }

    /// Marks the databases of dead claimants as released, and names them.
    pub fn release_abandoned(&self) -> Vec<DbName> {
        let mut abandoned = self.list(Folder::Leased);
        abandoned.retain(|name| {
            let text = name.to_string();
            let from = self.entry(Folder::Leased, &text);
            let dead = File::open(&from).is_ok_and(|file| file.try_lock().is_ok());
            dead && fs::rename(&from, self.entry(Folder::Released, &text)).is_ok()
        });
        abandoned
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, folder: Folder, name: &DbName) {
        let _ = fs::remove_file(self.entry(folder, &name.to_string()));
    }

    /// The run's shared clone, once there is one.
    pub fn shared(&self) -> Option<DbName> {
        let text = fs::read_to_string(self.path.join("shared")).ok()?;
        text.trim().parse().ok()
    }

    /// Names the run's shared clone, or says that the next user must make one.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_shared(&self, name: Option<&DbName>) -> Result<(), RunDirError> {
        let path = self.path.join("shared");
        match name {
            Some(name) => write_atomically(&path, &format!("{name}\n")),
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", &path),
                _ => Ok(()),
            },
        }
    }

    /// Marks an existing database as given back, so that the keeper drops it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer_for_drop(&self, name: &DbName) -> Result<(), RunDirError> {
        open_lock(&self.entry(Folder::Released, &name.to_string())).map(drop)
    }

    /// Tries for the right to make the shared clone; `None` while somebody else makes it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn try_lock_shared_clone(&self) -> Result<Option<File>, RunDirError> {
        self.try_lock_file("shared.lock")
    }

    /// Takes the right to be the run's keeper; `None` where it has one.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn lock_keeper(&self) -> Result<Option<File>, RunDirError> {
        self.try_lock_file("keeper.lock")
    }

    /// Says which process the keeper is: from now on it ends cleanly when it gets SIGTERM.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_keeper_pid(&self, pid: u32) -> Result<(), RunDirError> {
        write_atomically(&self.path.join("keeper.pid"), &format!("{pid}\n"))
    }

    /// The keeper's process id, once it listens to SIGTERM.
    pub fn keeper_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.path.join("keeper.pid")).ok()?;
        text.trim().parse().ok()
    }

    fn try_lock_file(&self, name: &str) -> Result<Option<File>, RunDirError> {
        let path = self.path.join(name);
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(source).at("lock", &path),
        }
    }

    /// Whether a keeper serves the run. Asked only off the fast path.
    pub fn has_keeper(&self) -> bool {
        let path = self.path.join("keeper.lock");
        File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
    }
}

impl DeadRunDir {
    /// The databases that wait to be kept.
    pub fn failed(&self) -> Vec<DbName> {
        fs::read_dir(self.path.join(Folder::Failed.as_str()))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Removes the directory. Under the gate, so that nobody joins meanwhile.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn remove(self, _gate: &Gate) -> Result<(), RunDirError> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", &self.path),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
