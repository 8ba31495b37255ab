//! Configuration: defaults → `sqlx.toml` → `.config/kapsel-testdb.toml` → environment → flags, resolved once into one [`Config`].
//!
//! `defaults.toml` describes every key ([`KEYS`]). A layer is a flat map from key to value, so the origin of each value is known. The other stages
//! see only the resolved [`Config`].

mod dotenv;
mod keys;
mod layers;
mod resolve;
mod root;
mod server_settings;
mod sqlx_toml;
mod steps;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use keys::{KEYS, Key, commented_file};
pub use layers::{Layer, Origin, file_path};
pub use resolve::{load, load_with};
pub use root::{find_root, shown_path};
pub use sqlx_toml::{SQLX_TOML, is_read_by_sqlx};
pub use steps::{CommandConfig, SchemaSource, StepConfig};

use toml::Value;

use crate::address::{Address, AddressError};
use crate::plural::quoted;
use crate::protocol::{KeepConfig, Namespace, Pollution, PoolConfig};

/// The configuration file, relative to the workspace root.
pub const FILE: &str = ".config/kapsel-testdb.toml";

/// Why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("failed to read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("`{path}` is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        message: String,
    },
    /// The line with `DATABASE_URL` in the `.env` file is invalid.
    #[error("`{}`: {message}", path.display())]
    Dotenv {
        /// The file.
        path: PathBuf,
        /// The error and the remedy.
        message: &'static str,
    },
    /// A value has the wrong type or is out of range.
    #[error("`{key} = {value}` ({origin}) is not valid; expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Its origin.
        origin: Origin,
        /// The valid values.
        expected: Cow<'static, str>,
    },
    /// The `[[template]]` tables contradict each other.
    #[error("`[[template]]` in `{FILE}`: {0}")]
    Templates(String),
    /// A variable that a run exports was changed.
    #[error(
        "{variable} is not valid: {problem}; unset it, or use the same version of kapsel-testdb for the command line tool and the tests"
    )]
    Variable {
        /// The variable.
        variable: &'static str,
        /// The problem.
        problem: String,
    },
    /// No template has this name.
    #[error(
        "there is no template `{name}`; the configuration has {}",
        quoted(known, "none with a name")
    )]
    UnknownTemplate {
        /// The name.
        name: String,
        /// The names of all templates.
        known: Vec<String>,
    },
    /// A URL is invalid.
    #[error("{source} (from {origin})")]
    Url {
        /// The error.
        source: AddressError,
        /// Its origin.
        origin: Origin,
    },
    /// A URL on the command line contains a password.
    #[error(
        "the URL of `--url` contains a password, which every user of this machine can read in the list of processes; put the URL into \
         DATABASE_URL, or the password into PGPASSWORD or a passfile"
    )]
    PasswordInFlag,
    /// A variable with a path that must be absolute is relative.
    #[error(
        "the path in {variable} is relative (`{path}`), but processes with different working directories use it; make it absolute, or unset \
         {variable}"
    )]
    RelativePath {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: String,
    },
    /// `server.mode = "adopt"` without a URL.
    #[error(
        "`server.mode = \"adopt\"` needs a server: set DATABASE_URL, or `server.url` in `{FILE}`"
    )]
    NoUrl,
}

/// How a server is located.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMode {
    /// Adopt the server of the URL; without a URL, start a managed one.
    Auto,
    /// Adopt the server of the URL.
    Adopt,
    /// Start a managed server from the PostgreSQL binaries on this machine.
    Local,
    /// Start a service of a compose file.
    Compose,
}

/// The database that is exported as `DATABASE_URL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportUrl {
    /// None.
    Off,
    /// The run's shared clone.
    Shared,
    /// The maintenance database.
    Admin,
}

/// The value of a key as it was set, without passwords.
#[derive(Debug, Clone)]
pub struct OriginalValue {
    /// The value; `None` if the key is not set and its default depends on the machine or the project.
    pub value: Option<Value>,
    /// The value as TOML, or such a default in words.
    pub text: String,
    /// Where it was set.
    pub origin: Origin,
}

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The workspace root. Relative paths are relative to it.
    pub root: PathBuf,
    /// Prefix of the names of our databases.
    pub namespace: Namespace,
    /// The server.
    pub server: ServerConfig,
    /// The template; the first one if there are several.
    pub template: TemplateConfig,
    /// The other templates, each with a name.
    pub more_templates: Vec<TemplateConfig>,
    /// The pools of tests.
    pub pool: PoolConfig,
    /// The database that is exported as `DATABASE_URL`.
    pub export_url: ExportUrl,
    /// Limits of kept databases.
    pub keep: KeepConfig,
    /// How commits into the shared clone are reported.
    pub pollution: Pollution,
    /// Whether all tests of the shared clone commit under keys of their own.
    pub own_keys: bool,
    /// The database that `prepare` outside nextest keeps migrated.
    pub persistent: Option<String>,
    /// Whether a run has a keeper.
    pub keeper: bool,
    /// How many keepers a test run has: one for each template.
    pub keepers: u32,
    /// The most disk space for the databases of a run together, in MB.
    pub disk_budget_mb: Option<u64>,
    /// Whether used clones are recycled where that is possible.
    pub recycle: bool,
    /// The most spares of a template that a run leaves; `None` for twice the number of tests that run at once.
    pub spares: Option<usize>,
    /// The value and origin of each key, for `kapsel-testdb config`.
    pub origins: BTreeMap<&'static str, OriginalValue>,
    /// Unknown keys and their origins.
    pub unknown: Vec<(String, Origin)>,
    /// Whether the sqlx of the workspace reads `sqlx.toml`.
    pub sqlx_toml: bool,
    /// Whether the root's `sqlx.toml` has settings of migrations, and sqlx does not read it.
    pub is_sqlx_toml_ignored: bool,
    /// `.env` files of members that name different servers, so that none of them counts.
    pub ambiguous_dotenv: Vec<PathBuf>,
    /// libpq's variables that are set, and that an adopted server would need if we were libpq.
    pub unused_variables: Vec<&'static str>,
}

impl Config {
    /// All templates, the first one first.
    pub fn templates(&self) -> impl Iterator<Item = &TemplateConfig> {
        std::iter::once(&self.template).chain(&self.more_templates)
    }

    /// A configuration for each template, in which it is the only one. They share the disk budget.
    pub fn per_template(&self) -> Vec<Self> {
        let count = self.templates().count();
        let of = |template: &TemplateConfig| Self {
            keepers: u32::try_from(count).unwrap_or(u32::MAX),
            template: template.clone(),
            more_templates: Vec::new(),
            disk_budget_mb: self.disk_budget_mb.map(|mb| mb / count as u64),
            ..self.clone()
        };
        self.templates().map(of).collect()
    }

    /// See [`choose`].
    ///
    /// # Errors
    /// [`ConfigError::UnknownTemplate`].
    pub fn choose_template(
        &self,
        name: Option<&str>,
        package: Option<&str>,
    ) -> Result<Option<&TemplateConfig>, ConfigError> {
        let templates: Vec<&TemplateConfig> = self.templates().collect();
        let label = |template: &&TemplateConfig| (template.name.clone(), template.packages.clone());
        let index = choose(templates.iter().map(label), name, package)?;
        Ok(index.map(|index| templates[index]))
    }
}

/// Which of several templates a test gets: the one of that name; without a name, the one that has the package in its list; `None` if none has. `labels`: the name
/// and the packages of each.
///
/// # Errors
/// [`ConfigError::UnknownTemplate`].
pub fn choose(
    labels: impl IntoIterator<Item = (Option<String>, Vec<String>)>,
    name: Option<&str>,
    package: Option<&str>,
) -> Result<Option<usize>, ConfigError> {
    let labels: Vec<_> = labels.into_iter().collect();
    let Some(name) = name else {
        return Ok(labels
            .iter()
            .position(|(_, packages)| lists(packages, package)));
    };
    let mut names = labels.iter().map(|(known, _)| known.as_deref());
    match names.position(|known| known == Some(name)) {
        Some(index) => Ok(Some(index)),
        None => Err(ConfigError::UnknownTemplate {
            name: name.to_owned(),
            known: labels.into_iter().filter_map(|(known, _)| known).collect(),
        }),
    }
}

/// Whether a package is in the list of a template.
pub fn lists(packages: &[String], package: Option<&str>) -> bool {
    packages.iter().any(|listed| package == Some(listed))
}

/// How to reach or start the server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How it is located.
    pub mode: ServerMode,
    /// The server of the URL, and the database in the URL.
    pub adopted: Option<(Address, Option<String>)>,
    /// The address for administrative work, if `url` leads through a pooler.
    pub admin: Option<Address>,
    /// The database of administrative sessions and their locks.
    pub maintenance_database: String,
    /// Whether databases may be created and dropped on a server of another machine.
    pub allow_remote: bool,
    /// The major version of PostgreSQL; `None` for any.
    pub version: Option<u32>,
    /// The directory of PostgreSQL's binaries.
    pub bin_dir: Option<PathBuf>,
    /// The directory of the managed server's data.
    pub state_dir: Option<PathBuf>,
    /// The operating system user that runs the managed server if root starts it.
    pub run_as: String,
    /// The service of the compose file, with `ServerMode::Compose`.
    pub compose: ComposeConfig,
    /// How long the managed server may take to start.
    pub start_timeout: Duration,
    /// How long to wait for an adopted server that does not answer.
    pub wait: Duration,
    /// Whether the result of `initdb` is kept for the next cold start on this machine.
    pub cache: bool,
    /// The time without runs and clients after which the managed server is stopped.
    pub idle_stop: Option<Duration>,
    /// The role that tests connect to the managed server as; `None` for its superuser.
    pub test_role: Option<String>,
    /// Settings of the managed server. Names are in lower case.
    pub settings: BTreeMap<String, String>,
}

impl ServerConfig {
    /// The address for administrative work on an adopted server.
    pub fn administered(&self) -> Option<&Address> {
        let (address, _) = self.adopted.as_ref()?;
        Some(self.admin.as_ref().unwrap_or(address))
    }
}

/// A service of a compose file.
#[derive(Debug, Clone)]
pub struct ComposeConfig {
    /// The compose file; `None` for the one in the workspace root.
    pub file: Option<PathBuf>,
    /// The service; `None` for the only one, else the one called `postgres`.
    pub service: Option<String>,
    /// The port that PostgreSQL listens on in the container.
    pub port: u16,
    /// The command of the tool; empty for the first one that answers.
    pub command: Vec<String>,
}

/// The inputs of a template.
#[derive(Debug, Clone)]
pub struct TemplateConfig {
    /// Its name, if there are several templates.
    pub name: Option<String>,
    /// The packages whose tests use it.
    pub packages: Vec<String>,
    /// The sources of the schema, in this order; empty if the key is an empty string.
    pub migrations: Vec<SchemaSource>,
    /// What runs before the first migration.
    pub before: Vec<StepConfig>,
    /// What runs after the last migration.
    pub after: Vec<StepConfig>,
    /// What runs last.
    pub seeds: Vec<StepConfig>,
    /// Extensions that are created before the first migration.
    pub extensions: Vec<String>,
    /// Roles that are created before the first migration if they are missing.
    pub roles: Vec<String>,
    /// The database that templates are created from.
    pub base: String,
    /// How many templates stay on the server.
    pub keep: usize,
    /// When databases of other namespaces are dropped.
    pub others: OthersLimits,
}

/// When databases of our role in other namespaces are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OthersLimits {
    /// After how many days without use; 0 for never.
    pub max_age_days: u64,
    /// The most disk space of their templates and spares together, in MB; 0 for no limit.
    pub max_mb: u64,
}
