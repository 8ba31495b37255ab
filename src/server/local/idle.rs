//! Stops the managed server that nobody has used for a while, where the configuration asks for that.
//!
//! Whoever ends a run leaves a detached process that looks every now and then, and gives up when it was superseded by the next
//! one or the server is gone: the newest one's word is in `idle`, beside the data. It stops the server under the start lock, which
//! who connects holds shared, so nobody finds a server that goes away at that moment. Its death leaves a server that runs on.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::At;
use super::{Local, LocalError, SUPERUSER};
use crate::config::ServerConfig;
use crate::name::random_word;
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::platform;
use crate::run_dir::{Runtime, write_atomically};
use crate::server::ServerKind;

/// What the process that looks is told on its command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdleOrder {
    bin_dir: PathBuf,
    state_dir: PathBuf,
    run_as: String,
    millis: u64,
}

impl FromStr for IdleOrder {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

impl IdleOrder {
    /// What the configuration asks for: nothing, as a rule.
    ///
    /// # Errors
    /// The managed server's places cannot be found.
    pub fn of(settings: &ServerConfig) -> Result<Option<Self>, LocalError> {
        let ours = ServerKind::of(settings) == ServerKind::Local;
        let Some(limit) = settings.idle_stop.filter(|_| ours) else {
            return Ok(None);
        };
        let local = Local::open(settings)?;
        Ok(Some(Self {
            bin_dir: local.binaries.dir,
            state_dir: local.state,
            run_as: settings.run_as.clone(),
            millis: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    /// As one word of a command line.
    pub fn to_word(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Starts the process that looks, detached.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn start(&self) -> Result<(), LocalError> {
        let program = std::env::current_exe().at("find", &PathBuf::from("kapsel-testdb"))?;
        let mut command = Command::new(&program);
        command
            .args(["idle-stop", "--order", &self.to_word()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        platform::detach(&mut command, &[]);
        command.spawn().map(drop).at("run", &program)
    }

    /// Looks until the server has been idle for long enough and is stopped, or this is somebody else's business.
    ///
    /// # Errors
    /// The server or the runtime folder cannot be used; the server runs on.
    pub async fn watch(&self) -> Result<(), LocalError> {
        let local = Arc::new(Local::at(
            Some(&self.bin_dir),
            Some(&self.state_dir),
            &self.run_as,
        )?);
        let word = random_word();
        let file = local.dir().join("idle");
        write_atomically(&file, &word)
            .map_err(std::io::Error::other)
            .at("write", &file)?;
        let limit = Duration::from_millis(self.millis);
        let pause = (limit / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(pause.min(limit)).await;
            let newest = fs::read_to_string(&file).is_ok_and(|text| text == word);
            if !newest || !local.runs() {
                return Ok(());
            }
            if is_used(&local).await {
                since = Instant::now();
            } else if since.elapsed() >= limit && stop(&local, limit).await? {
                return Ok(());
            }
        }
    }
}

/// Whether a run lives on the server, or somebody is connected. A server that does not tell is left alone.
async fn is_used(local: &Local) -> bool {
    let address = local.address();
    let alive = Runtime::open().and_then(|runtime| runtime.alive());
    let runs = alive.map_or(true, |files| {
        files
            .iter()
            .any(|file| file.server.is_same_server(&address))
    });
    runs || sessions(local).await.is_none_or(|count| count > 0)
}

/// Clients of the server besides us.
async fn sessions(local: &Local) -> Option<i64> {
    let mut admin = Admin::connect(&local.address(), SUPERUSER, "idle stop", Patience::ONCE)
        .await
        .ok()?;
    let count = admin.count_connections().await;
    admin.close().await;
    count.ok().map(|count| count - 1)
}

/// Looks once more with nobody able to connect in between, and stops it.
async fn stop(local: &Arc<Local>, limit: Duration) -> Result<bool, LocalError> {
    let lock = local.lock()?;
    if is_used(local).await {
        return Ok(false);
    }
    local.note(&format!(
        "kapsel-testdb: stopped after {} s without runs and clients (server.idle_stop_secs)",
        limit.as_secs()
    ))?;
    local.stop_under(&lock)
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
            let order = IdleOrder::of(&config.server).expect("nothing is looked for");
            assert!(order.is_none(), "{mode}");
        }
    }
}
