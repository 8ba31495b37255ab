//! Starts a run's keeper, detached, and tells it what it needs.
//!
//! The keeper inherits two descriptors: the run directory's lock, held shared, and the keeper's own lock, held exclusive. So there
//! is no moment in which the run looks dead or looks as if it had no keeper. What a crash of the starter leaves is a keeper that
//! watches nextest like any other.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{OpenRun, RunError};
use crate::config::Config;
use crate::platform;
use crate::server::local::idle::IdleOrder;

/// What a keeper is told on its command line.
#[derive(Debug, Clone)]
pub struct KeeperOrder {
    /// The run directory.
    pub dir: PathBuf,
    /// The inherited lock of the run directory.
    pub lock_fd: RawFd,
    /// The inherited lock of the keeper.
    pub keeper_fd: RawFd,
    /// The process whose end is the run's end.
    pub watch: Option<platform::ProcessId>,
    /// How many templates stay.
    pub templates: usize,
    /// What to do about a managed server that is idle after the run.
    pub idle: Option<IdleOrder>,
}

/// How many runs' keeper logs stay.
const LOGS: usize = 20;

/// Starts the run's keeper, unless it has one.
///
/// # Errors
/// [`RunError::Keeper`].
pub fn spawn_keeper(
    run: &OpenRun,
    watch: Option<platform::ProcessId>,
    config: &Config,
) -> Result<Option<Child>, RunError> {
    let Some(keeper_lock) = run.dir.lock_keeper()? else {
        return Ok(None);
    };
    run.runtime.prune_logs(LOGS - 1);
    let child = start(run, &keeper_lock, watch, config);
    child.map(Some).map_err(RunError::Keeper)
}

fn start(
    run: &OpenRun,
    keeper_lock: &File,
    watch: Option<platform::ProcessId>,
    config: &Config,
) -> std::io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(run.runtime.keeper_log(&run.file.run))?;
    let lock = run.dir.lock_file();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("keeper")
        .arg("--dir")
        .arg(run.dir.path())
        .args(["--lock-fd", &lock.as_raw_fd().to_string()])
        .args(["--keeper-fd", &keeper_lock.as_raw_fd().to_string()])
        .args(["--templates", &config.template.keep.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    if let Some(order) = IdleOrder::of(&config.server).map_err(std::io::Error::other)? {
        command.args(["--idle", &order.to_word()]);
    }
    if let Some(watch) = watch {
        command.args(["--watch", &watch.to_string()]);
    }
    platform::detach(&mut command, &[lock.as_raw_fd(), keeper_lock.as_raw_fd()]);
    command.spawn()
}
