//! The managed server's directories: our own, which only we can change, and inside them those of the server's user.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::protocol::{RunDirError, check_ancestors, check_private, check_unwritable};
use crate::server::local::error::PathContext;
use crate::server::local::{Local, LocalError};

impl Local {
    /// Creates a directory of our own, which no other user can change: as root we write below it, so the server's user must not be able
    /// to create a link there. That user may only traverse it.
    pub(super) fn create_own_dir(&self, path: &Path) -> Result<(), LocalError> {
        let mode = if self.owner.switch.is_some() {
            0o711
        } else {
            0o700
        };
        let failed = |error| dir_error(path, error);
        check_ancestors(path).map_err(failed)?;
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("create", path),
            _ => check_unwritable(path).map_err(failed),
        }
    }

    /// Creates a directory of the server's user in one of our own.
    pub(super) fn create_server_dir(&self, path: &Path) -> Result<(), LocalError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self
                .owner
                .take_ownership(path)
                .at("change the owner of", path)?,
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).at("create", path),
            // Root still owns it: the process that created it died before it changed the owner.
            Err(_) if self.owner.switch.is_some() && check_private(path, 0).is_ok() => {
                self.owner
                    .take_ownership(path)
                    .at("change the owner of", path)?;
            }
            Err(_) => {}
        }
        check_private(path, self.owner.uid).map_err(|error| dir_error(path, error))
    }
}

fn dir_error(path: &Path, error: RunDirError) -> LocalError {
    match error {
        RunDirError::NotPrivate { path, why } => LocalError::NotPrivate { path, why },
        error @ RunDirError::Replaceable { .. } => LocalError::Replaceable(error),
        error => LocalError::Io {
            context: "check",
            path: path.to_path_buf(),
            source: io::Error::other(error),
        },
    }
}
