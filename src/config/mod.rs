//! Configuration: defaults → `sqlx.toml` → `.config/kapsel-testdb.toml` → environment → flags, resolved once into one [`Config`].
//!
//! Every key is described in [`KEYS`]; a layer is a flat map from key to value, so that where a value came from is known for
//! each. Stages see only the resolved [`Config`].

mod layers;
mod resolve;
mod root;
mod sqlx_toml;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use layers::{KEYS, Key, Layer, Origin, file_path};
pub use resolve::{load, load_with};
pub use root::find_root;
pub use sqlx_toml::{Migrate, SQLX_TOML};

use crate::name::Namespace;
use crate::pg::address::{Address, AddressError};

/// Where the configuration file is, below the workspace root.
pub const FILE: &str = ".config/kapsel-testdb.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("`{path}` is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        message: String,
    },
    /// The `.env` file's line for us is broken.
    #[error("`{}`: {message}", path.display())]
    Dotenv {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: &'static str,
    },
    /// A value is of the wrong type or out of range.
    #[error("`{key} = {value}` ({origin}) is not valid; expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What would do.
        expected: Cow<'static, str>,
    },
    /// The URL is wrong.
    #[error("{source} (from {origin})")]
    Url {
        /// What is wrong with it.
        source: AddressError,
        /// Where it was written.
        origin: Origin,
    },
    /// `server.mode = "adopt"` without a URL.
    #[error(
        "`server.mode = \"adopt\"` needs a server: set DATABASE_URL, or `server.url` in `{FILE}`"
    )]
    NoUrl,
}

/// How the server is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMode {
    /// Adopt the one a URL names; without a URL, manage one.
    Auto,
    /// Adopt the one a URL names.
    Adopt,
    /// Manage one made from the PostgreSQL binaries on this machine.
    Local,
    /// Manage one that is a service of a compose file.
    Compose,
}

/// What `DATABASE_URL` is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportUrl {
    /// Not at all.
    Off,
    /// The run's shared clone.
    Shared,
    /// The maintenance database.
    Admin,
}

/// What is done where a run's end finds that its tests committed something into the shared clone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pollution {
    /// It is reported.
    #[default]
    Warn,
    /// It is reported, and `wait` and `run` fail.
    Fail,
    /// Nobody looks.
    Off,
}

/// Everything that the stages need to know, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The workspace root; relative paths start here.
    pub root: PathBuf,
    /// Prefix of our databases' names.
    pub namespace: Namespace,
    /// The server.
    pub server: ServerConfig,
    /// The template.
    pub template: TemplateConfig,
    /// The pools that tests get.
    pub pool: PoolConfig,
    /// What `DATABASE_URL` is exported as.
    pub export_url: ExportUrl,
    /// Failed tests' databases.
    pub keep: KeepConfig,
    /// What is done about what a run committed into its shared clone.
    pub pollution: Pollution,
    /// A database of a fixed name that `prepare` by hand keeps current.
    pub persistent: Option<String>,
    /// Whether a run has a keeper.
    pub keeper: bool,
    /// Most disk space that a run's databases may take together, in MB.
    pub disk_budget_mb: Option<u64>,
    /// Each key's value as written, and where: for `kapsel-testdb config`.
    pub origins: BTreeMap<&'static str, (String, Origin)>,
    /// Keys that nobody knows, with where they stand.
    pub unknown: Vec<(String, Origin)>,
}

/// How to reach or make the server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How it is found.
    pub mode: ServerMode,
    /// The server that a URL names, and the database in the URL.
    pub adopted: Option<(Address, Option<String>)>,
    /// Where administrative work goes when `url` leads through a pooler.
    pub admin: Option<Address>,
    /// The database that administrative sessions and their locks live in.
    pub maintenance_database: String,
    /// Whether a server on another machine may be built on and swept.
    pub allow_remote: bool,
    /// Where PostgreSQL's binaries are.
    pub bin_dir: Option<PathBuf>,
    /// Where the managed server's data is.
    pub state_dir: Option<PathBuf>,
    /// The operating system's user for the managed server when we are root.
    pub run_as: String,
    /// The service that is the server where `mode` says so.
    pub compose: ComposeConfig,
    /// How long the managed server may take to start.
    pub start_timeout: Duration,
    /// How long to wait for an adopted server that is not there (yet).
    pub wait: Duration,
    /// Whether what `initdb` makes is kept for the next cold start on this machine.
    pub cache: bool,
    /// After how long without runs and clients the managed server is stopped.
    pub idle_stop: Option<Duration>,
}

impl ServerConfig {
    /// Where the administrative work of an adopted server goes.
    pub fn administered(&self) -> Option<&Address> {
        let (address, _) = self.adopted.as_ref()?;
        Some(self.admin.as_ref().unwrap_or(address))
    }
}

/// A service of a compose file.
#[derive(Debug, Clone)]
pub struct ComposeConfig {
    /// The compose file; none for the one in the workspace root.
    pub file: Option<PathBuf>,
    /// The service; none for the only one, else the one called `postgres`.
    pub service: Option<String>,
    /// The port that PostgreSQL listens on in the container.
    pub port: u16,
    /// The tool's words; empty for the first one that answers.
    pub command: Vec<String>,
}

/// What the template is made of.
#[derive(Debug, Clone)]
pub struct TemplateConfig {
    /// The directory of migrations; none where the key is an empty string.
    pub migrations: Option<PathBuf>,
    /// What `sqlx.toml` says of them.
    pub migrate: Migrate,
    /// SQL files that run after the migrations, in this order.
    pub seeds: Vec<PathBuf>,
    /// Extensions that are created before the first migration.
    pub extensions: Vec<String>,
    /// The database that templates are made from.
    pub base: String,
    /// How many templates stay on the server.
    pub keep: usize,
}

/// The pools that tests get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PoolConfig {
    /// Most connections a test's pool opens.
    pub max_connections: u32,
    /// How long an acquire waits, in seconds.
    pub acquire_timeout_secs: u64,
    /// How long an acquire waits while a sandbox's only connection is in use, in milliseconds.
    #[serde(default = "PoolConfig::sandbox_acquire_timeout_ms")]
    pub sandbox_acquire_timeout_ms: u64,
    /// How long a statement in a sandbox waits for another test's lock, in milliseconds; 0 for ever.
    #[serde(default = "PoolConfig::sandbox_lock_timeout_ms")]
    pub sandbox_lock_timeout_ms: u64,
    /// What happens to a test that leaves connections open.
    #[serde(default)]
    pub leaks: Leaks,
}

/// Defaults that also hold for runs of a tool that did not write these yet.
impl PoolConfig {
    fn sandbox_acquire_timeout_ms() -> u64 {
        2_000
    }

    fn sandbox_lock_timeout_ms() -> u64 {
        5_000
    }
}

/// What happens to a test that leaves connections open on its database.
///
/// ```no_run
/// #[kapsel_testdb::test(leaks = "fail")] // as Leaks::Fail
/// async fn closes_what_it_opens(pool: sqlx::PgPool) {}
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = kapsel_testdb::TestDbOptions::new().leaks(kapsel_testdb::Leaks::Off).lease().await?;
/// # Ok(())
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaks {
    /// Its output says so.
    #[default]
    Warn,
    /// It fails.
    Fail,
    /// Nobody looks.
    Off,
}

/// Failed tests' databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeepConfig {
    /// Whether they are kept.
    pub failed: bool,
    /// Most that stay.
    pub max: usize,
    /// Longest that they stay, in days.
    pub max_age_days: u64,
}
