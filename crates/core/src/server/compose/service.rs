//! One service: its address, its login, and its readiness.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use futures_util::future::try_join;

use crate::address::Address;
use crate::config::ServerConfig;
use crate::pg::PgError;
use crate::pg::admin::{Admin, Postmaster};
use crate::pg::connect::RetryLimits;
use crate::pg::error::backoff;
use crate::server::compose::ComposeError;
use crate::server::compose::tool::Tool;
use crate::waiting::waiting;

/// Interval of checks whether the container still runs, while the server does not answer.
const CONTAINER_CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// A service and the tool that manages it.
#[derive(Debug)]
pub struct Service {
    /// The compose tool.
    pub tool: Tool,
    /// Its name.
    pub name: String,
    /// The compose file's name for errors.
    pub file: String,
    /// The port in the container.
    pub port: u16,
    /// The engine's host, if it is another machine.
    pub remote_engine: Option<String>,
}

/// The login of a service's superuser.
struct Login {
    user: String,
    password: Option<String>,
}

impl Service {
    /// Its address, with the login from its environment, if it runs and publishes its port.
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn find(&self) -> Result<Option<Address>, ComposeError> {
        if !self.tool.has_containers().await? {
            return Ok(None);
        }
        self.address().await
    }

    async fn address(&self) -> Result<Option<Address>, ComposeError> {
        let endpoint = self.tool.endpoint(&self.name, self.port);
        let (Some(endpoint), Some(login)) = try_join(endpoint, self.login()).await? else {
            return Ok(None);
        };
        let host = endpoint.host(self.remote_engine.as_deref());
        Ok(Some(Address {
            password: login.password,
            ..Address::tcp(host, endpoint.port, &login.user)
        }))
    }

    /// Starts it and returns its address.
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn start(&self, lock: &File) -> Result<Address, ComposeError> {
        tracing::info!("starting the service `{}` of {}", self.name, self.file);
        self.tool.up(&self.name, lock).await?;
        match self.address().await? {
            Some(address) => Ok(address),
            None => Err(self.diagnose().await?),
        }
    }

    /// Why a service that was started has no address.
    async fn diagnose(&self) -> Result<ComposeError, ComposeError> {
        if self.tool.exec(&self.name, &["true"]).await?.is_none() {
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

    /// User and password from the container's environment, as the images interpret it. POSTGRES_DB is the user's and is not used.
    async fn login(&self) -> Result<Option<Login>, ComposeError> {
        let Some(text) = self.tool.exec(&self.name, &["printenv"]).await? else {
            return Ok(None);
        };
        let variables: BTreeMap<&str, &str> =
            text.lines().filter_map(|l| l.split_once('=')).collect();
        let user = self.value(&variables, "POSTGRES_USER").await?;
        let password = self.value(&variables, "POSTGRES_PASSWORD").await?;
        Ok(Some(Login {
            user: user.unwrap_or_else(|| "postgres".to_owned()),
            password,
        }))
    }

    /// The value of a variable, or the contents of the file in `<name>_FILE` (a secret).
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
        let text = self.tool.exec(&self.name, &["cat", file]).await?;
        Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Waits until the same postmaster has answered twice: an image that initializes a cluster may run a temporary server first.
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn wait_until_ready(
        &self,
        address: &Address,
        settings: &ServerConfig,
    ) -> Result<Postmaster, ComposeError> {
        let _waiting = waiting(
            format_args!("the service `{}` to accept connections", self.name),
            settings.start_timeout,
        );
        let (started, mut checked) = (Instant::now(), Instant::now());
        let mut answered = None;
        for attempt in 0.. {
            let message = match postmaster(address, &settings.maintenance_database).await {
                Ok(found) if answered.as_ref() == Some(&found) => return Ok(found),
                Ok(found) => {
                    answered = Some(found);
                    "it answered only once".to_owned()
                }
                Err(error) => {
                    answered = None;
                    self.transient_message(error)?
                }
            };
            if started.elapsed() >= settings.start_timeout {
                return Err(self.not_ready(address, started.elapsed(), message).await);
            }
            if answered.is_none() && checked.elapsed() >= CONTAINER_CHECK_INTERVAL {
                if self.tool.exec(&self.name, &["true"]).await?.is_none() {
                    return Err(self.ended().await);
                }
                checked = Instant::now();
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// The message of a transient failure; returns other failures as errors.
    fn transient_message(&self, error: PgError) -> Result<String, ComposeError> {
        match error {
            PgError::Unreachable { source, .. } => Ok(source.to_string()),
            PgError::Busy { message, .. } => Ok(message),
            PgError::Login { message, .. } => Err(ComposeError::Login {
                service: self.name.clone(),
                message,
                tool: self.tool.command_line(&[]),
            }),
            error if error.is_transient() => Ok(error.to_string()),
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

/// Reads the identity of the server, with one attempt to connect.
///
/// # Errors
/// The connection or the statement failed.
pub async fn postmaster(address: &Address, database: &str) -> Result<Postmaster, PgError> {
    let mut admin = Admin::connect(address, database, "compose", RetryLimits::ONCE).await?;
    let found = admin.postmaster().await;
    admin.close().await;
    found
}
