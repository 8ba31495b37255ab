//! The run directory: the second of the two contracts between processes (the other is [`crate::name`]; docs/PROTOCOL.md tells
//! both to other languages).
//!
//! `<runtime>/runs/<run id>/` holds `run.json`, `lock` and the folders `ready`, `leased`, `released` and `failed`, each entry a
//! file named after a database, with a line on who claimed it. An entry is claimed by `flock`, then `rename(2)` from `ready` to `leased`: one winner, nobody
//! asked. The claimant keeps the descriptor, so "the flock is free" means that it is dead. Everybody alive in the run holds the
//! flock of `lock` shared; who gets it exclusive knows that no process of the run lives on this host.
//!
//! What a crash leaves: a directory whose `lock` is free, with or without `run.json`; the sweep removes it. Directories appear
//! and disappear only under the runtime's gate (`runs.lock`), so nobody mistakes one that is being made for a dead one.

mod claimant;
mod entries;
mod file;
mod run;
mod runtime;
mod shared_use;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use claimant::Claimant;
pub use entries::{Claim, Entries, Folder};
pub use file::{Connections, MadeOf, PROTOCOL, RunFile};
pub use run::{DeadRunDir, RunDir};
pub use runtime::{Gate, Presence, Runtime};
pub use shared_use::{SharedUse, UseEvent, UseMode};

use crate::env;

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
    check(path, owner, 0o077, "other users may enter it")
}

/// Checks that a folder is ours, that nobody else can put things there, and that it is no link.
pub(crate) fn check_unwritable(path: &Path) -> Result<(), RunDirError> {
    check(path, uid(), 0o022, "other users may write there")
}

fn check(path: &Path, owner: u32, refused: u32, open: &'static str) -> Result<(), RunDirError> {
    let metadata = fs::symlink_metadata(path).at("look at", path)?;
    let why = if metadata.file_type().is_symlink() {
        "it is a symbolic link"
    } else if !metadata.is_dir() {
        "it is not a folder"
    } else if metadata.uid() != owner {
        "it belongs to another user"
    } else if metadata.mode() & refused != 0 {
        open
    } else {
        return Ok(());
    };
    Err(RunDirError::NotPrivate {
        path: path.to_path_buf(),
        why,
    })
}

pub(crate) fn lock_file(file: &File, path: &Path) -> Result<(), RunDirError> {
    file.lock().at("lock", path)
}

pub(crate) fn open_lock(path: &Path) -> Result<File, RunDirError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// Opens a file that is there, to lock it and to write into it.
fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
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
