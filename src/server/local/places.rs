//! Where the managed server's binaries and data are, and who it runs as. Decides; changes nothing on disk but an owner.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{At, LocalError};
use crate::platform;
use crate::server::binaries::Binaries;

/// What the data directory may need, in bytes: a cluster takes 24 MB, its WAL 64 to 256 MB, each clone 8 MB. A container has
/// 64 MB of tmpfs unless it is told otherwise.
const ROOM_ON_TMPFS: u64 = 1 << 30;

/// The user that the server runs as: ourselves, or the configured one when we are root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    /// Set when we must become the owner first.
    pub(super) switch: Option<u32>,
}

impl Owner {
    pub(super) fn find(run_as: &str) -> Result<Self, LocalError> {
        let me = rustix::process::geteuid();
        if !me.is_root() {
            return Ok(Self {
                uid: me.as_raw(),
                switch: None,
            });
        }
        let (uid, gid) =
            platform::user_ids(run_as).ok_or_else(|| LocalError::NoUser(run_as.to_owned()))?;
        Ok(Self {
            uid,
            switch: Some(gid),
        })
    }

    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        match self.switch {
            Some(gid) => std::os::unix::fs::lchown(path, Some(self.uid), Some(gid)),
            None => Ok(()),
        }
    }

    pub(super) fn become_owner(self, command: &mut Command) {
        if let Some(gid) = self.switch {
            // std drops the supplementary groups with the uid when it is root.
            command.gid(gid).uid(self.uid);
        }
    }
}

/// `<tmpfs or temp dir>/kapsel-testdb-<uid>-pg`: the first place where this version's cluster is, else the first with room.
pub(super) fn default_state(major: &str) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let name = format!("kapsel-testdb-{uid}-pg");
    let tmpfs = Path::new("/dev/shm").join(&name);
    let disk = std::env::temp_dir().join(&name);
    let has_cluster = |dir: &Path| dir.join(format!("pg{major}")).join("data").exists();
    if has_cluster(&tmpfs) || (!has_cluster(&disk) && has_room(Path::new("/dev/shm"))) {
        tmpfs
    } else {
        disk
    }
}

/// Whether a path is on a tmpfs with room for a cluster, the memory limit of our control group included.
fn has_room(path: &Path) -> bool {
    platform::tmpfs_room(path) > 0
        && platform::free_bytes(path).is_some_and(|free| free >= ROOM_ON_TMPFS)
}

/// The binaries' major version: from the folder's name, where packages put it, else by asking the program (5 ms).
pub(super) fn major_version(binaries: &Binaries) -> Result<String, LocalError> {
    let program = binaries.program("postgres");
    let resolved = fs::canonicalize(&program).at("find", &program)?;
    let from_path = resolved
        .ancestors()
        .skip(1)
        .take(2)
        .filter_map(|dir| dir.file_name()?.to_str())
        .find_map(major_of_folder);
    match from_path {
        Some(major) => Ok(major),
        None => ask_version(&program),
    }
}

/// `15`, `pgsql-15` (Red Hat), `postgresql@15` (Homebrew), `15.4` (Homebrew's own folders); any other name ending in digits says
/// nothing.
fn major_of_folder(name: &str) -> Option<String> {
    let version = ["pgsql-", "postgresql@", "postgresql-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    let number: u32 = version.split(['.', '_']).next()?.parse().ok()?;
    (9..100).contains(&number).then(|| number.to_string())
}

fn ask_version(program: &Path) -> Result<String, LocalError> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .at("run", program)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .find_map(|word| {
            let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
            (!digits.is_empty()).then_some(digits)
        })
        .ok_or_else(|| io::Error::other(format!("its version is `{}`", text.trim())))
        .at("read the version of", program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_is_read_from_packages_folders_only() {
        for (folder, major) in [
            ("15", Some("15")),
            ("pgsql-16", Some("16")),
            ("postgresql@17", Some("17")),
            ("17.2_1", Some("17")),
            ("bin", None),
            ("project-15", None),
            ("tmp42", None),
            ("2026", None),
        ] {
            assert_eq!(major_of_folder(folder).as_deref(), major, "{folder}");
        }
    }

    #[test]
    fn each_user_has_a_place_of_its_own() {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let state = default_state("15").to_string_lossy().into_owned();
        assert!(
            state.contains(&format!("kapsel-testdb-{uid}-pg")),
            "{state}"
        );
    }
}
