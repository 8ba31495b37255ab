//! The parts of `run.json` that come from the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How `CREATE DATABASE` copies the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The server's default.
    Default,
    /// `STRATEGY FILE_COPY`: copies files and forces checkpoints, which are cheap only with `fsync=off`.
    FileCopy,
    /// The same with `file_copy_method = clone` (PostgreSQL 18 and later): the file system shares blocks if it can.
    FileClone,
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::FileCopy => "file_copy",
            Self::FileClone => "file_clone",
        })
    }
}

/// How the rows that a test wrote are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetMethod {
    /// `DELETE` and `VACUUM`: cheapest if a flush of the log costs nothing.
    Delete,
    /// `TRUNCATE`: flushes the log once, where `VACUUM` flushes it for every table.
    Truncate,
}

/// The start of every template of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateBase {
    /// The database that templates are created from.
    pub base: String,
    /// Extensions that are created before the first migration.
    pub extensions: Vec<String>,
    /// Roles that are created if they are missing.
    #[serde(default)]
    pub roles: Vec<String>,
    /// What runs before the first migration, after the extensions were created.
    #[serde(default)]
    pub before: Vec<BuildStep>,
}

/// A step of a template other than a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStep {
    /// A file of SQL.
    Script(Script),
    /// A program.
    Command(BuildCommand),
}

/// A file of SQL of any size; memory never holds its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The path for output: relative to the root, if it is below it.
    pub file: String,
    /// The path.
    pub path: PathBuf,
    /// SHA-384 of the text, in hexadecimal.
    pub checksum: String,
}

/// A program that changes the building database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildCommand {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// The command as it was configured, for output.
    pub name: String,
    /// Its working directory.
    pub directory: PathBuf,
    /// SHA-384 of the command, its version and its input files, in hexadecimal.
    pub checksum: String,
    /// After how many seconds it is killed.
    pub timeout_secs: u64,
}

/// A directory of migrations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationDirectory {
    /// The path.
    pub path: PathBuf,
    /// The settings in `sqlx.toml` that apply to them.
    #[serde(default)]
    pub migrate: MigrateSettings,
}

/// The table `[migrate]` of `sqlx.toml`, as far as it affects running migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MigrateSettings {
    /// The directory of the migrations, relative to the package; `None` for sqlx's default.
    pub migrations_dir: Option<String>,
    /// The table of applied migrations, as written in SQL; `None` for sqlx's default.
    pub table_name: Option<String>,
    /// Schemas that are created first.
    pub create_schemas: BTreeSet<String>,
    /// Characters that checksums ignore.
    pub ignored_chars: BTreeSet<char>,
}

/// How commits into the shared clone are reported at the end of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pollution {
    /// They are reported.
    #[default]
    Warn,
    /// They are reported, and `wait` and `run` fail.
    Fail,
    /// There is no check.
    Off,
}

/// The pools of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// The most connections of one pool.
    pub max_connections: u32,
    /// How long an acquire waits, in seconds.
    pub acquire_timeout_secs: u64,
    /// How long an acquire waits while the only connection of a sandbox is in use, in milliseconds.
    pub sandbox_acquire_timeout_ms: u64,
    /// How long a statement in a sandbox waits for another test's lock, in milliseconds; 0 for no limit.
    pub sandbox_lock_timeout_ms: u64,
    /// What happens to a test that leaves connections open on its database.
    #[serde(default)]
    pub leaks: Leaks,
}

/// What happens to a test that leaves connections open on its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaks {
    /// The leak is reported in its output.
    #[default]
    Warn,
    /// The test fails.
    Fail,
    /// There is no check.
    Off,
}

/// Limits of kept databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepConfig {
    /// Whether the databases of failed tests are kept.
    pub failed: bool,
    /// The most databases that are kept.
    pub max: usize,
    /// How long a database is kept, in days.
    pub max_age_days: u64,
}
