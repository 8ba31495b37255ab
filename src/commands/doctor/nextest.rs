//! Checks nextest: whether it runs the setup script, for which tests, and whether the program exists.

use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use crate::commands::doctor::report::{Check, Level};
use crate::init::narrow_filter;

const NAME: &str = "nextest";
const INIT: &str = "kapsel-testdb init";
const INSTALL: &str = "cargo install cargo-nextest --locked";
/// The first version that supports `[scripts.setup]`.
const SUPPORTS_SETUP: (u32, u32, u32) = (0, 9, 98);
/// The first version that passes the number of test threads to setup scripts.
const PASSES_THREADS: (u32, u32, u32) = (0, 9, 130);

/// A setup script that runs kapsel-testdb.
struct Script {
    name: String,
    command: String,
    relative_to: Option<String>,
}

/// Checks nextest and its configuration.
pub fn check(root: &Path) -> Vec<Check> {
    let mut checks = vec![installed()];
    let path = root.join(".config/nextest.toml");
    let Ok(text) = std::fs::read_to_string(&path) else {
        let message = "no `.config/nextest.toml`: each test process does the setup itself";
        checks.push(Check::new(Level::Slow, NAME, message).with_fix(INIT));
        return checks;
    };
    match text.parse::<Table>() {
        Ok(table) => checks.extend(configured(root, &table)),
        Err(error) => {
            let message = format!(
                "`{}` is not valid TOML: {}",
                path.display(),
                error.message()
            );
            checks.push(Check::new(Level::Fails, NAME, message));
        }
    }
    checks
}

fn installed() -> Check {
    let output = Command::new("cargo-nextest").arg("--version").output();
    let Ok(output) = output else {
        let message = "cargo-nextest is not on PATH; `cargo test` works, but is slower";
        return Check::new(Level::Note, NAME, message).with_fix(INSTALL);
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .split_whitespace()
        .nth(1)
        .unwrap_or("of unknown version");
    if numbers(version) < SUPPORTS_SETUP {
        let message = format!(
            "cargo-nextest {version} does not support `[scripts.setup]`, which `kapsel-testdb init` writes; 0.9.98 does"
        );
        return Check::new(Level::Fails, NAME, message).with_fix(INSTALL);
    }
    if numbers(version) < PASSES_THREADS {
        let message = format!(
            "cargo-nextest {version} does not pass the number of test threads to setup scripts; 0.9.130 does"
        );
        return Check::new(Level::Note, NAME, message).with_fix(INSTALL);
    }
    Check::ok(NAME, format!("cargo-nextest {version}"))
}

fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

fn configured(root: &Path, table: &Table) -> Vec<Check> {
    let Some(script) = our_script(table) else {
        let message = "no setup script runs kapsel-testdb: each test process does the setup itself";
        return vec![Check::new(Level::Slow, NAME, message).with_fix(INIT)];
    };
    let mut checks = Vec::new();
    if !is_enabled(table) {
        let message = "`experimental` does not list `setup-scripts`: nextest rejects the file";
        let check = Check::new(Level::Fails, NAME, message);
        checks.push(check.with_fix(r#"experimental = ["setup-scripts"]"#));
    }
    let filters = filters_of(table, &script.name);
    if filters.is_empty() {
        let message = format!("no profile runs the setup script `{}`", script.name);
        checks.push(Check::new(Level::Slow, NAME, message).with_fix(INIT));
    }
    for filter in filters {
        checks.push(filter_check(root, &script.name, &filter));
    }
    checks.push(program(root, &script));
    checks
}

fn our_script(table: &Table) -> Option<Script> {
    let setup = table.get("scripts").and_then(|s| s.get("setup"));
    let places = [setup, table.get("script")];
    let scripts = places.into_iter().flatten().filter_map(Value::as_table);
    scripts
        .flatten()
        .filter_map(|(name, script)| {
            let command = script.get("command")?;
            Some(Script {
                name: name.clone(),
                command: words(command)?,
                relative_to: text_of(command.get("relative-to")),
            })
        })
        .find(|script| script.command.contains("kapsel-testdb"))
}

fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

/// A command is one string, a list of words, or a table with a `command-line`.
fn words(command: &Value) -> Option<String> {
    match command {
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            Some(words?.join(" "))
        }
        Value::Table(table) => words(table.get("command-line")?),
        _ => None,
    }
}

fn is_enabled(table: &Table) -> bool {
    match table.get("experimental") {
        Some(Value::Array(names)) => names.iter().any(|n| n.as_str() == Some("setup-scripts")),
        Some(Value::Table(flags)) => flags.get("setup-scripts") == Some(&Value::Boolean(true)),
        _ => false,
    }
}

/// The filters of the rules, in any profile, that run a script.
fn filters_of(table: &Table, script: &str) -> Vec<String> {
    let profiles = table.get("profile").and_then(Value::as_table);
    let rules = profiles
        .into_iter()
        .flat_map(Table::values)
        .filter_map(|profile| profile.get("scripts")?.as_array())
        .flatten();
    let runs_it = |rule: &&Value| match rule.get("setup") {
        Some(Value::Array(names)) => names.iter().any(|name| name.as_str() == Some(script)),
        Some(name) => name.as_str() == Some(script),
        None => false,
    };
    rules
        .filter(runs_it)
        .map(|rule| text_of(rule.get("filter")).unwrap_or_else(|| "all()".to_owned()))
        .collect()
}

fn filter_check(root: &Path, script: &str, filter: &str) -> Check {
    let ours = |word: &str| filter.contains(&format!("{word}(kapsel-testdb)"));
    let is_member = std::fs::read_to_string(root.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("name = \"kapsel-testdb\""));
    if !is_member && ["rdeps", "deps", "package"].into_iter().any(ours) {
        let message = format!(
            "the filter `{filter}` names a package that is not a workspace member: nextest rejects it"
        );
        return Check::new(Level::Fails, NAME, message)
            .with_fix("kapsel-testdb init --filter 'all()'");
    }
    if filter == "all()"
        && let Some(narrow) = narrow_filter(root)
    {
        let message = "the setup script also runs for packages that do not depend on kapsel-testdb: their tests need a server, too";
        let fix = format!("kapsel-testdb init --filter '{narrow}'");
        return Check::new(Level::Note, NAME, message).with_fix(fix);
    }
    Check::ok(NAME, format!("setup script `{script}` for `{filter}`"))
}

/// Checks that the script's program exists and has our version.
fn program(root: &Path, script: &Script) -> Check {
    let word = script.command.split_whitespace().next().unwrap_or_default();
    let found = match script.relative_to.as_deref() {
        Some("target") => existing(target(root).join(word)),
        Some(_) => existing(root.join(word)),
        None if word.contains('/') => existing(root.join(word)),
        None => on_path(word),
    };
    let Some(found) = found else {
        let message = format!("the program of the setup script, `{word}`, does not exist");
        let fix = match script.relative_to {
            Some(_) => "build it: `cargo build --bin kapsel-testdb`",
            None => {
                "install it: `cargo install --path …/kapsel-testdb`, or `kapsel-testdb init --command …`"
            }
        };
        return Check::new(Level::Fails, "program", message).with_fix(fix);
    };
    let shown = found.display();
    if !found.ends_with("kapsel-testdb") {
        return Check::ok("program", format!("`{shown}`"));
    }
    let output = Command::new(&found).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let version = text.unwrap_or_default();
    let version = version.split_whitespace().nth(1).unwrap_or("unknown");
    if version != env!("CARGO_PKG_VERSION") {
        let message = format!(
            "`{shown}` has version {version}, this program has version {}",
            env!("CARGO_PKG_VERSION")
        );
        return Check::new(Level::Note, "program", message)
            .with_fix("install both from the same checkout");
    }
    Check::ok("program", format!("`{shown}`, version {version}"))
}

fn target(root: &Path) -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|v| !v.is_empty());
    named.map_or_else(|| root.join("target"), |dir| root.join(dir))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find_map(|dir| existing(dir.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> Vec<Level> {
        let table = text.parse().expect("TOML");
        let checks = configured(Path::new("/nowhere"), &table);
        checks.iter().map(|check| check.level).collect()
    }

    #[test]
    fn output_of_init_is_ok_except_for_a_missing_program() {
        let text = "experimental = ['setup-scripts']\n[scripts.setup.kapsel-testdb]\ncommand = '/no/kapsel-testdb prepare'\n\
                    [[profile.default.scripts]]\nfilter = 'all()'\nsetup = 'kapsel-testdb'\n";
        assert_eq!(levels(text), [Level::Ok, Level::Fails]);
    }

    #[test]
    fn missing_entries_are_found() {
        assert_eq!(levels(""), [Level::Slow]);
        let script = "[scripts.setup.db]\ncommand = ['/bin/sh', 'kapsel-testdb']\n";
        assert_eq!(levels(script), [Level::Fails, Level::Slow, Level::Ok]);
        let rule = "[[profile.ci.scripts]]\nfilter = 'rdeps(kapsel-testdb)'\nsetup = ['db']\n";
        let text = format!("experimental = {{ setup-scripts = true }}\n{script}{rule}");
        assert_eq!(levels(&text), [Level::Fails, Level::Ok]);
    }

    #[test]
    fn a_filter_of_all_tests_is_noted_if_some_packages_need_no_database() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        };
        write("Cargo.toml", "[workspace]\nmembers = ['a', 'b']\n");
        write("b/Cargo.toml", "[package]\nname = 'b'\n");
        let check = |member: &str| {
            write("a/Cargo.toml", &format!("[package]\nname = 'a'\n{member}"));
            filter_check(dir.path(), "kapsel-testdb", "all()")
        };
        assert_eq!(check("").level, Level::Ok);
        let found = check("[dev-dependencies]\nkapsel-testdb = '0.1'\n");
        let fix = "kapsel-testdb init --filter 'package(=a)'";
        assert_eq!(
            (found.level, found.fix.as_deref()),
            (Level::Note, Some(fix))
        );
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("0.9.59") < SUPPORTS_SETUP);
        assert!(numbers("0.9.98") >= SUPPORTS_SETUP);
        assert!(numbers("0.9.98") < PASSES_THREADS);
        assert!(numbers("0.9.143") > PASSES_THREADS);
    }
}
