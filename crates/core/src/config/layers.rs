//! The layers of the configuration: files and the environment become flat maps from key to value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{KEYS, Key};
use super::{ConfigError, FILE, SQLX_TOML, dotenv};
use crate::env;
use crate::protocol::MigrateSettings;

/// The place that a value was set in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The value is the default.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// One layer: values by key, each with its origin.
#[derive(Debug, Default, Clone)]
pub struct Layer {
    pub(super) values: Values,
    /// The values of each `[[template]]` after the first one.
    pub(super) more_templates: Vec<Values>,
}

/// Values by key, with their origins.
pub(super) type Values = BTreeMap<String, (Value, Origin)>;

/// The path of the configuration file: the one that the environment variable names, else [`FILE`] in `root`.
pub fn file_path(root: &Path, named: Option<&str>) -> PathBuf {
    root.join(named.unwrap_or(FILE))
}

impl Layer {
    /// The lowest layer: the values in `defaults.toml`.
    pub(super) fn defaults() -> Self {
        let values = KEYS.iter().filter_map(|key| {
            let value = key.value.clone()?;
            Some((key.name.clone(), (value, Origin::Default)))
        });
        Self {
            values: values.collect(),
            more_templates: Vec::new(),
        }
    }

    /// Sets a key from the command line.
    pub fn flag(&mut self, name: &str, value: impl Into<Value>) {
        self.values
            .insert(name.to_owned(), (value.into(), Origin::Flag));
    }

    /// The values of `sqlx.toml` in `root` that correspond to our keys.
    pub(super) fn sqlx_toml(root: &Path, is_read: bool) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        if let Some(dir) = MigrateSettings::of_package(root, is_read)?.migrations_dir {
            let origin = Origin::File(root.join(SQLX_TOML));
            let key = "template.migrations".to_owned();
            layer.values.insert(key, (Value::String(dir), origin));
        }
        Ok(layer)
    }

    /// Reads the configuration file. A file that the environment variable names must exist; without any file, the layer is empty.
    pub(super) fn file(
        root: &Path,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let named = var(env::CONFIG);
        let path = file_path(root, named.as_deref());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let table: Table = toml::from_str(&text).map_err(|e| ConfigError::Syntax {
            path: path.clone(),
            message: with_position(&text, &e),
        })?;
        let (first, others) = split_templates(table);
        let origin = Origin::File(path);
        let flat = |table: Table| {
            let mut values = Values::new();
            flatten(&mut values, "", table, &origin);
            values
        };
        Ok(Self {
            values: flat(first),
            more_templates: others.into_iter().map(flat).collect(),
        })
    }

    /// Reads the environment variables of all keys, and the aliases of some.
    pub(super) fn environment(
        root: &Path,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        let mut set = |key: &Key, text: String, origin: Origin| {
            layer
                .values
                .insert(key.name.clone(), (from_variable(key, &text), origin));
        };
        let lookup = |name: &str| var(name).filter(|v| !v.is_empty());
        for key in KEYS.iter() {
            let alias = match key.name.as_str() {
                "server.url" => Some(env::DATABASE_URL),
                "server.allow_remote" => Some(env::ALLOW_REMOTE),
                _ => None,
            };
            let names = [Some(key.variable()), alias.map(str::to_owned)];
            let found = names
                .into_iter()
                .flatten()
                .find_map(|name| lookup(&name).map(|text| (name, text)));
            if let Some((name, text)) = found {
                set(key, text, Origin::Environment(name));
            } else if key.name == "server.url"
                && let Some((path, text)) = dotenv::url(root)?
            {
                set(key, text, Origin::File(path));
            }
        }
        Ok(layer)
    }
}

/// The table with the first `[[template]]`, and one with each of the others.
fn split_templates(mut table: Table) -> (Table, Vec<Table>) {
    const TEMPLATE: &str = "template";
    let of = |value: &Value| Table::from_iter([(TEMPLATE.to_owned(), value.clone())]);
    let others = match table.get(TEMPLATE) {
        Some(Value::Array(templates)) if templates.iter().all(Value::is_table) => {
            templates.iter().map(of).collect()
        }
        _ => Vec::new(),
    };
    let mut others: Vec<Table> = others;
    if !others.is_empty() {
        table.extend(others.remove(0));
    }
    (table, others)
}

fn flatten(values: &mut Values, prefix: &str, table: Table, origin: &Origin) {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        let is_value = KEYS.iter().any(|key| key.name == name);
        match value {
            Value::Table(inner) if !is_value => flatten(values, &format!("{name}."), inner, origin),
            value => drop(values.insert(name, (value, origin.clone()))),
        }
    }
}

/// The error with its position. The line itself is left out, because it may contain a password.
pub(super) fn with_position(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{} at line {line}, column {column}", error.message())
}

fn from_variable(key: &Key, text: &str) -> Value {
    if let Some(value) = inline_toml(text) {
        return value;
    }
    if key.list {
        let items = text.split(',').map(str::trim).filter(|i| !i.is_empty());
        return Value::Array(items.map(|i| Value::String(i.to_owned())).collect());
    }
    match (text.parse::<i64>(), text) {
        (Ok(number), _) => Value::Integer(number),
        (_, "true") => Value::Boolean(true),
        (_, "false") => Value::Boolean(false),
        _ => Value::String(text.to_owned()),
    }
}

/// A list or a table as in the configuration file.
fn inline_toml(text: &str) -> Option<Value> {
    let is_inline = text.trim_start().starts_with(['[', '{']);
    let table = is_inline.then(|| toml::from_str::<Table>(&format!("value = {text}")));
    table?.ok()?.remove("value")
}

/// Variables with our prefix that set no key.
pub(super) fn unknown_variables() -> Vec<(String, Origin)> {
    let ours = |name: &String| {
        name.starts_with(env::CONFIG_PREFIX)
            && !env::OTHERS.contains(&name.as_str())
            && !env::COMPOSE_FILE_READS.contains(&name.as_str())
            && KEYS.iter().all(|key| key.variable() != *name)
    };
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let as_key = |name: &str| name[env::CONFIG_PREFIX.len()..].to_ascii_lowercase();
    names
        .filter(ours)
        .map(|name| (as_key(&name), Origin::Environment(name)))
        .collect()
}
