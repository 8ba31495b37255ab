//! The server: adopted (a URL names it) or managed (we start it), verified before anything is built on it.

pub mod binaries;
pub mod compose;
pub mod local;
pub mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, ServerConfig, ServerMode};
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::pg::error::code;
use crate::pg::{Address, PgError, ServerFacts};

/// The oldest PostgreSQL that is supported (`DROP DATABASE … WITH (FORCE)` came with it).
pub const OLDEST_MAJOR: i32 = 13;

/// Why there is no usable server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It does not answer, or refuses us.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The managed server could not be started.
    #[error(transparent)]
    Local(#[from] local::LocalError),
    /// The service of a compose file cannot be had.
    #[error(transparent)]
    Compose(#[from] compose::ComposeError),
    /// It is not there to be used, and this is no occasion to start it.
    #[error("{}", .0.not_running())]
    NotRunning(ServerKind),
    /// It is on another machine.
    #[error(
        "PostgreSQL at `{0}` is not on this machine; if databases may be created and dropped there, set KAPSEL_TESTDB_ALLOW_REMOTE=1, \
         or `allow_remote = true` under `[server]` in `.config/kapsel-testdb.toml` (`kapsel-testdb init --allow-remote` writes it)"
    )]
    Remote(String),
    /// It is older than [`OLDEST_MAJOR`].
    #[error(
        "PostgreSQL at `{address}` is version {version}; kapsel-testdb needs {OLDEST_MAJOR} or newer: upgrade the server"
    )]
    TooOld {
        /// Where it is.
        address: String,
        /// Its version.
        version: String,
    },
    /// It is a pooler between us and the server.
    #[error(
        "`{0}` is a connection pooler, and administrative work (locks that a session holds, CREATE DATABASE) needs the server itself: set \
         `server.admin_url` to the server's own URL; tests go on connecting through the pooler"
    )]
    Pooler(String),
    /// The role may not create databases.
    #[error(
        "the role `{role}` at `{address}` may not create databases; as a superuser, run `ALTER ROLE \"{role}\" CREATEDB`, or use another role"
    )]
    NoCreateDb {
        /// Where it is.
        address: String,
        /// The role.
        role: String,
    },
    /// The maintenance database is missing.
    #[error(
        "PostgreSQL at `{address}` has no database `{database}` to work from; create it, or name another one with `server.maintenance_database`"
    )]
    NoMaintenanceDatabase {
        /// Where it is.
        address: String,
        /// The database.
        database: String,
    },
}

/// Whose the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// A URL names it.
    Adopted,
    /// We start it from local binaries.
    Local,
    /// We bring it up as a service of a compose file.
    Compose,
}

impl ServerKind {
    /// What the configuration makes of it.
    pub fn of(settings: &ServerConfig) -> Self {
        match (settings.mode, &settings.adopted) {
            (ServerMode::Compose, _) => Self::Compose,
            (_, Some(_)) => Self::Adopted,
            (_, None) => Self::Local,
        }
    }

    /// What there is to say where it does not run and may not be started.
    pub fn not_running(self) -> &'static str {
        match self {
            Self::Compose => {
                "the compose service does not run; `kapsel-testdb server start` brings it up"
            }
            _ => "the managed server does not run; `kapsel-testdb server start` starts it",
        }
    }

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Local => "managed",
            Self::Compose => "compose",
        }
    }
}

/// A server that answers and lets us work.
#[derive(Debug)]
pub struct Server {
    /// Where tests connect.
    pub address: Address,
    /// Where administrative work goes.
    pub admin_address: Address,
    /// The database that administrative sessions live in.
    pub maintenance_database: String,
    /// Whose it is.
    pub kind: ServerKind,
    /// What it says of itself.
    pub facts: ServerFacts,
}

impl Server {
    /// Finds the server that the configuration means, starts it where it is ours to start, connects and verifies. The session
    /// that comes back is in the maintenance database and named after `purpose`.
    ///
    /// # Errors
    /// [`ServerError`] with the remedy.
    pub async fn locate(config: &Config, purpose: &str) -> Result<(Self, Admin), ServerError> {
        let settings = &config.server;
        if let Some((address, _)) = &settings.adopted {
            return Self::adopt(config, address, purpose).await;
        }
        let deadline = Instant::now() + settings.start_timeout;
        let local = match ServerKind::of(&config.server) {
            ServerKind::Compose => None,
            _ => Some(Arc::new(local::Local::open(settings)?)),
        };
        loop {
            let address = match &local {
                None => compose::ensure(config).await?,
                Some(local) => {
                    local::ensure(local, settings.start_timeout).await?;
                    local.address()
                }
            };
            // Who stops an idle server looks for sessions first, with nobody between that look and ours.
            let _gate = local
                .as_ref()
                .map(|local| local.lock_shared())
                .transpose()?;
            match Self::connect(config, address.clone(), address, purpose).await {
                // It was going down when we looked: `ensure` waits until it is gone and starts it again.
                Err(ServerError::Pg(PgError::Unreachable { .. })) if Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    /// [`Self::locate`] without starting anything: `None` where the managed server does not run.
    ///
    /// # Errors
    /// [`ServerError`] with the remedy.
    pub async fn find(
        config: &Config,
        purpose: &str,
    ) -> Result<Option<(Self, Admin)>, ServerError> {
        match ServerKind::of(&config.server) {
            ServerKind::Local if !local::Local::open(&config.server)?.runs() => Ok(None),
            ServerKind::Adopted | ServerKind::Local => {
                Self::locate(config, purpose).await.map(Some)
            }
            ServerKind::Compose => {
                let Some(compose::Running { address, .. }) = compose::find(config).await? else {
                    return Ok(None);
                };
                let found = Self::connect(config, address.clone(), address, purpose).await;
                found.map(Some)
            }
        }
    }

    async fn adopt(
        config: &Config,
        address: &Address,
        purpose: &str,
    ) -> Result<(Self, Admin), ServerError> {
        let settings = &config.server;
        let admin = settings.admin.as_ref().unwrap_or(address);
        allow(settings.allow_remote, [address, admin])?;
        Self::connect(config, address.clone(), admin.clone(), purpose).await
    }

    async fn connect(
        config: &Config,
        address: Address,
        admin_address: Address,
        purpose: &str,
    ) -> Result<(Self, Admin), ServerError> {
        let settings = &config.server;
        let patience = Patience {
            absent: match settings.adopted {
                Some(_) => settings.wait,
                None => Duration::ZERO,
            },
            busy: Patience::RUNNING.busy,
        };
        let database = &settings.maintenance_database;
        let connected = Admin::connect(&admin_address, database, purpose, patience).await;
        let mut admin = connected.map_err(|error| match error.code().as_deref() {
            _ if error.is_poolers_refusal() => ServerError::Pooler(admin_address.to_string()),
            Some(code::INVALID_CATALOG_NAME) => ServerError::NoMaintenanceDatabase {
                address: admin_address.to_string(),
                database: database.clone(),
            },
            _ => error.into(),
        })?;
        let server = Self {
            address,
            admin_address,
            maintenance_database: database.clone(),
            kind: ServerKind::of(&config.server),
            facts: admin.facts(&config.template.base).await?,
        };
        server.verify()?;
        Ok((server, admin))
    }

    fn verify(&self) -> Result<(), ServerError> {
        let address = self.admin_address.to_string();
        if self.facts.major() < OLDEST_MAJOR {
            return Err(ServerError::TooOld {
                address,
                version: self.facts.version(),
            });
        }
        if !self.facts.settings.options_arrive {
            return Err(ServerError::Pooler(address));
        }
        if !self.facts.can_create {
            let role = self.facts.role.clone();
            return Err(ServerError::NoCreateDb { address, role });
        }
        Ok(())
    }
}

/// Refuses servers on other machines unless somebody allowed them.
///
/// # Errors
/// [`ServerError::Remote`].
fn allow<'a>(
    allow_remote: bool,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Result<(), ServerError> {
    match addresses.into_iter().find(|a| !a.is_local()) {
        Some(address) if !allow_remote => Err(ServerError::Remote(address.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Sessions;
    use crate::pg::facts::Settings;

    #[test]
    fn too_old_a_server_is_refused_with_its_version() {
        let server = Server {
            address: Address::socket("/x".into(), 5432, "me"),
            admin_address: Address::socket("/x".into(), 5432, "me"),
            maintenance_database: "postgres".to_owned(),
            kind: ServerKind::Adopted,
            facts: ServerFacts {
                version_num: 120_022,
                role: "me".to_owned(),
                can_create: true,
                superuser: false,
                fsync: true,
                sessions: Sessions::default(),
                base_locale: String::new(),
                settings: Settings::default(),
            },
        };
        let message = server.verify().expect_err("12 is too old").to_string();
        assert!(message.contains("version 12.22"), "{message}");
    }
}
