//! Finds PostgreSQL's programs on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::local::{LocalError, major_version};

/// A directory with `initdb` and `postgres`.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The directory.
    pub dir: PathBuf,
}

impl Binaries {
    /// Searches the configured directory; without one, PATH, then the directories of Debian, Red Hat, Homebrew and Postgres.app, the
    /// newest version first.
    ///
    /// # Errors
    /// [`LocalError::NoBinaries`] names the searched directories.
    pub fn find(configured: Option<&Path>) -> Result<Self, LocalError> {
        let searched = candidates(configured);
        let found = installed(&searched).next();
        found.ok_or(LocalError::NoBinaries { searched })
    }

    /// [`Self::find`] for a major version.
    ///
    /// # Errors
    /// See [`Self::find`]; [`LocalError::NoVersion`] names the versions that were found.
    pub fn of_version(configured: Option<&Path>, version: u32) -> Result<Self, LocalError> {
        let searched = candidates(configured);
        let mut others = BTreeSet::new();
        for binaries in installed(&searched) {
            match major_version(&binaries) {
                Ok(major) if major == version.to_string() => return Ok(binaries),
                Ok(major) => drop(others.insert((major, binaries.dir))),
                // A program that does not run.
                Err(_) => {}
            }
        }
        Err(match others.is_empty() {
            true => LocalError::NoBinaries { searched },
            false => LocalError::NoVersion { version, others },
        })
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The output of `postgres --version`, which includes the minor version and the distribution's.
    pub fn version(&self) -> Option<String> {
        let output = Command::new(self.program("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// The path of a client program, `psql` or `pg_dump`. Programs of server packages take precedence over PATH, where Debian has a
/// wrapper that takes 20 ms longer.
pub fn client_program(name: &str, configured: Option<&Path>) -> PathBuf {
    let configured = configured.map(|dir| vec![dir.to_path_buf(), dir.join("bin")]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = configured
        .unwrap_or_else(package_directories)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file());
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn candidates(configured: Option<&Path>) -> Vec<PathBuf> {
    match configured {
        Some(dir) => vec![dir.to_path_buf(), dir.join("bin")],
        None => default_directories(),
    }
}

fn installed(directories: &[PathBuf]) -> impl Iterator<Item = Binaries> {
    let has = |dir: &Path, program: &str| dir.join(program).is_file();
    let found = directories.iter();
    let found = found.filter(move |dir| has(dir, "initdb") && has(dir, "postgres"));
    found.map(|dir| Binaries { dir: dir.clone() })
}

fn default_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The server starts in another working directory.
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(package_directories())
        .collect()
}

/// Directories in which packages install the programs.
fn package_directories() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        directories.extend(versions(Path::new(parent), prefix));
    }
    directories
}

/// The `bin` directories of the versions below `parent`, newest first.
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
            std::fs::create_dir_all(dir.path().join(version).join("bin")).expect("directories");
        }
        let found = versions(dir.path(), "");
        let expected: Vec<_> = ["15", "13", "9"]
            .iter()
            .map(|v| dir.path().join(v).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_configured_directory_without_binaries_is_named() {
        let error = Binaries::find(Some(Path::new("/nowhere/pg"))).expect_err("nothing there");
        assert!(error.to_string().contains("/nowhere/pg"), "{error}");
    }

    #[test]
    fn a_version_selects_the_binaries_and_others_are_named() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let bin = dir.path().join("15/bin");
        std::fs::create_dir_all(&bin).expect("directories");
        for program in ["initdb", "postgres"] {
            std::fs::write(bin.join(program), "").expect("a file");
        }
        let found = Binaries::of_version(Some(&bin), 15).expect("it is there");
        assert_eq!(found.dir, bin);
        let error = Binaries::of_version(Some(&bin), 17).expect_err("another version");
        let message = error.to_string();
        for part in [
            "found no PostgreSQL 17",
            &format!("15 in `{}`", bin.display()),
            "apt-get install postgresql-17",
            "`server.version`",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let error = Binaries::of_version(Some(Path::new("/nowhere")), 17).expect_err("nothing");
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
