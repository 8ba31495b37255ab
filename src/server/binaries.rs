//! Finds PostgreSQL's server binaries on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::local::LocalError;

/// A folder with `initdb` and `postgres` in it.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The folder.
    pub dir: PathBuf,
}

impl Binaries {
    /// Looks in the configured folder, or else in PATH, then in Debian's, Red Hat's, Homebrew's and Postgres.app's places, the
    /// newest version first.
    ///
    /// # Errors
    /// [`LocalError::NoBinaries`] says where it looked.
    pub fn find(configured: Option<&Path>) -> Result<Self, LocalError> {
        let candidates = match configured {
            Some(dir) => vec![dir.to_path_buf(), dir.join("bin")],
            None => usual_places(),
        };
        candidates
            .iter()
            .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
            .map(|dir| Self { dir: dir.clone() })
            .ok_or(LocalError::NoBinaries {
                looked_in: candidates,
            })
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What `postgres --version` says: minor version and the distribution's own included.
    pub fn version(&self) -> Option<String> {
        let output = Command::new(self.program("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// A client program, `psql` or `pg_dump`, that comes with a server, else the one in PATH: Debian's there is a wrapper that takes
/// 20 ms longer.
pub fn client(name: &str, configured: Option<&Path>) -> PathBuf {
    let configured = configured.map(|dir| vec![dir.to_path_buf(), dir.join("bin")]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = configured
        .unwrap_or_else(packaged)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file());
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn usual_places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(packaged()).collect()
}

/// Where packages put the programs.
fn packaged() -> Vec<PathBuf> {
    let mut places = Vec::new();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        places.extend(versions(Path::new(parent), prefix));
    }
    places
}

/// The `bin` folders of the versions below `parent`, newest first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_by_number() {
        let dir = tempfile::tempdir().expect("a temp dir");
        for version in ["9", "13", "15", "junk"] {
            std::fs::create_dir_all(dir.path().join(version).join("bin")).expect("folders");
        }
        let found = versions(dir.path(), "");
        let expected: Vec<_> = ["15", "13", "9"]
            .iter()
            .map(|v| dir.path().join(v).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_configured_folder_without_binaries_is_named() {
        let error = Binaries::find(Some(Path::new("/nowhere/pg"))).expect_err("nothing there");
        assert!(error.to_string().contains("/nowhere/pg"), "{error}");
    }
}
