//! A service of a compose file, ours or the user's. It is started with `docker compose`, `docker-compose` or `podman compose`, and
//! found at the port that it publishes.
//!
//! The container engine knows what runs. We cache its answers in a file, and verify them with a query each time. A lock lets one
//! process at a time start a service. We call `up` only if no service publishes the port, so a running service is never recreated.
//!
//! A crash leaves an `up` that continues; the next process waits for it. After it, the service runs and counts as started by the
//! user, because the cache does not say that we started it.

mod cache;
mod error;
mod published;
mod service;
mod tool;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::cache::{CachedService, ServiceCache};
use self::service::{Service, postmaster};
use self::tool::Tool;
use crate::address::Address;
use crate::config::Config;
use crate::platform::{self, LockMode};
use crate::protocol::RunDirError;
use crate::waiting::waiting;

pub use self::error::ComposeError;

/// The file names that compose itself searches for.
const FILES: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// How long to wait for a process that starts the service, and may have to pull its image.
const LOCK_LIMIT: Duration = Duration::from_secs(30 * 60);
/// The service to use if there are several and none is configured.
const DEFAULT_SERVICE: &str = "postgres";

/// A service that runs and publishes its port.
#[derive(Debug)]
pub struct RunningService {
    /// Its address, with the login from its environment.
    pub address: Address,
    /// Whether we started it.
    pub started_by_us: bool,
    service: Service,
}

/// Starts the service if it does not run, and waits until it answers queries. Returns its address, and whether it was started.
///
/// # Errors
/// [`ComposeError`] with the remedy.
pub async fn ensure(config: &Config) -> Result<(Address, bool), ComposeError> {
    let compose = Compose::open(config)?;
    if let Some(running) = compose.cached().await? {
        return Ok((running.address, false));
    }
    let lock = compose.lock().await?;
    // Another process may have started it while we waited for the lock.
    if let Some(running) = compose.cached().await? {
        return Ok((running.address, false));
    }
    let service = compose.service().await?;
    let (address, started_by_us) = match service.find().await? {
        Some(address) => (address, false),
        None => (service.start(&lock).await?, true),
    };
    let settings = &config.server;
    let listeners = CachedService::listeners_at(&address);
    let postmaster = service.wait_until_ready(&address, settings).await?;
    // It may be ours, and have been restarted.
    let noted = compose.cache.read();
    let is_noted = noted.is_some_and(|n| n.started_by_us && n.cluster == postmaster.cluster);
    compose.cache.write(&CachedService {
        command: service.tool.command().to_vec(),
        service: service.name.clone(),
        password: address.password.clone(),
        server: address.clone(),
        listeners,
        cluster: postmaster.cluster,
        remote_engine: service.remote_engine.clone(),
        started_by_us: started_by_us || is_noted,
    })?;
    Ok((address, started_by_us))
}

/// The service, if it runs and publishes its port. Starts nothing.
///
/// # Errors
/// [`ComposeError`] with the remedy.
pub async fn find(config: &Config) -> Result<Option<RunningService>, ComposeError> {
    let compose = Compose::open(config)?;
    if let Some(running) = compose.cached().await? {
        return Ok(Some(running));
    }
    let service = compose.service().await?;
    let Some(address) = service.find().await? else {
        return Ok(None);
    };
    let started_by_us = match compose.cache.read() {
        Some(noted) if noted.started_by_us => {
            let found = postmaster(&address, &config.server.maintenance_database).await;
            found.is_ok_and(|found| found.cluster == noted.cluster)
        }
        _ => false,
    };
    Ok(Some(RunningService {
        address,
        started_by_us,
        service,
    }))
}

/// Stops a service; its volumes stay.
///
/// # Errors
/// The tool failed.
pub async fn stop(config: &Config, running: &RunningService) -> Result<(), ComposeError> {
    let compose = Compose::open(config)?;
    let _lock = compose.lock().await?;
    running.service.tool.stop(&running.service.name).await?;
    compose.cache.remove();
    Ok(())
}

impl RunningService {
    /// The service's name.
    pub fn name(&self) -> &str {
        &self.service.name
    }

    /// The last lines of its log.
    ///
    /// # Errors
    /// The tool failed.
    pub async fn log_tail(&self, count: usize) -> Result<Vec<String>, ComposeError> {
        self.service.tool.log_tail(&self.service.name, count).await
    }

    /// The command line that stops it, for output.
    pub fn stop_command(&self) -> String {
        self.service
            .tool
            .command_line(&["stop", &self.service.name])
    }
}

/// The compose configuration, before the engine was queried.
struct Compose<'a> {
    config: &'a Config,
    cache: ServiceCache,
    /// `None`: compose finds the file in the workspace root, with its override files.
    file: Option<PathBuf>,
    file_name: String,
}

impl<'a> Compose<'a> {
    fn open(config: &'a Config) -> Result<Self, ComposeError> {
        let configured = config.server.compose.file.clone();
        let file_name = match &configured {
            Some(file) if !file.is_file() => return Err(ComposeError::NoSuchFile(file.clone())),
            Some(file) => format!("`{}`", file.display()),
            None => default_file(&config.root)?,
        };
        Ok(Self {
            config,
            cache: ServiceCache::open(config)?,
            file: configured,
            file_name,
        })
    }

    /// The cached service, if the same sockets listen and the same cluster answers at its address.
    async fn cached(&self) -> Result<Option<RunningService>, ComposeError> {
        let Some(cached) = self.cache.read() else {
            return Ok(None);
        };
        self.check_remote(cached.remote_engine.as_deref())?;
        if !cached.has_same_listeners() {
            return Ok(None);
        }
        let database = &self.config.server.maintenance_database;
        match postmaster(&cached.server, database).await {
            Ok(found) if found.cluster == cached.cluster => {}
            _ => return Ok(None),
        }
        Ok(Some(RunningService {
            address: cached.server,
            started_by_us: cached.started_by_us,
            service: Service {
                tool: Tool::new(cached.command, &self.config.root, self.file.as_deref()),
                name: cached.service,
                file: self.file_name.clone(),
                port: self.config.server.compose.port,
                remote_engine: cached.remote_engine,
            },
        }))
    }

    /// Takes the lock; waits for a process that is starting the service.
    async fn lock(&self) -> Result<std::fs::File, ComposeError> {
        let (file, path) = self.cache.open_lock()?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        let _waiting = waiting("another process that starts the service", LOCK_LIMIT);
        let path = path.to_path_buf();
        let lock = move || platform::lock(&file, LockMode::Exclusive, LOCK_LIMIT).map(|()| file);
        let locked = tokio::task::spawn_blocking(lock).await;
        let locked = locked.map_err(std::io::Error::other).flatten();
        locked.map_err(|source| {
            let context = "lock";
            RunDirError::Io {
                context,
                path,
                source,
            }
            .into()
        })
    }

    /// Finds the tool, the engine and the service's name.
    async fn service(&self) -> Result<Service, ComposeError> {
        let settings = &self.config.server.compose;
        let file = self.file.as_deref();
        let tool = Tool::find(&settings.command, &self.config.root, file).await?;
        let remote_engine = tool.remote_engine().await;
        self.check_remote(remote_engine.as_deref())?;
        let services = tool.services().await?;
        let name = choose_service(settings.service.as_deref(), services, &self.file_name)?;
        Ok(Service {
            tool,
            name,
            file: self.file_name.clone(),
            port: settings.port,
            remote_engine,
        })
    }

    fn check_remote(&self, remote_engine: Option<&str>) -> Result<(), ComposeError> {
        match remote_engine {
            Some(host) if !self.config.server.allow_remote => {
                Err(ComposeError::RemoteEngine(host.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The compose file's name for errors. Unlike compose, this does not search the parent directories, which are outside the
/// workspace.
fn default_file(root: &Path) -> Result<String, ComposeError> {
    if let Some(named) = std::env::var_os("COMPOSE_FILE").filter(|v| !v.is_empty()) {
        return Ok(format!("`{}` (COMPOSE_FILE)", named.to_string_lossy()));
    }
    let found = FILES.iter().find(|name| root.join(name).is_file());
    found
        .map(|name| format!("`{name}`"))
        .ok_or_else(|| ComposeError::NoFile(root.to_path_buf()))
}

fn choose_service(
    wanted: Option<&str>,
    services: Vec<String>,
    file: &str,
) -> Result<String, ComposeError> {
    let has = |name: &str| services.iter().any(|service| service == name);
    let file = file.to_owned();
    match (wanted, &services[..]) {
        (Some(name), _) if has(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(ComposeError::NoService {
            file,
            wanted: name.to_owned(),
            services,
        }),
        (None, [only]) => Ok(only.clone()),
        (None, _) if has(DEFAULT_SERVICE) => Ok(DEFAULT_SERVICE.to_owned()),
        (None, _) => Err(ComposeError::WhichService { file, services }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener that did not exist when the tool named the address is not even connected to: it could ask for the password.
    #[tokio::test]
    async fn a_cached_service_is_used_only_while_the_same_socket_listens() {
        let directory = tempfile::tempdir().expect("a temp dir");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let loaded = crate::config::load_with(directory.path(), Default::default(), &|_| None);
        let config = loaded.expect("the defaults");
        let compose = Compose {
            config: &config,
            cache: ServiceCache::at(directory.path()),
            file: None,
            file_name: String::new(),
        };
        let server = Address::tcp("127.0.0.1".to_owned(), port, "me");
        let same = CachedService::listeners_at(&server);
        for (listeners, connects) in [(same, true), (vec![1], false)] {
            let note = CachedService {
                command: Vec::new(),
                service: "db".to_owned(),
                server: server.clone(),
                password: Some("secret".to_owned()),
                listeners,
                cluster: "1".to_owned(),
                remote_engine: None,
                started_by_us: false,
            };
            compose.cache.write(&note).expect("a note");
            // It closes each connection at once.
            let was_connected = tokio::select! {
                biased;
                accepted = listener.accept() => accepted.is_ok(),
                cached = compose.cached() => {
                    assert!(cached.expect("no error").is_none());
                    false
                }
            };
            assert_eq!(was_connected, connects);
        }
    }

    fn chosen(wanted: Option<&str>, services: &[&str]) -> Result<String, String> {
        let services = services.iter().map(|s| (*s).to_owned()).collect();
        choose_service(wanted, services, "`compose.yaml`").map_err(|error| error.to_string())
    }

    #[test]
    fn a_single_service_or_postgres_is_the_default() {
        assert_eq!(chosen(None, &["db"]).as_deref(), Ok("db"));
        assert_eq!(
            chosen(None, &["app", "postgres"]).as_deref(),
            Ok("postgres")
        );
        assert_eq!(chosen(Some("db"), &["app", "db"]).as_deref(), Ok("db"));
        let message = chosen(None, &["app", "db"]).expect_err("which one?");
        assert!(
            message.contains("`app`, `db`; set `server.compose_service`"),
            "{message}"
        );
        let message = chosen(Some("pg"), &["app", "db"]).expect_err("no such service");
        assert!(
            message.contains("no service `pg`, only `app`, `db`"),
            "{message}"
        );
    }
}
