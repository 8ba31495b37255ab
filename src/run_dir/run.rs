//! A run's directory: joined by the living, fenced off by who removes it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::entries::list_templates;
use super::{
    At, Entries, Folder, Gate, PROTOCOL, RunDirError, RunFile, Runtime, check_private, open_lock,
    uid, write_atomically,
};
use crate::name::DbName;
use crate::pg::Address;

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

impl RunDir {
    pub(super) fn new(path: PathBuf, lock: File) -> Self {
        Self { path, lock }
    }

    /// Joins a run: takes its lock shared.
    ///
    /// # Errors
    /// [`RunDirError::Gone`] where the directory is gone or being removed.
    pub fn join(path: &Path) -> Result<Self, RunDirError> {
        match Self::join_once(path) {
            // Who only looks whether the run lives holds its lock for a moment, behind the gate.
            Err(RunDirError::Gone { .. }) => {
                if let Some(base) = path.ancestors().nth(2).filter(|_| path.exists()) {
                    drop(Runtime::open_at(base)?.gate()?);
                }
                Self::join_once(path)
            }
            result => result,
        }
    }

    /// [`Self::join`] for who is behind the gate already.
    pub(super) fn join_once(path: &Path) -> Result<Self, RunDirError> {
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

    /// The databases that whoever removes a dead run's directory keeps: those of tests that failed, and of claimants that died.
    pub fn to_be_kept(path: &Path) -> Vec<DbName> {
        if !Self::peek(path).is_some_and(|file| file.keep.failed) {
            return Vec::new();
        }
        [Folder::Failed, Folder::Leased]
            .map(|folder| Entries::of(path).list(folder))
            .concat()
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

    /// The run's shared clone, once there is one.
    pub fn shared(&self) -> Option<DbName> {
        shared_in(&self.path)
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
        // Who only looks whether there is a keeper holds the lock for a moment.
        for _ in 0..5 {
            if let Some(lock) = self.try_lock_file("keeper.lock")? {
                return Ok(Some(lock));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(None)
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
    /// Its entries.
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(&self.path)
    }

    /// Whether its failed tests' databases are to be kept. A directory without `run.json` never had any.
    pub fn keeps_failed(&self) -> bool {
        RunDir::peek(&self.path).is_some_and(|file| file.keep.failed)
    }

    /// The databases that no test has claimed.
    pub fn ready(&self) -> Vec<DbName> {
        self.entries().list(Folder::Ready)
    }

    /// The run's shared clone, where it has one.
    pub fn shared(&self) -> Option<DbName> {
        shared_in(&self.path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The templates that the run's tests used besides its own.
    pub fn templates(&self) -> Vec<DbName> {
        list_templates(&self.path)
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

fn shared_in(run_dir: &Path) -> Option<DbName> {
    let text = fs::read_to_string(run_dir.join("shared")).ok()?;
    text.trim().parse().ok()
}
