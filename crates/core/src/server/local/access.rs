//! Why the server's user cannot get at its files: root runs the server as another user, who may not enter all directories that root may.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::server::local::{Local, LocalError};

impl Local {
    /// After a failure: the error for a directory that the server's user may not enter, if there is one.
    pub(super) fn closed_directory(&self) -> Option<LocalError> {
        let gid = self.owner.switch?;
        let error = |path: PathBuf, setting| {
            let (directory, mode) = closed_to(&path, self.owner.uid, gid)?;
            Some(LocalError::Closed {
                user: self.run_as.clone(),
                directory,
                mode,
                path,
                setting,
            })
        };
        let program = self.binaries().program("postgres");
        let programs = fs::canonicalize(&program).unwrap_or(program);
        let programs = programs.parent().map(Path::to_path_buf)?;
        error(self.dir(), "server.state_dir").or_else(|| error(programs, "server.bin_dir"))
    }
}

/// The topmost directory on the way to `path`, `path` included, whose mode does not let a user enter it, and that mode.
fn closed_to(path: &Path, uid: u32, gid: u32) -> Option<(PathBuf, u32)> {
    let path = fs::canonicalize(path).ok()?;
    let mut directories: Vec<&Path> = path.ancestors().collect();
    directories.reverse();
    directories.into_iter().find_map(|directory| {
        let metadata = fs::metadata(directory).ok()?;
        let search = if metadata.uid() == uid {
            0o100
        } else if metadata.gid() == gid {
            0o010
        } else {
            0o001
        };
        let closed = metadata.mode() & search == 0;
        closed.then(|| (directory.to_path_buf(), metadata.mode() & 0o7777))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_topmost_closed_directory_is_found() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let root = fs::canonicalize(dir.path()).expect("its path");
        let (top, below) = (root.join("top"), root.join("top/below"));
        fs::create_dir_all(&below).expect("directories");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        let owner = fs::metadata(&root).expect("the directory");
        let (uid, gid) = (owner.uid(), owner.gid());
        for path in [&root, &top, &below] {
            set(path, 0o755);
        }
        assert_eq!(closed_to(&below, uid + 1, gid + 1), None);
        set(&below, 0o700);
        set(&top, 0o710);
        assert_eq!(closed_to(&below, uid + 1, gid + 1), Some((top, 0o710)));
        assert_eq!(
            closed_to(&below, uid + 1, gid),
            Some((below.clone(), 0o700))
        );
        assert_eq!(closed_to(&below, uid, gid), None);
    }
}
