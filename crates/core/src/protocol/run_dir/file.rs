//! `run.json`: everything that a test process needs to know about its run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::protocol::{
    DbName, KeepConfig, MigrateSettings, Namespace, Pollution, PoolConfig, ResetMethod,
    RunDirError, RunId, Strategy, TemplateBase,
};

pub(super) const RUN_JSON: &str = "run.json";

/// Version of the protocol. A run directory of another version is refused.
pub const PROTOCOL: u32 = 3;

/// The connections of a run's test processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Connections of each test process.
    pub per_process: u32,
    /// Whether the run has reserved them for all of its processes. Then a process needs no queue entry for them.
    pub reserved: bool,
}

/// The inputs of the run's template. A test that names its migrations compares them with these; if they differ, it builds another template with
/// the same base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateInputs {
    /// The directory of the migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<PathBuf>,
    /// The settings in `sqlx.toml` that apply to them.
    #[serde(default)]
    pub migrate: MigrateSettings,
    /// Whether seeds were run after them.
    pub seeds: bool,
    /// The start of every template of the run.
    #[serde(flatten)]
    pub template_base: TemplateBase,
    /// The link of the fingerprint chain before the first migration.
    pub start: String,
    /// The link after the last migration.
    pub schema: String,
}

/// The contents of `run.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// The run.
    pub run: RunId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The server; the password, if any, is in `pgpass` beside this file.
    pub server: Address,
    /// The address for administrative work, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Address>,
    /// The database of administrative sessions and their locks.
    pub maintenance_database: String,
    /// The template of the run's clones.
    pub template: DbName,
    /// The inputs of that template.
    pub template_inputs: TemplateInputs,
    /// How `CREATE DATABASE` copies the template.
    pub strategy: Strategy,
    /// Statements that give a clone the template's database-level settings; `{}` stands for its name.
    pub settings: Vec<String>,
    /// Number of tests that run at the same time.
    pub threads: usize,
    /// The most disk space for the run's databases together, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_budget_mb: Option<u64>,
    /// The pools that tests get.
    pub pool: PoolConfig,
    /// The connections of the test processes.
    pub connections: Connections,
    /// Limits of kept databases.
    pub keep: KeepConfig,
    /// How commits into the shared clone are reported.
    #[serde(default)]
    pub pollution: Pollution,
    /// How used clones are reset; if it is missing, they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recycle: Option<ResetMethod>,
    /// The most spares that the run leaves.
    #[serde(default)]
    pub spares: usize,
}

impl RunFile {
    /// The error for a `run.json` with an invalid value.
    pub fn invalid(message: &str) -> RunDirError {
        RunDirError::Unreadable {
            path: RUN_JSON.into(),
            message: message.to_owned(),
        }
    }

    /// The address for administrative work.
    pub fn admin_address(&self) -> &Address {
        self.admin.as_ref().unwrap_or(&self.server)
    }
}
