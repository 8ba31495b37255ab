//! The layers of configuration: what keys there are, and how a file and the environment become flat maps of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{ConfigError, FILE, Migrate, SQLX_TOML};
use crate::env;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default.
    Default,
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// On the command line.
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

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file, as `table.key`.
    pub name: &'static str,
    /// Its default as TOML, or what happens without it.
    pub default: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Whether its environment variable holds a comma-separated list.
    pub list: bool,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
        list: false,
    }
}

const fn list(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key {
        list: true,
        ..key(name, default, about)
    }
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    key(
        "namespace",
        "the folder's name",
        "prefix of the databases' names: 1 to 16 of a-z and 0-9, beginning with a letter",
    ),
    key(
        "server.mode",
        "\"auto\"",
        "\"auto\": the server of the URL, else a managed one; \"adopt\"; \"local\"; \"compose\"",
    ),
    key("server.url", "DATABASE_URL, .env", "the server to adopt"),
    key(
        "server.admin_url",
        "the same server",
        "direct connection for administrative work, past a pooler",
    ),
    key(
        "server.maintenance_database",
        "\"postgres\"",
        "where administrative sessions and their locks live",
    ),
    key(
        "server.allow_remote",
        "false",
        "build and sweep on a server that is not on this machine",
    ),
    key(
        "server.bin_dir",
        "PATH and the usual places",
        "where `initdb` and `postgres` are",
    ),
    key(
        "server.state_dir",
        "tmpfs, else the temp dir",
        "where the managed server's data is",
    ),
    key(
        "server.run_as",
        "\"postgres\"",
        "user that the managed server runs as when we are root",
    ),
    key(
        "server.compose_file",
        "the one in the root",
        "the compose file",
    ),
    key(
        "server.compose_service",
        "the only one, else \"postgres\"",
        "which service of the compose file is PostgreSQL",
    ),
    key(
        "server.compose_port",
        "5432",
        "the port PostgreSQL listens on in the container",
    ),
    list(
        "server.compose_command",
        "the first that answers",
        "the tool, such as [\"docker\", \"compose\"]",
    ),
    key(
        "server.start_timeout_secs",
        "30",
        "how long the managed server may take to start",
    ),
    key(
        "server.cache",
        "true",
        "keep what `initdb` makes for the next cold start on this machine",
    ),
    key(
        "server.idle_stop_secs",
        "0",
        "stop the managed server after so long without runs and clients; 0 for never",
    ),
    key(
        "server.wait_secs",
        "5",
        "how long to wait for an adopted server that does not answer",
    ),
    key(
        "template.migrations",
        "\"migrations\"",
        "directory of sqlx migrations; \"\" for none",
    ),
    list("template.seeds", "[]", "SQL files run after the migrations"),
    list(
        "template.extensions",
        "[]",
        "extensions created before the first migration",
    ),
    key(
        "template.base",
        "\"template0\"",
        "database that templates are made from",
    ),
    key(
        "template.keep",
        "8",
        "templates that stay; least recently used ones go first",
    ),
    key(
        "pool.max_connections",
        "5",
        "most connections of one test's pool",
    ),
    key(
        "pool.acquire_timeout_secs",
        "30",
        "how long an acquire waits",
    ),
    key(
        "pool.sandbox_acquire_timeout_ms",
        "2000",
        "how long an acquire waits while a sandbox's only connection is in use",
    ),
    key(
        "pool.sandbox_lock_timeout_ms",
        "5000",
        "how long a statement in a sandbox waits for another test's lock; 0 for ever",
    ),
    key(
        "pool.leaks",
        "\"warn\"",
        "what happens to a test that leaves connections open: \"warn\", \"fail\" or \"off\"",
    ),
    key(
        "export.database_url",
        "\"off\"",
        "what DATABASE_URL becomes in tests: \"shared\", \"admin\" or \"off\"",
    ),
    key("keep.failed", "true", "keep the database of a failed test"),
    key("keep.max", "20", "most databases kept"),
    key("keep.max_age_days", "7", "longest time a database is kept"),
    key(
        "shared.pollution",
        "\"warn\"",
        "what tests commit into the shared clone is reported at the run's end; \"fail\": `wait` and `run` fail as well; \"off\"",
    ),
    key(
        "persistent.database",
        "none",
        "database that `prepare` by hand creates and keeps migrated",
    ),
    key(
        "run.keeper",
        "true",
        "whether a run has a background process",
    ),
    key(
        "run.disk_budget_mb",
        "what is free",
        "most disk space, in MB, that a run's databases may take together",
    ),
];

impl Key {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!(
            "{}{}",
            env::CONFIG_PREFIX,
            self.name.replace('.', "_").to_ascii_uppercase()
        )
    }
}

/// One layer: values by key, with where each was written.
#[derive(Debug, Default, Clone)]
pub struct Layer {
    pub(super) values: BTreeMap<String, (Value, Origin)>,
}

/// The configuration file of a root: the one that the environment names, else [`FILE`].
pub fn file_path(root: &Path, named: Option<&str>) -> PathBuf {
    root.join(named.unwrap_or(FILE))
}

impl Layer {
    /// Sets a key from the command line.
    pub fn flag(&mut self, name: &str, value: impl Into<Value>) {
        self.values
            .insert(name.to_owned(), (value.into(), Origin::Flag));
    }

    /// What sqlx's own file in `root` says of what is asked here too.
    pub(super) fn sqlx_toml(root: &Path) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        if let Some(folder) = Migrate::of_package(root)?.migrations_dir {
            let origin = Origin::File(root.join(SQLX_TOML));
            let key = "template.migrations".to_owned();
            layer.values.insert(key, (Value::String(folder), origin));
        }
        Ok(layer)
    }

    /// Reads the configuration file below `root`, or the one that the environment names. None is an empty layer; a named one
    /// must exist.
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
            message: located(&text, &e),
        })?;
        let mut layer = Self::default();
        layer.flatten("", table, &Origin::File(path));
        Ok(layer)
    }

    fn flatten(&mut self, prefix: &str, table: Table, origin: &Origin) {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match value {
                Value::Table(inner) => self.flatten(&format!("{name}."), inner, origin),
                value => {
                    self.values.insert(name, (value, origin.clone()));
                }
            }
        }
    }

    /// Reads the variable of every key, and the older names for some.
    pub(super) fn environment(
        root: &Path,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        let mut set = |key: &Key, text: String, origin: Origin| {
            layer
                .values
                .insert(key.name.to_owned(), (from_variable(key, &text), origin));
        };
        let lookup = |name: &str| var(name).filter(|v| !v.is_empty());
        for key in KEYS {
            let alias = match key.name {
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
                && let Some((path, text)) = dotenv_url(root)?
            {
                set(key, text, Origin::File(path));
            }
        }
        Ok(layer)
    }
}

/// Where the file is wrong and why, without the line itself, which may hold a password.
pub(super) fn located(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{} at line {line}, column {column}", error.message())
}

fn from_variable(key: &Key, text: &str) -> Value {
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

/// Variables that look like ours and set nothing.
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

/// `DATABASE_URL` of the workspace's `.env` file, which sqlx's own tools read too. Other lines are none of our business; what is
/// wrong with one is not repeated, because it may hold a password.
fn dotenv_url(root: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = root.join(".env");
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
        tracing::warn!("ignored a line of `{}` that cannot be read", path.display());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let names_us = |line: &str| {
            let line = line.trim_start().trim_start_matches("export ").trim_start();
            line.strip_prefix(env::DATABASE_URL)
                .is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        if text.lines().any(names_us) {
            let message = "the line with DATABASE_URL cannot be read; put its value in quotes";
            return Err(ConfigError::Dotenv { path, message });
        }
    }
    Ok(None)
}
