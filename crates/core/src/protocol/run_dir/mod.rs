//! The runtime directory of this user on this host, and in it one run directory per run: `<runtime>/runs/<run id>/`.
//!
//! A run directory holds `run.json`, `lock`, and the subdirectories `ready`, `leased`, `released` and `failed`. Each entry in these is a file named
//! after a database, with a line about its claimant. Claiming an entry is `flock`, then `rename(2)` from `ready` to `leased`: exactly one process
//! wins, without asking another one. The claimant keeps the descriptor, so a free `flock` means that the claimant is dead. Every live process of
//! the run holds the `flock` of `lock` shared; a process that gets it exclusive knows that no process of the run lives on this host.
//!
//! A crash leaves a directory whose `lock` is free, with or without `run.json`; the sweep removes it. Run directories are created and removed only
//! under the gate (`runs.lock`), so no process mistakes one that is just being created for one of a dead run.

mod cause;
mod claimant;
mod entries;
mod file;
mod last_words;
mod leak;
mod run;
mod runtime;
mod runtime_files;
mod settings;
mod shared_use;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use cause::FailureCause;
pub use claimant::Claimant;
pub use entries::{Claim, Entries, EntryState, Noticed};
pub use file::{Connections, PROTOCOL, RunFile, RunSummary, TemplateInputs};
pub use leak::{Leak, LeakedSession};
pub use run::{DeadRunDir, RunDir};
pub use runtime::{Gate, Presence, Runtime};
pub use runtime_files::Daily;
pub use settings::{
    BuildCommand, BuildStep, KeepConfig, Leaks, MigrateSettings, MigrationDirectory, Pollution,
    PoolConfig, ResetMethod, Script, Strategy, TemplateBase,
};
pub use shared_use::{SharedUse, UseEvent, UseMode};

use crate::env;
use crate::platform::{self, LockMode, SHORT_LOCK_LIMIT};
use crate::protocol::random_word;
use crate::waiting::waiting;

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A file system operation failed.
    #[error("failed to {context} `{}`: {source}{}", path.display(), remedy(source))]
    Io {
        /// The operation, a verb after "failed to".
        context: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another user could create files in the directory.
    #[error(
        "`{}` is not a private directory of this user ({why}); remove it, or set {} to another directory",
        path.display(),
        env::RUNTIME_DIR
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// Another user could replace the directory.
    #[error(
        "`{}` is not safe from other users: `{}` above it {why}; correct its mode or owner, or set {} (or TMPDIR, or `server.state_dir` for \
         the managed server) to another directory",
        path.display(),
        ancestor.display(),
        env::RUNTIME_DIR
    )]
    Replaceable {
        /// The directory.
        path: PathBuf,
        /// The directory above it.
        ancestor: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// The path is relative.
    #[error("the path in {} is relative (`{}`); make it absolute, or unset {}", env::RUN_DIR, path.display(), env::RUN_DIR)]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The run has ended.
    #[error("the run of `{}` has ended; run `kapsel-testdb prepare` through nextest again, or unset {}", path.display(), env::RUN_DIR)]
    Gone {
        /// The run directory.
        path: PathBuf,
    },
    /// `run.json` is damaged or has another protocol version.
    #[error("`{}` is not usable: {message}; use the same version of kapsel-testdb for the command line tool and the tests", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
    },
}

/// What to do about an error that all files of the runtime directory share.
fn remedy(error: &io::Error) -> String {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => format!(
            "; free space on its file system, or set {} to a directory on another one",
            env::RUNTIME_DIR
        ),
        ReadOnlyFilesystem => format!(
            "; make its file system writable, or set {} to a directory on another one",
            env::RUNTIME_DIR
        ),
        _ => String::new(),
    }
}

trait IoContext<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, RunDirError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, RunDirError> {
        self.map_err(|source| RunDirError::Io {
            context,
            path: path.to_path_buf(),
            source,
        })
    }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Creates a directory with mode 0700, or checks that the existing one is private to this user and no symbolic link.
pub fn private_dir(path: &Path) -> Result<(), RunDirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(source).at("create", path),
    }
    check_private(path, uid())
}

/// Checks that a directory is private to `owner` and no symbolic link.
pub fn check_private(path: &Path, owner: u32) -> Result<(), RunDirError> {
    check(path, owner, 0o077, "other users can access it")
}

/// Checks that a directory belongs to this user, that no other user can create files in it, and that it is no symbolic link.
pub fn check_unwritable(path: &Path) -> Result<(), RunDirError> {
    check(path, uid(), 0o022, "other users can write to it")
}

fn check(
    path: &Path,
    owner: u32,
    forbidden_mode: u32,
    too_open: &'static str,
) -> Result<(), RunDirError> {
    let metadata = fs::symlink_metadata(path).at("check", path)?;
    let why = if metadata.file_type().is_symlink() {
        "it is a symbolic link"
    } else if !metadata.is_dir() {
        "it is not a directory"
    } else if metadata.uid() != owner {
        "it belongs to another user"
    } else if metadata.mode() & forbidden_mode != 0 {
        too_open
    } else {
        return Ok(());
    };
    Err(RunDirError::NotPrivate {
        path: path.to_path_buf(),
        why,
    })
}

/// Checks that only this user and root can replace a directory. A user who may write to a directory above it can rename the directory below, unless
/// the one above is sticky, like `/tmp`. The directories are those of the path, and those of the place that symbolic links in it lead to.
pub fn check_ancestors(path: &Path) -> Result<(), RunDirError> {
    let parent = path.parent().unwrap_or(path);
    let resolved = fs::canonicalize(parent).at("check the directories above", path)?;
    match parent
        .ancestors()
        .chain(resolved.ancestors())
        .find_map(replaceable)
    {
        Some((ancestor, why)) => Err(RunDirError::Replaceable {
            path: path.to_path_buf(),
            ancestor: ancestor.to_path_buf(),
            why,
        }),
        None => Ok(()),
    }
}

/// Why other users can replace the entries of a directory.
fn replaceable(directory: &Path) -> Option<(&Path, &'static str)> {
    let metadata = fs::metadata(directory).ok()?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    // In a container, root of the host may be unmapped. Root itself trusts the owners of its containers' volumes.
    let is_trusted = [0, uid(), UNMAPPED].contains(&owner) || uid() == 0;
    // Many systems give each user a group of the same number, and let it write.
    let is_own_group = metadata.gid() == owner && owner == uid();
    let others = if is_own_group { 0o002 } else { 0o022 };
    let why = match (is_trusted, mode & others != 0 && mode & STICKY == 0) {
        (false, _) => "belongs to another user",
        (_, true) => "is writable for other users and not sticky",
        (true, false) => return None,
    };
    Some((directory, why))
}

/// The user id of files whose owner does not exist in a container.
const UNMAPPED: u32 = 65_534;
const STICKY: u32 = 0o1000;

/// Waits for an exclusive `flock`, at most [`SHORT_LOCK_LIMIT`].
pub fn lock_file(file: &File, path: &Path) -> Result<(), RunDirError> {
    let _waiting = waiting(
        format_args!("the lock `{}`", path.display()),
        SHORT_LOCK_LIMIT,
    );
    platform::lock(file, LockMode::Exclusive, SHORT_LOCK_LIMIT).at("lock", path)
}

/// Opens a file for its `flock`; creates it with mode 0600 if it is missing.
pub fn open_lock(path: &Path) -> Result<File, RunDirError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// Whether a process holds a file's `flock` exclusive; `false` if there is no such file. The check takes the lock shared for a moment, so checks do not see
/// each other. Locks that live processes hold shared can only be checked with an exclusive attempt: see [`RunDir::fence`].
pub fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// Appends a JSON object as one line, by one write; creates the file with mode 0600 if it is missing.
fn append_line(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut file = OpenOptions::new();
    let file = file.create(true).append(true).mode(0o600);
    file.open(path)?.write_all(&line)
}

fn open_to_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).open(path)
}

/// Replaces a file by a rename, so that no process reads half of it.
pub fn write_atomically(path: &Path, text: &str) -> Result<(), RunDirError> {
    let temporary = path.with_extension(format!("{}.tmp", random_word()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .at("write", &temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .at("write", &temporary)
        .and_then(|()| fs::rename(&temporary, path).at("write", path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
