//! `run.json`: all that a test process needs to know of its run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{KeepConfig, Migrate, Pollution, PoolConfig};
use crate::name::{DbName, Namespace, RunId};
use crate::pg::Address;
use crate::pg::databases::Strategy;
use crate::template::{Basis, Plan};

/// Version of what is written here; another version's run directory is refused.
pub const PROTOCOL: u32 = 1;

/// What a run's processes may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Connections of each test process.
    pub per_process: u32,
    /// Whether the run has reserved them for all of its processes: then nobody needs to enter the ledger for them.
    pub reserved: bool,
}

/// What the run's template was made of: how a test that names its migrations knows whether those are the ones, and what it needs to
/// make another template beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeOf {
    /// The folder of the migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<PathBuf>,
    /// What `sqlx.toml` says of them.
    #[serde(default)]
    pub migrate: Migrate,
    /// Whether there are seeds besides.
    pub seeds: bool,
    /// What every template of the run begins with.
    #[serde(flatten)]
    pub basis: Basis,
    /// The link of the chain of fingerprints before the first migration.
    pub start: String,
    /// The link after the last one.
    pub schema: String,
}

impl MadeOf {
    /// What that plan says.
    pub fn of(plan: &Plan, basis: Basis, migrate: Migrate) -> Self {
        let folder = plan.source.directory.clone();
        Self {
            migrate,
            // JSON cannot hold another; then tests compare what is in it.
            migrations: folder.filter(|folder| folder.to_str().is_some()),
            seeds: plan.chain.seeded.is_some(),
            basis,
            start: plan.chain.start.hex(),
            schema: plan.chain.migrated().hex(),
        }
    }
}

/// What `run.json` says: all that a test process needs.
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
    /// Where administrative work goes, if elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Address>,
    /// Where administrative sessions and their locks live.
    pub maintenance_database: String,
    /// What clones are made from.
    pub template: DbName,
    /// What that was made of.
    pub made_of: MadeOf,
    /// How clones are made.
    pub strategy: Strategy,
    /// Statements that give a clone the template's database-level settings; `{}` stands for its name.
    pub settings: Vec<String>,
    /// Tests that run at once.
    pub threads: usize,
    /// Most disk space that the run's databases may take together, in MB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_budget_mb: Option<u64>,
    /// The pools that tests get.
    pub pool: PoolConfig,
    /// Their part of the server's connections.
    pub connections: Connections,
    /// Failed tests' databases.
    pub keep: KeepConfig,
    /// What is done about what tests commit into the shared clone.
    #[serde(default)]
    pub pollution: Pollution,
}

impl RunFile {
    /// Where administrative work goes.
    pub fn admin_address(&self) -> &Address {
        self.admin.as_ref().unwrap_or(&self.server)
    }
}
