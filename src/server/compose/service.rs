//! One service: where it is, whom it lets in, and when it is ready.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use super::ComposeError;
use super::tool::Tool;
use crate::config::ServerConfig;
use crate::pg::address::Host;
use crate::pg::admin::{Admin, Postmaster};
use crate::pg::connect::Patience;
use crate::pg::error::backoff;
use crate::pg::tls::Tls;
use crate::pg::{Address, PgError};

/// How often the engine is asked, while the server does not answer, whether the container still runs.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// A service and how to ask about it.
#[derive(Debug)]
pub struct Service {
    /// The tool that answers.
    pub tool: Tool,
    /// Its name.
    pub name: String,
    /// The compose file as errors name it.
    pub file: String,
    /// The port in the container.
    pub port: u16,
    /// Where the engine is, if on another machine.
    pub remote_engine: Option<String>,
}

impl Service {
    /// Where it is, with the login of its environment, if it runs and publishes its port.
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn look(&self) -> Result<Option<Address>, ComposeError> {
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

    /// Brings it up and says where it is.
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn bring_up(&self, lock: &File) -> Result<Address, ComposeError> {
        tracing::info!("bringing up the service `{}` of {}", self.name, self.file);
        self.tool.up(&self.name, lock).await?;
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
    ///
    /// # Errors
    /// [`ComposeError`] with the remedy.
    pub async fn wait_until_ready(
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
///
/// # Errors
/// Nobody, or it does not let us in.
pub async fn postmaster(address: &Address, database: &str) -> Result<Postmaster, PgError> {
    let mut admin = Admin::connect(address, database, "compose", Patience::ONCE).await?;
    let found = admin.postmaster().await;
    admin.close().await;
    found
}
