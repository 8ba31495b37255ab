//! Finds the directories of migrations in a workspace. If there are several, the code decides: the arguments of test attributes
//! (`migrations = "…"`, `migrator = "…"`) before those of `migrate!("…")`, and the directory that `template.migrations` has by default before others.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kapsel_testdb_core::config::shown_path;
use kapsel_testdb_core::template::is_migrations_directory;

use crate::init::members::Member;

/// The default of `template.migrations`.
pub(super) const DEFAULT: &str = "migrations";
/// Directories below this depth are not searched.
const DEPTH: usize = 10;

/// What `init` found. All directories are relative to the workspace root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migrations {
    /// The configuration names them.
    Configured,
    /// This directory is used. There may be others.
    Found {
        /// The directory.
        directory: String,
        /// The others.
        others: Vec<String>,
    },
    /// There are several, and the code does not decide.
    Several(Vec<String>),
    /// There are none.
    Missing,
}

/// Searches the workspace at `root`, except for packages that are not its members.
pub(super) fn find(root: &Path, members: Option<&[Member]>) -> Migrations {
    let mut search = Search {
        root,
        members,
        candidates: Vec::new(),
        code: Vec::new(),
    };
    search.enter(root, root, 0);
    let Search {
        mut candidates,
        code,
        ..
    } = search;
    candidates.sort();
    match choose(root, members, &candidates, &code) {
        Some(chosen) => Migrations::Found {
            directory: shown_path(root, chosen),
            others: shown(root, candidates.iter().filter(|other| *other != chosen)),
        },
        None if candidates.is_empty() => Migrations::Missing,
        None => Migrations::Several(shown(root, candidates.iter())),
    }
}

fn shown<'a>(root: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    paths.map(|path| shown_path(root, path)).collect()
}

fn choose<'a>(
    root: &Path,
    members: Option<&[Member]>,
    candidates: &'a [PathBuf],
    code: &[(PathBuf, PathBuf)],
) -> Option<&'a PathBuf> {
    if candidates.len() < 2 {
        return candidates.first();
    }
    let uses = Uses::read(members, code);
    let only = |named: &dyn Fn(&PathBuf) -> bool| {
        let mut named = candidates.iter().filter(|candidate| named(candidate));
        named.next().filter(|_| named.next().is_none())
    };
    only(&|candidate| uses.tested.contains(candidate))
        .or_else(|| only(&|candidate| uses.compiled.iter().any(|(_, dir)| dir == candidate)))
        .or_else(|| only(&|candidate| *candidate == root.join(DEFAULT)))
        .or_else(|| only(&|candidate| candidate.ends_with(DEFAULT)))
}

struct Search<'a> {
    root: &'a Path,
    members: Option<&'a [Member]>,
    candidates: Vec<PathBuf>,
    /// The files of code, each with the directory of its package.
    code: Vec<(PathBuf, PathBuf)>,
}

impl Search<'_> {
    /// What cannot be read is skipped.
    fn enter(&mut self, dir: &Path, package: &Path, depth: usize) {
        let is_package = dir.join("Cargo.toml").is_file();
        let package = if is_package { dir } else { package };
        if is_package && dir != self.root && !self.is_member(dir) {
            return;
        }
        if dir != self.root && is_migrations_directory(dir) {
            self.candidates.push(dir.to_path_buf());
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // cargo marks its target directories with such a file.
            let is_cache = is_dir && path.join("CACHEDIR.TAG").is_file();
            if is_dir && !is_hidden && !is_cache && name != "node_modules" && depth < DEPTH {
                self.enter(&path, package, depth + 1);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.code.push((path, package.to_path_buf()));
            }
        }
    }

    fn is_member(&self, dir: &Path) -> bool {
        let mut members = self.members.into_iter().flatten();
        self.members.is_none() || members.any(|member| member.dir == *dir)
    }
}

/// The directories of migrations that code names.
#[derive(Default)]
struct Uses {
    /// By attributes of tests.
    tested: BTreeSet<PathBuf>,
    /// By `migrate!`, each with the directory of its package.
    compiled: BTreeSet<(PathBuf, PathBuf)>,
}

impl Uses {
    fn read(members: Option<&[Member]>, code: &[(PathBuf, PathBuf)]) -> Self {
        let mut uses = Self::default();
        let mut migrators = BTreeSet::new();
        for (file, package) in code {
            let text = fs::read_to_string(file).unwrap_or_default();
            let directory = |path: &str| fs::canonicalize(package.join(path)).ok();
            let compiled = compiled(&text).into_iter().filter_map(directory);
            uses.compiled
                .extend(compiled.map(|dir| (package.clone(), dir)));
            for argument in tested(&text) {
                match argument {
                    Argument::Migrations(path) => uses.tested.extend(directory(path)),
                    Argument::Migrator(path) => {
                        migrators.insert(package_of(path, package, members));
                    }
                }
            }
        }
        let of_tests = uses.compiled.iter();
        let of_tests = of_tests.filter(|(package, _)| migrators.contains(package));
        uses.tested.extend(of_tests.map(|(_, dir)| dir.clone()));
        uses
    }
}

/// The package of a path such as `storage::MIGRATOR` that code in `package` names.
fn package_of(path: &str, package: &Path, members: Option<&[Member]>) -> PathBuf {
    let krate = path.split("::").next().unwrap_or_default().trim();
    let mut members = members.into_iter().flatten();
    let found = members.find(|member| member.krate == krate);
    found.map_or_else(|| package.to_path_buf(), |member| member.dir.clone())
}

/// The directories of `migrate!` of sqlx, and of `embed_migrations!` of refinery and diesel.
fn compiled(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (before, after) in occurrences(text, "migrat") {
        let is_embed = before.ends_with("embed_");
        let arguments = after.strip_prefix(if is_embed { "ions!" } else { "e!" });
        match arguments.map(|rest| rest.trim_start_matches(['(', '[', '{', ' ', '\n'])) {
            Some(rest) if rest.starts_with('"') => found.extend(quoted(rest)),
            Some(rest) if rest.starts_with([')', ']', '}']) => found.push(DEFAULT),
            _ => {}
        }
    }
    found
}

enum Argument<'a> {
    Migrations(&'a str),
    Migrator(&'a str),
}

/// The arguments of the attributes `#[sqlx::test(…)]` and `#[kapsel_testdb::test(…)]`.
fn tested(text: &str) -> Vec<Argument<'_>> {
    let mut found = Vec::new();
    for (_, after) in occurrences(text, "::test(") {
        let arguments = after.split(")]").next().unwrap_or_default();
        let value = |key: &str| {
            let (_, rest) = arguments.split_once(key)?;
            quoted(rest.trim_start().strip_prefix('=')?.trim_start())
        };
        found.extend(value("migrations").map(Argument::Migrations));
        found.extend(value("migrator").map(Argument::Migrator));
    }
    found
}

/// The texts before and after each occurrence outside of comments.
fn occurrences<'a>(text: &'a str, wanted: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let split = move |(at, found): (usize, &'a str)| (&text[..at], &text[at + found.len()..]);
    let is_code = |(before, _): &(&str, &str)| {
        let line = before.rsplit('\n').next().unwrap_or_default();
        !line.contains("//")
    };
    text.match_indices(wanted).map(split).filter(is_code)
}

/// The text of a string literal at the start.
fn quoted(text: &str) -> Option<&str> {
    let (quoted, _) = text.strip_prefix('"')?.split_once('"')?;
    Some(quoted)
}
