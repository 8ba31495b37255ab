//! A service of a compose file, ours or the user's: brought up with `docker compose`, `docker-compose` or `podman compose`, and
//! found at the port that it publishes.
//!
//! The engine knows what runs; we keep a [`Note`] of what it said, checked by a query each time. One process at a time brings a
//! service up, under a lock. A service that runs is never recreated: `up` is only called where none does.
//!
//! What a crash leaves: before `up` has ended, containers that the next `up` goes on with; after it, a service that runs and counts
//! as the user's, because no note says that we brought it up.

mod error;
mod note;
mod published;
mod tool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::note::{Note, Place};
use self::tool::Tool;
use crate::config::{Config, ServerConfig};
use crate::pg::address::Host;
use crate::pg::admin::{Admin, Postmaster};
use crate::pg::connect::Patience;
use crate::pg::error::backoff;
use crate::pg::tls::Tls;
use crate::pg::{Address, PgError};
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
/// One attempt: whoever asks decides whether to go on.
const ONCE: Patience = Patience {
    absent: Duration::ZERO,
    busy: Duration::ZERO,
};
/// How often the engine is asked, while the server does not answer, whether the container still runs.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// A service that runs and has a published port.
#[derive(Debug)]
pub struct Running {
    /// Where it is, with the login of its environment.
    pub address: Address,
    /// Whether we brought it up; else it ran already.
    pub brought_up: bool,
    service: Service,
}

/// A service and how to ask about it.
#[derive(Debug)]
struct Service {
    tool: Tool,
    name: String,
    /// The compose file as errors name it.
    file: String,
    port: u16,
    remote_engine: Option<String>,
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
    let _lock = compose.lock().await?;
    // Somebody else may have brought it up while we waited for the lock.
    if let Some(running) = compose.noted().await? {
        return Ok(running.address);
    }
    let service = compose.service().await?;
    let (address, brought_up) = match service.look().await? {
        Some(address) => (address, false),
        None => (service.bring_up().await?, true),
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

impl Service {
    /// Where it is, with the login of its environment, if it runs and publishes its port.
    async fn look(&self) -> Result<Option<Address>, ComposeError> {
        if !self.tool.has_containers().await? {
            return Ok(None);
        }
        self.address().await
    }

    async fn address(&self) -> Result<Option<Address>, ComposeError> {
        let endpoint = self.tool.endpoint(&self.name, self.port);
        let (Some(endpoint), Some(login)) = tokio::try_join!(endpoint, self.login())? else {
            return Ok(None);
        };
        Ok(Some(Address {
            host: Host::Tcp(endpoint.host(self.remote_engine.as_deref())),
            port: endpoint.port,
            ..login
        }))
    }

    async fn bring_up(&self) -> Result<Address, ComposeError> {
        tracing::info!("bringing up the service `{}` of {}", self.name, self.file);
        self.tool.up(&self.name).await?;
        match self.address().await? {
            Some(address) => Ok(address),
            None => Err(self.why_not().await?),
        }
    }

    /// Why a service that was brought up is not to be found.
    async fn why_not(&self) -> Result<ComposeError, ComposeError> {
        if self.tool.inside(&self.name, &["true"]).await?.is_none() {
            return Ok(self.ended().await);
        }
        Ok(ComposeError::NotPublished {
            service: self.name.clone(),
            port: self.port,
            file: self.file.clone(),
        })
    }

    async fn ended(&self) -> ComposeError {
        ComposeError::Ended {
            service: self.name.clone(),
            logs: self.tool.logs(&self.name).await,
        }
    }

    /// User and password as the images take them from the environment. The database of POSTGRES_DB is not ours to use.
    async fn login(&self) -> Result<Option<Address>, ComposeError> {
        let Some(text) = self.tool.inside(&self.name, &["printenv"]).await? else {
            return Ok(None);
        };
        let variables: BTreeMap<&str, &str> =
            text.lines().filter_map(|l| l.split_once('=')).collect();
        let user = self.value(&variables, "POSTGRES_USER").await?;
        Ok(Some(Address {
            host: Host::Tcp(String::new()),
            port: 0,
            user: user.unwrap_or_else(|| "postgres".to_owned()),
            tls: Tls::default(),
            password: self.value(&variables, "POSTGRES_PASSWORD").await?,
        }))
    }

    /// A variable's value, or what the file holds that `<name>_FILE` names (a secret).
    async fn value(
        &self,
        variables: &BTreeMap<&str, &str>,
        name: &str,
    ) -> Result<Option<String>, ComposeError> {
        let value = |name: &str| variables.get(name).filter(|v| !v.is_empty()).copied();
        if let Some(value) = value(name) {
            return Ok(Some(value.to_owned()));
        }
        let Some(file) = value(&format!("{name}_FILE")) else {
            return Ok(None);
        };
        let text = self.tool.inside(&self.name, &["cat", file]).await?;
        Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Waits until the same postmaster has answered twice: what initialises a cluster may run a temporary server first, and says
    /// "ready" twice.
    async fn wait_until_ready(
        &self,
        address: &Address,
        settings: &ServerConfig,
    ) -> Result<Postmaster, ComposeError> {
        let (begun, mut looked) = (Instant::now(), Instant::now());
        let mut answered = None;
        for attempt in 0.. {
            let message = match postmaster(address, &settings.maintenance_database).await {
                Ok(found) if answered.as_ref() == Some(&found) => return Ok(found),
                Ok(found) => {
                    answered = Some(found);
                    "it answered once".to_owned()
                }
                Err(error) => {
                    answered = None;
                    self.passing(error)?
                }
            };
            if begun.elapsed() >= settings.start_timeout {
                return Err(self.not_ready(address, begun.elapsed(), message).await);
            }
            if answered.is_none() && looked.elapsed() >= LOOK_AGAIN {
                if self.tool.inside(&self.name, &["true"]).await?.is_none() {
                    return Err(self.ended().await);
                }
                looked = Instant::now();
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// What is waited out, as text; the rest is an error at once.
    fn passing(&self, error: PgError) -> Result<String, ComposeError> {
        match error {
            PgError::Unreachable { source, .. } => Ok(source.to_string()),
            PgError::Busy { message, .. } => Ok(message),
            PgError::Login { message, .. } => Err(ComposeError::Login {
                service: self.name.clone(),
                message,
                tool: self.tool.shown(&[]),
            }),
            error if error.is_passing() => Ok(error.to_string()),
            error => Err(error.into()),
        }
    }

    async fn not_ready(
        &self,
        address: &Address,
        waited: Duration,
        message: String,
    ) -> ComposeError {
        ComposeError::NotReady {
            service: self.name.clone(),
            address: address.to_string(),
            waited,
            message,
            logs: self.tool.logs(&self.name).await,
        }
    }
}

/// Asks who answers there, once.
async fn postmaster(address: &Address, database: &str) -> Result<Postmaster, PgError> {
    let mut admin = Admin::connect(address, database, "compose", ONCE).await?;
    let found = admin.postmaster().await;
    admin.close().await;
    found
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
