//! Starts the keeper of a run as a detached process.
//!
//! The keeper inherits two descriptors: the lock of the run directory, held shared, and the keeper's lock, held exclusive. So the run never appears
//! dead or without a keeper. If the starting process crashes, the keeper still watches nextest.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use kapsel_testdb_core::config::{Config, OthersLimits};
use kapsel_testdb_core::platform::{self, ProcessId};
use kapsel_testdb_core::run::{OpenRun, RunError};
use kapsel_testdb_core::server::local::idle::IdleStopJob;

/// How many keeper logs are kept.
const LOGS: usize = 20;

/// The arguments of the keeper, as one JSON value on its command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeeperOrder {
    /// The run directory.
    pub dir: PathBuf,
    /// The inherited lock of the run directory.
    pub lock_fd: RawFd,
    /// The inherited lock of the keeper.
    pub keeper_fd: RawFd,
    /// The process whose end is the end of the run.
    pub watch: Option<ProcessId>,
    /// How many templates are kept.
    pub templates: usize,
    /// When databases of other namespaces are dropped.
    pub others: OthersLimits,
    /// How many clones the last run used at the same time.
    pub demand: usize,
    /// How to stop a managed server that is idle after the run.
    pub idle: Option<IdleStopJob>,
}

/// Starts the run's keeper, unless it has one.
///
/// # Errors
/// [`RunError::Keeper`] if the process cannot be started.
pub fn spawn_keeper(
    run: &OpenRun,
    watch: Option<ProcessId>,
    config: &Config,
    demand: usize,
) -> Result<Option<Child>, RunError> {
    let Some(keeper_lock) = run.dir.lock_keeper()? else {
        return Ok(None);
    };
    run.runtime.prune_logs(LOGS - 1);
    let child = start(run, &keeper_lock, watch, config, demand);
    child.map(Some).map_err(RunError::Keeper)
}

fn start(
    run: &OpenRun,
    keeper_lock: &File,
    watch: Option<ProcessId>,
    config: &Config,
    demand: usize,
) -> std::io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(run.runtime.keeper_log(&run.file.run))?;
    let order = KeeperOrder {
        dir: run.dir.path().to_path_buf(),
        lock_fd: run.dir.lock_file().as_raw_fd(),
        keeper_fd: keeper_lock.as_raw_fd(),
        watch,
        templates: config.template.keep,
        others: config.template.others,
        demand,
        idle: IdleStopJob::of(&config.server).map_err(std::io::Error::other)?,
    };
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["keeper", "--order", &serde_json::to_string(&order)?])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    platform::detach(&mut command, &[order.lock_fd, order.keeper_fd]);
    command.spawn()
}
