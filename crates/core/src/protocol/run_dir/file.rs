//! `run.json`: everything that a test process needs to know about its run.

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::Address;
use crate::protocol::{
    DbName, KeepConfig, MigrationDirectory, Namespace, Pollution, PoolConfig, ResetMethod,
    RunDirError, RunId, Strategy, TemplateBase,
};

pub(super) const RUN_JSON: &str = "run.json";

/// Version of the protocol. A run directory of another version is refused.
pub const PROTOCOL: u32 = 4;

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
    /// The directories of the migrations.
    #[serde(default)]
    pub migrations: Vec<MigrationDirectory>,
    /// Whether seeds or other steps were run after them.
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
    /// Whether all tests of the shared clone commit under keys of their own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_keys: bool,
    /// Whether the `sqlx.toml` of a test's package is ignored, because the project's sqlx does not read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignores_sqlx_toml: bool,
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

/// The parts of `run.json` that decide what becomes of a dead run. They are read from a file of any version of the protocol; what cannot be read is
/// `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// The namespace.
    pub namespace: Option<Namespace>,
    /// The address for administrative work.
    pub address: Option<Address>,
    /// Limits of kept databases.
    pub keep: Option<KeepConfig>,
    keeps_failed: Option<bool>,
}

impl RunSummary {
    /// Reads the `run.json` of a run directory. `None`: there is none, so the run never had a test.
    pub fn read(run_dir: &Path) -> Option<Self> {
        match fs::read_to_string(run_dir.join(RUN_JSON)) {
            Ok(text) => Some(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(Self::default()),
        }
    }

    fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        Self {
            namespace: field(&json, "/namespace"),
            address: field(&json, "/admin").or_else(|| field(&json, "/server")),
            keep: field(&json, "/keep"),
            keeps_failed: field(&json, "/keep/failed"),
        }
    }

    /// Whether the databases of failed tests are kept. Yes, if that is unknown.
    pub fn keeps_failed(&self) -> bool {
        self.keeps_failed.unwrap_or(true)
    }
}

fn field<T: DeserializeOwned>(json: &Value, pointer: &str) -> Option<T> {
    T::deserialize(json.pointer(pointer)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_what_can_be_read() {
        let unknown = RunSummary::parse("neither JSON");
        assert_eq!(unknown, RunSummary::default());
        assert!(unknown.keeps_failed());
        let other = RunSummary::parse(
            r#"{"protocol": 99, "namespace": "app", "server": 1, "keep": {"failed": false}}"#,
        );
        assert_eq!(other.namespace, Namespace::new("app").ok());
        assert_eq!((&other.address, other.keep), (&None, None));
        assert!(!other.keeps_failed());
    }
}
