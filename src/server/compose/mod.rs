//! A service of a compose file, ours or the user's: brought up with `docker compose`, `docker-compose` or `podman compose`, and
//! found at the port that it publishes.
//!
//! The engine knows what runs; we keep a note of what it said, checked by a query each time. One process at a time brings a
//! service up, under a lock. A service that runs and publishes its port is never recreated: `up` is only called where none does.
//!
//! What a crash leaves: an `up` that goes on, and that the next one waits for; after it, a service that runs and counts as the
//! user's, because no note says that we brought it up.

mod error;
mod note;
mod published;
mod service;
mod tool;

use std::path::{Path, PathBuf};

use self::note::{Note, Place};
use self::service::{Service, postmaster};
use self::tool::Tool;
use crate::config::Config;
use crate::pg::Address;
use crate::run_dir::RunDirError;

pub use self::error::ComposeError;

/// What compose itself looks for.
const FILES: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// The service, where there are several and none is configured.
const SERVICE: &str = "postgres";

/// A service that runs and has a published port.
#[derive(Debug)]
pub struct Running {
    /// Where it is, with the login of its environment.
    pub address: Address,
    /// Whether we brought it up; else it ran already.
    pub brought_up: bool,
    service: Service,
}

/// The service, brought up if it does not run; it answers queries when this comes back.
///
/// # Errors
/// [`ComposeError`] with the remedy.
pub async fn ensure(config: &Config) -> Result<Address, ComposeError> {
    let compose = Compose::open(config)?;
    if let Some(running) = compose.noted().await? {
        return Ok(running.address);
    }
    let lock = compose.lock().await?;
    // Somebody else may have brought it up while we waited for the lock.
    if let Some(running) = compose.noted().await? {
        return Ok(running.address);
    }
    let service = compose.service().await?;
    let (address, brought_up) = match service.look().await? {
        Some(address) => (address, false),
        None => (service.bring_up(&lock).await?, true),
    };
    let settings = &config.server;
    let postmaster = service.wait_until_ready(&address, settings).await?;
    compose.place.write(&Note {
        command: service.tool.command().to_vec(),
        service: service.name.clone(),
        password: address.password.clone(),
        server: address.clone(),
        cluster: postmaster.cluster,
        remote_engine: service.remote_engine.clone(),
        brought_up,
    })?;
    Ok(address)
}

/// The service, if it runs and publishes its port; starts nothing.
///
/// # Errors
/// [`ComposeError`] with the remedy.
pub async fn find(config: &Config) -> Result<Option<Running>, ComposeError> {
    let compose = Compose::open(config)?;
    if let Some(running) = compose.noted().await? {
        return Ok(Some(running));
    }
    let service = compose.service().await?;
    Ok(service.look().await?.map(|address| Running {
        address,
        brought_up: false,
        service,
    }))
}

/// Stops a service; what its volumes hold stays.
///
/// # Errors
/// What the tool said.
pub async fn stop(config: &Config, running: &Running) -> Result<(), ComposeError> {
    let compose = Compose::open(config)?;
    let _lock = compose.lock().await?;
    running.service.tool.stop(&running.service.name).await?;
    compose.place.forget();
    Ok(())
}

impl Running {
    /// The service's name.
    pub fn name(&self) -> &str {
        &self.service.name
    }

    /// The last lines of its log.
    ///
    /// # Errors
    /// What the tool said.
    pub async fn log_tail(&self, count: usize) -> Result<Vec<String>, ComposeError> {
        self.service.tool.log_tail(&self.service.name, count).await
    }

    /// The command line that stops it, for people.
    pub fn stop_command(&self) -> String {
        self.service.tool.shown(&["stop", &self.service.name])
    }
}

/// The configuration's service, before anything is known of it.
struct Compose<'a> {
    config: &'a Config,
    place: Place,
    /// `None`: compose finds it in the workspace's root, with its override files.
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
            place: Place::open(config)?,
            file: configured,
            file_name,
        })
    }

    /// What the note says, if the same cluster answers there.
    async fn noted(&self) -> Result<Option<Running>, ComposeError> {
        let Some(note) = self.place.read() else {
            return Ok(None);
        };
        self.allow(note.remote_engine.as_deref())?;
        let database = &self.config.server.maintenance_database;
        match postmaster(&note.server, database).await {
            Ok(found) if found.cluster == note.cluster => {}
            _ => return Ok(None),
        }
        Ok(Some(Running {
            address: note.server,
            brought_up: note.brought_up,
            service: Service {
                tool: Tool::known(note.command, &self.config.root, self.file.as_deref()),
                name: note.service,
                file: self.file_name.clone(),
                port: self.config.server.compose.port,
                remote_engine: note.remote_engine,
            },
        }))
    }

    /// Waits for whoever brings it up just now.
    async fn lock(&self) -> Result<std::fs::File, ComposeError> {
        let (file, path) = self.place.lock()?;
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        tracing::info!("waiting for another process that brings up the service");
        let path = path.to_path_buf();
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        let locked = locked.map_err(std::io::Error::other).flatten();
        locked.map_err(|source| {
            let doing = "lock";
            RunDirError::Io {
                doing,
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
        self.allow(remote_engine.as_deref())?;
        let services = tool.services().await?;
        let name = choose(settings.service.as_deref(), services, &self.file_name)?;
        Ok(Service {
            tool,
            name,
            file: self.file_name.clone(),
            port: settings.port,
            remote_engine,
        })
    }

    fn allow(&self, remote_engine: Option<&str>) -> Result<(), ComposeError> {
        match remote_engine {
            Some(host) if !self.config.server.allow_remote => {
                Err(ComposeError::RemoteEngine(host.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The compose file's name for errors; compose would also look in the folders above, which are none of the workspace's.
fn default_file(root: &Path) -> Result<String, ComposeError> {
    if let Some(named) = std::env::var_os("COMPOSE_FILE").filter(|v| !v.is_empty()) {
        return Ok(format!("`{}` (COMPOSE_FILE)", named.to_string_lossy()));
    }
    let found = FILES.iter().find(|name| root.join(name).is_file());
    found
        .map(|name| format!("`{name}`"))
        .ok_or_else(|| ComposeError::NoFile(root.to_path_buf()))
}

fn choose(wanted: Option<&str>, services: Vec<String>, file: &str) -> Result<String, ComposeError> {
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
        (None, _) if has(SERVICE) => Ok(SERVICE.to_owned()),
        (None, _) => Err(ComposeError::WhichService { file, services }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: Option<&str>, services: &[&str]) -> Result<String, String> {
        let services = services.iter().map(|s| (*s).to_owned()).collect();
        choose(wanted, services, "`compose.yaml`").map_err(|error| error.to_string())
    }

    #[test]
    fn the_only_service_is_meant_else_postgres_else_it_must_be_said() {
        assert_eq!(chosen(None, &["db"]).as_deref(), Ok("db"));
        assert_eq!(
            chosen(None, &["app", "postgres"]).as_deref(),
            Ok("postgres")
        );
        assert_eq!(chosen(Some("db"), &["app", "db"]).as_deref(), Ok("db"));
        let message = chosen(None, &["app", "db"]).expect_err("which one?");
        assert!(
            message.contains("`app`, `db`; say with `server.compose_service`"),
            "{message}"
        );
        let message = chosen(Some("pg"), &["app", "db"]).expect_err("no such service");
        assert!(
            message.contains("no service `pg`; it has `app`, `db`"),
            "{message}"
        );
    }
}
