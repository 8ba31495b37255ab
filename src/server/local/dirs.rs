//! The managed server's folders: ours, which nobody else may change, and the server's user's, inside of ours.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::error::At;
use super::{Local, LocalError};
use crate::run_dir::{RunDirError, check_private, check_unwritable};

impl Local {
    /// Makes a folder of our own, which nobody else may change: as root we write below it, so the server's user must not be able
    /// to put a link there. It may only pass through.
    pub(super) fn make_own_dir(&self, path: &Path) -> Result<(), LocalError> {
        let mode = if self.owner.switch.is_some() {
            0o711
        } else {
            0o700
        };
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", path),
            _ => check_unwritable(path).map_err(|error| refused(path, error)),
        }
    }

    /// Makes a folder of the server's user, in one of our own.
    pub(super) fn make_servers_dir(&self, path: &Path) -> Result<(), LocalError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.owner.own(path).at("change the owner of", path)?,
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).at("make", path),
            // Still root's: who made it died before giving it away.
            Err(_) if self.owner.switch.is_some() && check_private(path, 0).is_ok() => {
                self.owner.own(path).at("change the owner of", path)?;
            }
            Err(_) => {}
        }
        check_private(path, self.owner.uid).map_err(|error| refused(path, error))
    }
}

fn refused(path: &Path, error: RunDirError) -> LocalError {
    match error {
        RunDirError::NotPrivate { path, why } => LocalError::NotPrivate { path, why },
        error => LocalError::Io {
            doing: "look at",
            path: path.to_path_buf(),
            source: io::Error::other(error),
        },
    }
}
