//! Finds the workspace root: where the configuration, the `.env` file and the migrations are.

use std::path::{Path, PathBuf};

use super::FILE;
use crate::env;

/// The workspace root for a process: what nextest says, else the nearest folder above `start` with our configuration, else the
/// nearest one with a `Cargo.lock` (a workspace's members have none), else the nearest one with a `.git`, else `start`.
pub fn find_root(start: &Path) -> PathBuf {
    if let Some(root) = std::env::var_os(env::NEXTEST_WORKSPACE_ROOT) {
        return root.into();
    }
    search(start)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_the_lock_file_and_that_over_git() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let member = dir.path().join("ws/member/src");
        std::fs::create_dir_all(&member).expect("folders");
        std::fs::create_dir(dir.path().join(".git")).expect("a folder");
        assert_eq!(search(&member), dir.path());
        std::fs::write(dir.path().join("ws/Cargo.lock"), "").expect("a file");
        assert_eq!(search(&member), dir.path().join("ws"));
        std::fs::create_dir(dir.path().join("ws/member/.config")).expect("a folder");
        std::fs::write(dir.path().join("ws/member").join(FILE), "").expect("a file");
        assert_eq!(search(&member), dir.path().join("ws/member"));
    }
}
