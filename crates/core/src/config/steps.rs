//! The sources of a template: directories of migrations, files of SQL, and commands. One list has all kinds.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::config::ConfigError;
use crate::protocol::{MigrateSettings, MigrationDirectory};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
const EXAMPLE: &str = "a path, or a table such as `{ command = \"make migrate\", inputs = [\"db/**\"] }`, or a list of both";

/// A file of SQL or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepConfig {
    /// A file of SQL; in `template.migrations` also a directory.
    Path(PathBuf),
    /// A command.
    Command(CommandConfig),
}

/// A command that changes the building database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// The command as it was configured, for output.
    pub name: String,
    /// Glob patterns of the files that it reads, relative to the root.
    pub inputs: Vec<String>,
    /// A text that changes when the command does something else.
    pub version: Option<String>,
    /// After which time it is killed.
    pub timeout: Duration,
}

/// A source of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaSource {
    /// A directory of migrations; it may be missing.
    Directory(MigrationDirectory),
    /// A file of SQL or a command.
    Step(StepConfig),
}

impl SchemaSource {
    /// A path is a directory, unless there is a file.
    pub(super) fn of(
        root: &Path,
        step: StepConfig,
        reads_sqlx_toml: bool,
    ) -> Result<Self, ConfigError> {
        Ok(match step {
            StepConfig::Path(path) if !path.is_file() => Self::Directory(MigrationDirectory {
                migrate: MigrateSettings::of_migrations(root, &path, reads_sqlx_toml)?,
                path,
            }),
            step => Self::Step(step),
        })
    }
}

/// An invalid item.
#[derive(Debug)]
pub(super) struct Problem {
    pub value: Value,
    pub expected: Cow<'static, str>,
}

/// Reads one item or a list.
pub(super) fn read(root: &Path, value: &Value) -> Result<Vec<StepConfig>, Problem> {
    match value {
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(|item| step(root, item)).collect(),
        item => Ok(vec![step(root, item)?]),
    }
}

fn step(root: &Path, value: &Value) -> Result<StepConfig, Problem> {
    let step = match value {
        Value::String(path) if !path.is_empty() => Ok(StepConfig::Path(root.join(path))),
        Value::Table(table) => command(table).map(StepConfig::Command),
        _ => Err(EXAMPLE.into()),
    };
    step.map_err(|expected| Problem {
        value: value.clone(),
        expected,
    })
}

fn command(table: &Table) -> Result<CommandConfig, Cow<'static, str>> {
    const KEYS: [&str; 4] = ["command", "inputs", "version", "timeout_secs"];
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "no `{unknown}` in it: a command has the keys {}",
            KEYS.join(", ")
        )
        .into());
    }
    let words = match table.get("command") {
        Some(Value::String(line)) if !line.trim().is_empty() => {
            vec!["sh".to_owned(), "-c".to_owned(), line.clone()]
        }
        Some(Value::Array(items)) => strings(items).unwrap_or_default(),
        _ => Vec::new(),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(
            "`command` with a command line, or with a program and its arguments as a list".into(),
        );
    }
    let name = match table.get("command") {
        Some(Value::String(line)) => line.trim().to_owned(),
        _ => words.join(" "),
    };
    let inputs = match table.get("inputs") {
        None => Some(Vec::new()),
        Some(Value::String(pattern)) => Some(vec![pattern.clone()]),
        Some(Value::Array(items)) => strings(items),
        Some(_) => None,
    };
    let inputs =
        inputs.ok_or("`inputs` with a list of glob patterns such as `[\"db/**/*.sql\"]`")?;
    let version = match table.get("version") {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Integer(number)) => Some(number.to_string()),
        Some(_) => return Err("`version` with a text or a whole number".into()),
    };
    if inputs.is_empty() && version.is_none() {
        return Err(
            "`inputs` (glob patterns of the files that the command reads) or `version`: they decide when the template is built again"
                .into(),
        );
    }
    let timeout = match table.get("timeout_secs") {
        None => DEFAULT_TIMEOUT,
        Some(Value::Integer(seconds @ 1..=86_400)) => Duration::from_secs(seconds.unsigned_abs()),
        Some(_) => return Err("`timeout_secs` with a whole number from 1 to 86400".into()),
    };
    Ok(CommandConfig {
        words,
        name,
        inputs,
        version,
        timeout,
    })
}

fn strings(items: &[Value]) -> Option<Vec<String>> {
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Vec<StepConfig>, Problem> {
        let table: Table = toml::from_str(&format!("v = {value}")).expect("valid TOML");
        read(Path::new("/root"), &table["v"])
    }

    #[test]
    fn one_step_needs_no_list() {
        let path = |path: &str| StepConfig::Path(Path::new("/root").join(path));
        assert_eq!(parse("'db'").expect("a path"), [path("db")]);
        assert_eq!(
            parse("['db', '/a/b.sql']").expect("two"),
            [path("db"), path("/a/b.sql")]
        );
        for none in ["''", "[]"] {
            assert_eq!(parse(none).expect("none"), []);
        }
        let steps = parse(
            "[{ command = 'make x', inputs = 'db/*', version = 2 }, { command = ['a', 'b c'], version = 'x', timeout_secs = 5 }]",
        );
        let steps = steps.expect("two commands");
        let [StepConfig::Command(make), StepConfig::Command(list)] = &steps[..] else {
            panic!("{steps:?}");
        };
        assert_eq!(make.words, ["sh", "-c", "make x"]);
        assert_eq!(
            (make.name.as_str(), make.version.as_deref()),
            ("make x", Some("2"))
        );
        assert_eq!((make.inputs.len(), make.timeout), (1, DEFAULT_TIMEOUT));
        assert_eq!(
            (list.name.as_str(), list.timeout),
            ("a b c", Duration::from_secs(5))
        );
    }

    #[test]
    fn invalid_items_are_explained() {
        for (value, expected) in [
            ("7", "a path"),
            ("['']", "a path"),
            ("{ command = 'x' }", "they decide when"),
            ("{ command = 'x', inputs = [] }", "they decide when"),
            ("{ inputs = ['x'] }", "`command` with"),
            ("{ command = [], version = 1 }", "`command` with"),
            ("{ command = [''], version = 1 }", "`command` with"),
            ("{ command = 'x', inputs = [1] }", "glob patterns"),
            ("{ command = 'x', version = 1.5 }", "`version` with"),
            (
                "{ command = 'x', version = 1, timeout_secs = 0 }",
                "from 1 to 86400",
            ),
            (
                "{ command = 'x', version = 1, timeout = 5 }",
                "no `timeout` in it",
            ),
        ] {
            let problem = parse(value).expect_err(value);
            assert!(problem.expected.contains(expected), "{value}: {problem:?}");
        }
    }
}
