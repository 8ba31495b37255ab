//! `DATABASE_URL` in `.env` files, which sqlx's macros and tools read too: in the workspace root's, and in those of its members.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::address::Address;
use crate::config::ConfigError;
use crate::env;

const FILE: &str = ".env";

/// What the `.env` files of members name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberUrl {
    /// No server.
    None,
    /// One server, in the first of these files.
    One(PathBuf, String),
    /// Different servers.
    Several(Vec<PathBuf>),
}

/// The URL of the workspace root's `.env`. An invalid line is not printed, because it may contain a password; it is an error only if it is the line
/// with `DATABASE_URL`.
pub(super) fn url(dir: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = dir.join(FILE);
    let Ok(entries) = dotenvy::from_path_iter(&path) else {
        return Ok(None);
    };
    let mut broken = false;
    for entry in entries {
        match entry {
            Ok((name, value)) if name == env::DATABASE_URL && !value.is_empty() => {
                return Ok(Some((path, value)));
            }
            Ok(_) => {}
            Err(_) => broken = true,
        }
    }
    if broken {
        tracing::warn!("ignored an invalid line of `{}`", path.display());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let sets_url = |line: &str| {
            let line = line.trim_start().trim_start_matches("export ").trim_start();
            line.strip_prefix(env::DATABASE_URL)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        if text.lines().any(sets_url) {
            let message = "failed to parse the line with DATABASE_URL; put its value in quotes";
            return Err(ConfigError::Dotenv { path, message });
        }
    }
    Ok(None)
}

/// The URL in the `.env` files of the members. They may name different databases of one server: only the server counts.
pub(super) fn url_of_members(root: &Path) -> Result<MemberUrl, ConfigError> {
    let mut found = Vec::new();
    for member in members(root) {
        found.extend(url(&member)?);
    }
    let server = |url: &str| Address::parse(url).map(|(address, _)| address).ok();
    let is_same = |other: &(PathBuf, String)| server(&other.1) == server(&found[0].1);
    if !found.iter().all(is_same) {
        let paths = found.into_iter().map(|(path, _)| path);
        return Ok(MemberUrl::Several(paths.collect()));
    }
    let first = found.into_iter().next();
    Ok(first.map_or(MemberUrl::None, |(path, url)| MemberUrl::One(path, url)))
}

/// The directories of the members that the workspace's `Cargo.toml` lists. cargo would need too long, and perhaps the network.
fn members(root: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let manifest: Table = toml::from_str(&text).unwrap_or_default();
    let patterns = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array);
    let patterns = patterns.into_iter().flatten().filter_map(Value::as_str);
    let escaped = glob::Pattern::escape(&root.to_string_lossy());
    let mut found: Vec<PathBuf> = patterns
        .filter_map(|pattern| glob::glob(&format!("{escaped}/{pattern}")).ok())
        .flatten()
        .flatten()
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, url) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(path, format!("DATABASE_URL={url}\n")).expect("a file");
        }
        let manifest = "[workspace]\nmembers = ['crates/*', 'tool', 'gone']\n";
        std::fs::write(dir.path().join("Cargo.toml"), manifest).expect("a file");
        dir
    }

    #[test]
    fn members_agree_if_they_name_one_server() {
        let (a, b) = ("crates/a/.env", "tool/.env");
        let other = ("old/.env", "postgres://me@old/x");
        let dir = workspace(&[(a, "postgres://me@h/a"), (b, "postgres://me@h/b"), other]);
        let found = url_of_members(dir.path()).expect("valid files");
        let url = "postgres://me@h/a".to_owned();
        assert_eq!(found, MemberUrl::One(dir.path().join(a), url));
        let dir = workspace(&[(a, "postgres://me@h/a"), (b, "postgres://me@i/a")]);
        let found = url_of_members(dir.path()).expect("valid files");
        let paths = [a, b].map(|path| dir.path().join(path)).to_vec();
        assert_eq!(found, MemberUrl::Several(paths));
        let dir = workspace(&[other]);
        let found = url_of_members(dir.path()).expect("valid files");
        assert_eq!(found, MemberUrl::None);
    }
}
