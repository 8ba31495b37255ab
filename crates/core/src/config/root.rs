//! Finds the workspace root, the directory of the configuration, the `.env` file and the migrations.

use std::path::{Path, PathBuf};

use crate::config::FILE;
use crate::env;

/// The workspace root, the first of: the one that a variable names; the one that nextest exports; `start` or the nearest directory above it with our configuration, with a
/// `Cargo.lock` (members of a workspace have none), or with a `.git`; `start`.
pub fn find_root(start: &Path) -> PathBuf {
    let variables = [env::ROOT, env::NEXTEST_WORKSPACE_ROOT].into_iter();
    let mut named = variables.filter_map(std::env::var_os);
    let root = named.find(|root| !root.is_empty());
    root.map_or_else(|| search(start), PathBuf::from)
}

fn search(start: &Path) -> PathBuf {
    let with = |name: &'static str| start.ancestors().filter(move |dir| dir.join(name).exists());
    with(FILE)
        .next()
        .or_else(|| with("Cargo.lock").next())
        .or_else(|| with(".git").next())
        .unwrap_or(start)
        .to_path_buf()
}

/// A path for messages: relative to the workspace root, if it is below it.
pub fn shown_path(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_priority_over_the_lock_file_and_that_over_git() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let member = dir.path().join("ws/member/src");
        std::fs::create_dir_all(&member).expect("directories");
        std::fs::create_dir(dir.path().join(".git")).expect("a directory");
        assert_eq!(search(&member), dir.path());
        std::fs::write(dir.path().join("ws/Cargo.lock"), "").expect("a file");
        assert_eq!(search(&member), dir.path().join("ws"));
        std::fs::create_dir(dir.path().join("ws/member/.config")).expect("a directory");
        std::fs::write(dir.path().join("ws/member").join(FILE), "").expect("a file");
        assert_eq!(search(&member), dir.path().join("ws/member"));
    }
}
