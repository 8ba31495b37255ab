//! Caches facts about a service in a file of the runtime directory, because each call of `docker-compose` takes half a second. A
//! cached service is valid only if the same sockets listen on its port as when the tool named it, and the same cluster answers there with the
//! same login; otherwise the tool is called again. Without the first check, any program that listens there now could ask for the password.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::config::Config;
use crate::platform;
use crate::protocol::{RunDirError, Runtime, hex, open_lock, write_atomically};

/// Variables that, besides the configuration, decide which service is used.
const VARIABLES: &[&str] = &[
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "COMPOSE_PROJECT_NAME",
    "CONTAINER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
];

/// Facts about a service.
#[derive(Debug, Serialize, Deserialize)]
pub struct CachedService {
    /// The tool's command.
    pub command: Vec<String>,
    /// The service's name.
    pub service: String,
    /// Its address. The password is a separate field, because `Address` does not serialize it.
    pub server: Address,
    /// The password.
    pub password: Option<String>,
    /// The sockets that listen on its port: [`CachedService::listeners_at`].
    #[serde(default)]
    pub listeners: Vec<u64>,
    /// The cluster's identifier.
    pub cluster: String,
    /// The engine's host, if it is another machine.
    pub remote_engine: Option<String>,
    /// Whether we started it.
    pub started_by_us: bool,
}

impl CachedService {
    /// The sockets of this machine that listen at an address. Empty for another machine.
    pub fn listeners_at(address: &Address) -> Vec<u64> {
        match address.is_local() {
            true => platform::listening_sockets(address.port),
            false => Vec::new(),
        }
    }

    /// Whether the address leads to the sockets that the tool named.
    pub fn has_same_listeners(&self) -> bool {
        self.listeners == Self::listeners_at(&self.server)
    }
}

/// The cache file of the configured service, and the lock that lets one process at a time start it.
#[derive(Debug)]
pub struct ServiceCache {
    file: PathBuf,
    lock: PathBuf,
}

impl ServiceCache {
    /// Creates the directory, with mode 0700 in the private runtime directory.
    ///
    /// # Errors
    /// The directory cannot be created, or another user could write to it.
    pub fn open(config: &Config) -> Result<Self, RunDirError> {
        let (file, lock) = Runtime::open()?.compose_cache(&key(config))?;
        Ok(Self { file, lock })
    }

    /// The cache in a directory of a test.
    #[cfg(test)]
    pub fn at(directory: &Path) -> Self {
        Self {
            file: directory.join("service.json"),
            lock: directory.join("service.lock"),
        }
    }

    /// The cached service, if the file exists and can be parsed.
    pub fn read(&self) -> Option<CachedService> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        let mut service: CachedService = serde_json::from_str(&text).ok()?;
        service.server.password = service.password.clone();
        Some(service)
    }

    /// Writes the file, with mode 0600.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, service: &CachedService) -> Result<(), RunDirError> {
        let text = serde_json::to_string(service).unwrap_or_default();
        write_atomically(&self.file, &text)
    }

    /// Removes the file.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.file);
    }

    /// Opens the lock file without locking it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open_lock(&self) -> Result<(File, &Path), RunDirError> {
        Ok((open_lock(&self.lock)?, &self.lock))
    }
}

fn key(config: &Config) -> String {
    let compose = &config.server.compose;
    let mut hash = Sha256::new();
    hash.update(format!("{:?} {compose:?}", config.root));
    for name in VARIABLES {
        hash.update(format!("\n{name}={:?}", std::env::var_os(name)));
    }
    hex(&hash.finalize()[..8])
}
