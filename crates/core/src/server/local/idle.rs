//! Stops the managed server when it has been idle for a while (`server.idle_stop_secs`).
//!
//! The end of a run starts a detached process, which checks the server at intervals. It exits when the server is gone, or when a newer
//! process replaces it: the file `idle`, beside the data, contains the token of the newest one. It stops the server under the start
//! lock, which connecting processes hold shared, so no process connects to a server that is stopping. If it dies, the server keeps
//! running.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::ServerConfig;
use crate::pg::admin::Admin;
use crate::pg::connect::RetryLimits;
use crate::platform;
use crate::protocol::{Runtime, random_word, write_atomically};
use crate::server::ServerKind;
use crate::server::binaries::Binaries;
use crate::server::local::error::PathContext;
use crate::server::local::{Local, LocalError, SUPERUSER};

/// Arguments of the process that stops the idle server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdleStopJob {
    bin_dir: PathBuf,
    state_dir: PathBuf,
    run_as: String,
    settings: BTreeMap<String, String>,
    millis: u64,
}

impl FromStr for IdleStopJob {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl IdleStopJob {
    /// The job for a configuration; `None`, the default, if it sets no limit.
    ///
    /// # Errors
    /// See [`Local::open`].
    pub fn of(settings: &ServerConfig) -> Result<Option<Self>, LocalError> {
        let is_local = ServerKind::of(settings) == ServerKind::Local;
        let Some(limit) = settings.idle_stop.filter(|_| is_local) else {
            return Ok(None);
        };
        let local = Local::open(settings)?;
        Ok(Some(Self {
            bin_dir: local.binaries.dir,
            state_dir: local.state,
            run_as: settings.run_as.clone(),
            settings: settings.settings.clone(),
            millis: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    /// As one argument of a command line.
    pub fn to_argument(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Starts the detached process.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&self) -> Result<(), LocalError> {
        let program = std::env::current_exe().at("find", &PathBuf::from("kapsel-testdb"))?;
        let mut command = Command::new(&program);
        command
            .args(["idle-stop", "--order", &self.to_argument()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        platform::detach(&mut command, &[]);
        command.spawn().map(drop).at("run", &program)
    }

    /// Checks the server until it was idle for long enough and is stopped, or until the server is gone or a newer process takes over.
    ///
    /// # Errors
    /// The server or the state directory cannot be used. The server keeps running.
    pub async fn watch(&self) -> Result<(), LocalError> {
        let local = Arc::new(Local::at(
            Binaries::find(Some(&self.bin_dir))?,
            Some(&self.state_dir),
            &self.run_as,
            &self.settings,
        )?);
        let token = random_word();
        let file = local.dir().join("idle");
        write_atomically(&file, &token)
            .map_err(std::io::Error::other)
            .at("write", &file)?;
        let limit = Duration::from_millis(self.millis);
        let interval = (limit / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
        let mut idle_since = Instant::now();
        loop {
            tokio::time::sleep(interval.min(limit)).await;
            let newest = fs::read_to_string(&file).is_ok_and(|text| text == token);
            if !newest || !local.runs() {
                return Ok(());
            }
            if is_used(&local).await {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= limit && stop(&local, limit).await? {
                return Ok(());
            }
        }
    }
}

/// Whether a run uses the server, or the server has sessions. If that is unknown, it counts as used.
async fn is_used(local: &Local) -> bool {
    let address = local.address();
    let alive = Runtime::open().and_then(|runtime| runtime.alive());
    let runs = alive.map_or(true, |files| {
        files
            .iter()
            .any(|file| file.server.is_same_server(&address))
    });
    runs || count_sessions(local).await.is_none_or(|count| count > 0)
}

/// The number of sessions besides our own.
async fn count_sessions(local: &Local) -> Option<i64> {
    let mut admin = Admin::connect(&local.address(), SUPERUSER, "idle stop", RetryLimits::ONCE)
        .await
        .ok()?;
    let count = admin.count_connections().await;
    admin.close().await;
    count.ok().map(|count| count - 1)
}

/// Checks once more under the start lock, and stops the server. `false`: it is in use.
async fn stop(local: &Arc<Local>, limit: Duration) -> Result<bool, LocalError> {
    let lock = local.lock()?;
    if is_used(local).await {
        return Ok(false);
    }
    local.log_line(&format!(
        "kapsel-testdb: stopped after {} s without runs or clients (server.idle_stop_secs)",
        limit.as_secs()
    ))?;
    local.stop_locked(&lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, load_with};

    #[test]
    fn only_a_server_that_we_start_is_watched() {
        let root = tempfile::tempdir().expect("a temp dir");
        for mode in ["compose", "adopt"] {
            let var = |name: &str| match name {
                "KAPSEL_TESTDB_SERVER_MODE" => Some(mode.to_owned()),
                "KAPSEL_TESTDB_SERVER_IDLE_STOP_SECS" => Some("5".to_owned()),
                "KAPSEL_TESTDB_SERVER_BIN_DIR" => Some("/nowhere".to_owned()),
                "DATABASE_URL" => Some("postgres://me@localhost/app".to_owned()),
                _ => None,
            };
            let config = load_with(root.path(), Layer::default(), &var).expect("a configuration");
            assert!(config.server.idle_stop.is_some());
            let order = IdleStopJob::of(&config.server).expect("nothing is looked for");
            assert!(order.is_none(), "{mode}");
        }
    }
}
