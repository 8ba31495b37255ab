//! Decides the managed server's version, state directory and user. It changes nothing on disk except owners.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::platform;
use crate::protocol::{digest, hex};
use crate::server::binaries::Binaries;
use crate::server::local::error::{LocalError, PathContext};

/// Required free space on a tmpfs, in bytes: a cluster takes 24 MB, its WAL 64 to 256 MB, each clone 8 MB. A container has 64 MB by
/// default.
const MIN_TMPFS_BYTES: u64 = 1 << 30;

/// The user that the server runs as: our own, or the configured user if we are root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    /// The group id, if we are root and must switch to the user.
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

    pub(super) fn take_ownership(self, path: &Path) -> io::Result<()> {
        match self.switch {
            Some(gid) => std::os::unix::fs::lchown(path, Some(self.uid), Some(gid)),
            None => Ok(()),
        }
    }

    pub(super) fn become_owner(self, command: &mut Command) {
        if let Some(gid) = self.switch {
            // As root, std drops the supplementary groups when it sets the uid.
            command.gid(gid).uid(self.uid);
        }
    }
}

/// The name of the directory of a server: each combination of settings has a server of its own, because projects with different settings must not
/// share one.
pub(super) fn server_directory(major: &str, settings: &BTreeMap<String, String>) -> String {
    if settings.is_empty() {
        return format!("pg{major}");
    }
    let parts: Vec<&str> = settings.iter().flat_map(|(n, v)| [&**n, &**v]).collect();
    let hash = hex(&digest(&parts));
    format!("pg{major}-{}", &hash[..8])
}

/// Whether a directory has a name of [`server_directory`].
pub(super) fn is_server_directory(name: &str) -> bool {
    let version = name.strip_prefix("pg").unwrap_or_default();
    let (major, hash) = match version.split_once('-') {
        Some((major, hash)) => (major, Some(hash)),
        None => (version, None),
    };
    let is_hash = |hash: &str| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()) && hash.is_none_or(is_hash)
}

/// `<tmpfs or temp dir>/kapsel-testdb-<uid>-pg`: the one that has this server's cluster, else the first with free space.
pub(super) fn default_state(directory: &str) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let name = format!("kapsel-testdb-{uid}-pg");
    let tmpfs = Path::new("/dev/shm").join(&name);
    let disk = std::env::temp_dir().join(&name);
    let has_cluster = |dir: &Path| dir.join(directory).join("data").exists();
    if has_cluster(&tmpfs) || (!has_cluster(&disk) && has_space(Path::new("/dev/shm"))) {
        tmpfs
    } else {
        disk
    }
}

/// Whether a path is on a tmpfs with enough free space, within the memory limit of our control group.
fn has_space(path: &Path) -> bool {
    platform::tmpfs_free_bytes(path) > 0
        && platform::free_bytes(path).is_some_and(|free| free >= MIN_TMPFS_BYTES)
}

/// The major version of the binaries: from the directory's name in packages, else from the program (5 ms).
pub(in crate::server) fn major_version(binaries: &Binaries) -> Result<String, LocalError> {
    let program = binaries.program("postgres");
    let resolved = fs::canonicalize(&program).at("find", &program)?;
    let from_path = resolved
        .ancestors()
        .skip(1)
        .take(2)
        .filter_map(|dir| dir.file_name()?.to_str())
        .find_map(major_from_dir_name);
    match from_path {
        Some(major) => Ok(major),
        None => query_version(&program),
    }
}

/// Parses `15`, `pgsql-15` (Red Hat), `postgresql@15` (Homebrew) and `15.4` (Homebrew's versions). Other names that end in digits do
/// not contain a version.
fn major_from_dir_name(name: &str) -> Option<String> {
    let version = ["pgsql-", "postgresql@", "postgresql-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    let number: u32 = version.split(['.', '_']).next()?.parse().ok()?;
    (9..100).contains(&number).then(|| number.to_string())
}

fn query_version(program: &Path) -> Result<String, LocalError> {
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
    fn the_major_version_is_read_from_directories_of_packages_only() {
        for (dir, major) in [
            ("15", Some("15")),
            ("pgsql-16", Some("16")),
            ("postgresql@17", Some("17")),
            ("17.2_1", Some("17")),
            ("bin", None),
            ("project-15", None),
            ("tmp42", None),
            ("2026", None),
        ] {
            assert_eq!(major_from_dir_name(dir).as_deref(), major, "{dir}");
        }
    }

    #[test]
    fn only_directories_of_servers_are_recognized() {
        let settings = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(is_server_directory(&server_directory(
            "15",
            &BTreeMap::new()
        )));
        assert!(is_server_directory(&server_directory("15", &settings)));
        for other in ["pg", "pg_backups", "pg15.old", "pg15-x", "pgdata", "15"] {
            assert!(!is_server_directory(other), "{other}");
        }
    }

    #[test]
    fn each_user_has_its_own_state_directory() {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let state = default_state("pg15").to_string_lossy().into_owned();
        assert!(
            state.contains(&format!("kapsel-testdb-{uid}-pg")),
            "{state}"
        );
    }
}
