//! The members of a workspace that depend on kapsel-testdb, read from its `Cargo.toml` files (running cargo could need the network).
//! If the files contain something unknown, the answer is "all": an unneeded setup script costs little, a missing one costs much.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml_edit::{Document, Item};

use crate::init::{ALL, InitError, SCRIPT, read, splice};

/// A package of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its directory.
    pub(super) dir: PathBuf,
    /// Its name in Rust code.
    pub(super) krate: String,
    /// Its term of the filterset; `None` if it does not depend on kapsel-testdb.
    pub(super) term: Option<String>,
}

/// The packages of the workspace; `None` if there is no `Cargo.toml`, or if the files contain something unknown.
pub(super) fn find(root: &Path) -> Result<Option<Vec<Member>>, InitError> {
    let Some(text) = read(&root.join("Cargo.toml"))? else {
        return Ok(None);
    };
    let manifest = parse(&root.join("Cargo.toml"), &text)?;
    let Some(mut dirs) = member_dirs(root, manifest.as_item()) else {
        return Ok(None);
    };
    let mut members: Vec<Member> = Vec::new();
    while let Some(dir) = dirs.get(members.len()).cloned() {
        let path = dir.join("Cargo.toml");
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let member = parse(&path, &text)?;
        // Path dependencies inside the workspace are members, too.
        for found in
            path_dependencies(&dir, member.as_item()).filter(|found| found.starts_with(root))
        {
            if !dirs.contains(&found)
                && !excluded(root, manifest.as_item()).any(|no| found.starts_with(no))
            {
                dirs.push(found);
            }
        }
        members.push(Member {
            dir,
            krate: krate(member.as_item()),
            term: term(member.as_item(), manifest.as_item()),
        });
    }
    Ok(Some(members))
}

/// The filterset of the packages that depend on kapsel-testdb.
pub(super) fn filter(members: Option<&[Member]>) -> String {
    let members = members.unwrap_or_default().iter();
    combine(
        &members
            .map(|member| member.term.clone())
            .collect::<Vec<_>>(),
    )
}

fn krate(member: &Item) -> String {
    let name = |table: &str| member.get(table)?.get("name")?.as_str();
    let name = name("lib").or_else(|| name("package"));
    name.unwrap_or_default().replace('-', "_")
}

fn parse<'a>(path: &Path, text: &'a str) -> Result<Document<&'a str>, InitError> {
    splice::parse(text).map_err(|error| error.locate(path.to_owned(), text))
}

/// Joins one term per member; `None` for a member that does not depend on kapsel-testdb.
pub(super) fn combine(terms: &[Option<String>]) -> String {
    let some: Vec<&str> = terms.iter().flatten().map(String::as_str).collect();
    if some.is_empty() || some.len() == terms.len() {
        ALL.to_owned()
    } else {
        some.join(" + ")
    }
}

/// The term for one member. A member whose library depends on kapsel-testdb may be a test helper: its dependents count, too.
/// `=` matches the package name exactly.
pub(super) fn term(member: &Item, root: &Item) -> Option<String> {
    let name = member.get("package")?.get("name")?.as_str()?;
    match (
        depends(member, root, "dependencies"),
        depends(member, root, "dev-dependencies"),
    ) {
        (true, _) => Some(format!("rdeps(={name})")),
        (false, true) => Some(format!("package(={name})")),
        (false, false) => None,
    }
}

fn depends(member: &Item, root: &Item, kind: &str) -> bool {
    dependencies(member, kind)
        .any(|(key, dependency)| is_kapsel_testdb(key, dependency, inherited(root, key)))
}

/// The dependencies of one kind, for all targets.
fn dependencies<'a>(member: &'a Item, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Item)> {
    let targets = member.get("target").and_then(Item::as_table_like);
    let of_targets = targets
        .into_iter()
        .flat_map(|targets| targets.iter())
        .filter_map(move |(_, target)| target.get(kind));
    member
        .get(kind)
        .into_iter()
        .chain(of_targets)
        .filter_map(Item::as_table_like)
        .flat_map(|table| table.iter())
}

fn path_dependencies(dir: &Path, member: &Item) -> impl Iterator<Item = PathBuf> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let all = kinds
        .into_iter()
        .flat_map(|kind| dependencies(member, kind));
    all.filter_map(|(_, dependency)| {
        fs::canonicalize(dir.join(dependency.get("path")?.as_str()?)).ok()
    })
}

fn inherited<'a>(root: &'a Item, key: &str) -> Option<&'a Item> {
    root.get("workspace")?.get("dependencies")?.get(key)
}

/// `key = dependency`, possibly renamed, possibly inherited from the workspace.
fn is_kapsel_testdb(key: &str, dependency: &Item, inherited: Option<&Item>) -> bool {
    let inherits = dependency.get("workspace").and_then(Item::as_bool) == Some(true);
    let source = if inherits {
        inherited.unwrap_or(dependency)
    } else {
        dependency
    };
    source.get("package").and_then(Item::as_str).unwrap_or(key) == SCRIPT
}

/// Directories of all members; `None` if a pattern uses more than `*` and `?`.
fn member_dirs(root: &Path, manifest: &Item) -> Option<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    if manifest.get("package").is_some() {
        dirs.push(root.to_owned());
    }
    for pattern in strings(manifest, "members") {
        dirs.extend(expand(root, pattern)?);
    }
    let excluded: Vec<PathBuf> = excluded(root, manifest).collect();
    dirs.retain(|dir| dir == root || !excluded.contains(dir));
    dirs.sort();
    dirs.dedup();
    Some(dirs)
}

fn excluded<'a>(root: &'a Path, manifest: &'a Item) -> impl Iterator<Item = PathBuf> {
    strings(manifest, "exclude").map(|dir| root.join(dir))
}

fn strings<'a>(manifest: &'a Item, key: &str) -> impl Iterator<Item = &'a str> {
    let values = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get(key))
        .and_then(Item::as_array);
    values
        .into_iter()
        .flatten()
        .filter_map(|value| value.as_str())
}

/// Directories with a manifest that match `pattern`.
fn expand(root: &Path, pattern: &str) -> Option<Vec<PathBuf>> {
    let mut dirs = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part.contains("**") || part.contains('[') {
            return None;
        }
        dirs = match part.contains(['*', '?']) {
            false => dirs.into_iter().map(|dir| dir.join(part)).collect(),
            true => dirs.iter().flat_map(|dir| matching(dir, part)).collect(),
        };
    }
    let literal = !pattern.contains(['*', '?']);
    dirs.retain(|dir| literal || dir.join("Cargo.toml").is_file());
    Some(
        dirs.into_iter()
            .map(|dir| fs::canonicalize(&dir).unwrap_or(dir))
            .collect(),
    )
}

fn matching(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named =
        entries.filter(|entry| glob(pattern.as_bytes(), entry.file_name().as_encoded_bytes()));
    named.map(|entry| entry.path()).collect()
}

/// `*` and `?` as in a shell.
pub(super) fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, name)
                || name
                    .split_first()
                    .is_some_and(|(_, name)| glob(pattern, name))
        }
        (Some((b'?', rest)), Some((_, name))) => glob(rest, name),
        (Some((expected, rest)), Some((char, name))) if expected == char => glob(rest, name),
        _ => false,
    }
}
