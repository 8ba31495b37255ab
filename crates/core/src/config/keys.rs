//! The keys of the configuration. `defaults.toml` is the only source of their names, defaults and descriptions: it is the lowest layer, the file that
//! `kapsel-testdb init` writes, and the table in docs/CONFIGURATION.md.

use std::sync::LazyLock;

use toml::{Table, Value};

use crate::env;

const DEFAULTS: &str = include_str!("defaults.toml");

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The name, as `table.key`.
    pub name: String,
    /// The default; `None` if it depends on the machine or the project.
    pub value: Option<Value>,
    /// The default as TOML or in words.
    pub default: String,
    /// The description.
    pub about: String,
    /// Whether the environment variable is a comma-separated list.
    pub list: bool,
    /// Whether the value is a table with names of its own. The environment variable is an inline table.
    pub table: bool,
}

impl Key {
    /// The environment variable that sets the key.
    pub fn variable(&self) -> String {
        let name = self.name.replace('.', "_").to_ascii_uppercase();
        format!("{}{name}", env::CONFIG_PREFIX)
    }
}

/// All keys, in the order of the file.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| read(DEFAULTS));

/// The configuration file that `init` writes: every key as a comment, with its default or an example.
pub fn commented_file() -> String {
    let mut text = String::new();
    for line in DEFAULTS.lines() {
        let is_value = !line.is_empty() && !line.starts_with(['#', '[']);
        let mark = if is_value { "# " } else { "" };
        text.push_str(&format!("{mark}{line}\n"));
    }
    text
}

fn read(text: &str) -> Vec<Key> {
    let (mut table, mut comment, mut keys) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        let example = line.strip_prefix("# ").and_then(assignment);
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((name, value)) = assignment(line) {
            keys.push(Key {
                name: format!("{table}{name}"),
                list: value.is_array(),
                table: value.is_table(),
                default: value.to_string(),
                value: Some(value),
                about: std::mem::take(&mut comment),
            });
        } else if let Some((name, value)) = example {
            let (about, default) = comment.rsplit_once(" Default: ").unwrap_or((&comment, ""));
            keys.push(Key {
                name: format!("{table}{name}"),
                list: value.is_array(),
                table: value.is_table(),
                default: default.trim_end_matches('.').to_owned(),
                value: None,
                about: about.to_owned(),
            });
            comment.clear();
        } else if let Some(words) = line.strip_prefix("# ") {
            let space = if comment.is_empty() { "" } else { " " };
            comment.push_str(&format!("{space}{words}"));
        }
    }
    keys
}

/// Parses a line `key = value`.
fn assignment(line: &str) -> Option<(String, Value)> {
    let is_key = |c: char| c.is_ascii_lowercase() || c == '_';
    line.split_once(" = ")
        .filter(|(key, _)| key.chars().all(is_key))?;
    toml::from_str::<Table>(line).ok()?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_description_and_a_default() {
        assert!(KEYS.len() > 30);
        for key in KEYS.iter() {
            assert!(key.about.ends_with(['.', ';']), "{key:?}");
            assert!(!key.default.is_empty(), "{key:?}");
            assert!(!key.about.contains("Default:"), "{key:?}");
        }
    }

    #[test]
    fn the_parser_finds_every_key_also_commented_ones() {
        let bare: String = DEFAULTS
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if assignment(rest).is_some() => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let table: Table = toml::from_str(&bare).expect("valid TOML");
        let keys = table.iter().map(|(name, value)| match value {
            Value::Table(inner) => inner
                .iter()
                .map(|(key, _)| format!("{name}.{key}"))
                .collect(),
            _ => vec![name.clone()],
        });
        let mut keys: Vec<String> = keys.flatten().collect();
        let mut read: Vec<&str> = KEYS.iter().map(|key| key.name.as_str()).collect();
        keys.sort();
        read.sort_unstable();
        assert_eq!(read, keys);
    }

    #[test]
    fn the_commented_file_sets_nothing() {
        let table: Table = toml::from_str(&commented_file()).expect("valid TOML");
        assert!(
            table
                .values()
                .all(|v| v.as_table().is_some_and(Table::is_empty))
        );
    }
}
