//! The parts of `run.json` that come from the configuration.

use std::collections::BTreeSet;

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
