//! The server: adopted (a URL names it) or managed (we start it). It is verified before it is used.

pub mod binaries;
pub mod compose;
pub mod local;
pub mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::{Config, ServerConfig, ServerMode};
use crate::pg::admin::Admin;
use crate::pg::connect::RetryLimits;
use crate::pg::sql;
use crate::pg::{PgError, ServerFacts};
use crate::sqlstate;

/// The oldest supported major version of PostgreSQL, the first with `DROP DATABASE … WITH (FORCE)`.
pub const OLDEST_MAJOR: i32 = 13;

/// Why there is no usable server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A connection or a statement failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The managed server could not be started.
    #[error(transparent)]
    Local(#[from] local::LocalError),
    /// The service of a compose file could not be started.
    #[error(transparent)]
    Compose(#[from] compose::ComposeError),
    /// The managed server does not run, and this command does not start it.
    #[error("{}", .0.not_running())]
    NotRunning(ServerKind),
    /// The server is on another machine, which is not allowed.
    #[error(
        "PostgreSQL at `{0}` is not on this machine; if databases may be created and dropped there, set KAPSEL_TESTDB_ALLOW_REMOTE=1, \
         or `allow_remote = true` under `[server]` in `.config/kapsel-testdb.toml` (`kapsel-testdb init --allow-remote` writes it)"
    )]
    Remote(String),
    /// The server is older than [`OLDEST_MAJOR`].
    #[error(
        "PostgreSQL at `{address}` is version {version}; kapsel-testdb needs {OLDEST_MAJOR} or newer; upgrade the server"
    )]
    TooOld {
        /// The server's address.
        address: String,
        /// Its version.
        version: String,
    },
    /// The server has another version than the configuration requires.
    #[error(
        "PostgreSQL at `{address}` is version {version}, but `server.version` is {required}; use a server of that version, or change `server.version`"
    )]
    WrongVersion {
        /// The server's address.
        address: String,
        /// Its version.
        version: String,
        /// The required major version.
        required: u32,
    },
    /// The address is that of a connection pooler.
    #[error(
        "`{0}` is a connection pooler, but administrative work (session-level locks, CREATE DATABASE) needs a direct connection; set \
         `server.admin_url` to the server's own URL; tests continue to connect through the pooler"
    )]
    Pooler(String),
    /// The role may not create databases.
    #[error(
        "the role `{role}` at `{address}` may not create databases; as a superuser, run `ALTER ROLE \"{role}\" CREATEDB`, or use another role"
    )]
    NoCreateDb {
        /// The server's address.
        address: String,
        /// The role.
        role: String,
    },
    /// The role of `server.test_role` is a superuser.
    #[error(
        "the role `{role}` of `server.test_role` is a superuser on the managed server, so row-level security and missing grants would have no \
         effect; name another role, or run `ALTER ROLE {} NOSUPERUSER` (`kapsel-testdb server psql` opens the server)",
        sql::identifier(role)
    )]
    TestRoleIsSuperuser {
        /// The role.
        role: String,
    },
    /// The maintenance database is missing.
    #[error(
        "PostgreSQL at `{address}` has no maintenance database `{database}`; create it, or set `server.maintenance_database` to another database"
    )]
    NoMaintenanceDatabase {
        /// The server's address.
        address: String,
        /// The database.
        database: String,
    },
    /// The role may not connect to the maintenance database.
    #[error(
        "PostgreSQL at `{address}` refused the login to its maintenance database `{database}`: {message}; set \
         `server.maintenance_database` to a database that the role may connect to, or {}",
        permission(.message, .database, .role)
    )]
    MaintenanceDenied {
        /// The server's address.
        address: String,
        /// The database.
        database: String,
        /// The role.
        role: String,
        /// The server's message.
        message: String,
    },
}

/// How an administrator permits a refused login to a database.
fn permission(message: &str, database: &str, role: &str) -> String {
    if message.contains("pg_hba.conf") {
        let tls = "if the server requires TLS, set `sslmode=require` in the URL";
        return format!("allow the login in the server's pg_hba.conf ({tls})");
    }
    let (database, role) = (sql::identifier(database), sql::identifier(role));
    if message.contains("permission denied") {
        return format!("run `GRANT CONNECT ON DATABASE {database} TO {role}` as a superuser");
    }
    format!("run `ALTER DATABASE {database} ALLOW_CONNECTIONS true` as a superuser")
}

/// How we got the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// A URL names it.
    Adopted,
    /// We start it from local binaries.
    Local,
    /// We start it as a service of a compose file.
    Compose,
}

impl ServerKind {
    /// The kind that the configuration selects.
    pub fn of(settings: &ServerConfig) -> Self {
        match (settings.mode, &settings.adopted) {
            (ServerMode::Compose, _) => Self::Compose,
            (_, Some(_)) => Self::Adopted,
            (_, None) => Self::Local,
        }
    }

    /// The error message if it does not run.
    pub fn not_running(self) -> &'static str {
        match self {
            Self::Compose => {
                "the compose service is not running; start it with `kapsel-testdb server start`"
            }
            _ => "the managed server is not running; start it with `kapsel-testdb server start`",
        }
    }

    /// The name for output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Local => "managed",
            Self::Compose => "compose",
        }
    }
}

/// A server that answers and was verified.
#[derive(Debug)]
pub struct Server {
    /// Address for tests.
    pub address: Address,
    /// Address for administrative sessions.
    pub admin_address: Address,
    /// The database of administrative sessions.
    pub maintenance_database: String,
    /// How we got it.
    pub kind: ServerKind,
    /// Its place, if it was started just now.
    pub started: Option<String>,
    /// Version, settings and privileges.
    pub facts: ServerFacts,
}

impl Server {
    /// Finds the configured server, starts it if it is managed, connects and verifies. Returns an administrative session whose
    /// `application_name` contains `purpose`.
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
        let mut started = None;
        loop {
            let address = match &local {
                None => {
                    let (address, is_new) = compose::ensure(config).await?;
                    started = started.or(is_new.then(|| address.to_string()));
                    address
                }
                Some(local) => {
                    let is_new = local::ensure(local, settings.start_timeout).await?;
                    started = started.or(is_new.then(|| local.dir().display().to_string()));
                    local.address()
                }
            };
            // The process that stops an idle server checks for sessions under this lock, so it cannot stop the server meanwhile.
            let _gate = local
                .as_ref()
                .map(|local| local.lock_shared())
                .transpose()?;
            let test_role = settings.test_role.as_ref().filter(|_| local.is_some());
            let mut test_address = address.clone();
            if let Some(role) = test_role {
                test_address.user.clone_from(role);
            }
            match Self::connect(config, test_address, address, purpose).await {
                // The server was shutting down: `ensure` waits for its end and starts it again.
                Err(ServerError::Pg(PgError::Unreachable { .. })) if Instant::now() < deadline => {}
                Ok((server, mut admin)) => {
                    if let Some(role) = test_role {
                        ensure_test_role(&mut admin, role).await?;
                    }
                    return Ok((Self { started, ..server }, admin));
                }
                error => return error,
            }
        }
    }

    /// Like [`Self::locate`], but starts nothing: `None` if the managed server does not run.
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
                let Some(compose::RunningService { address, .. }) = compose::find(config).await?
                else {
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
        check_remote(settings.allow_remote, [address, admin])?;
        Self::connect(config, address.clone(), admin.clone(), purpose).await
    }

    async fn connect(
        config: &Config,
        address: Address,
        admin_address: Address,
        purpose: &str,
    ) -> Result<(Self, Admin), ServerError> {
        let settings = &config.server;
        let limits = RetryLimits {
            unreachable: match settings.adopted {
                Some(_) => settings.wait,
                None => Duration::ZERO,
            },
            busy: RetryLimits::RUNNING.busy,
        };
        let database = &settings.maintenance_database;
        let connected = Admin::connect(&admin_address, database, purpose, limits).await;
        let refused = |error| refused_by(error, &admin_address, database);
        let mut admin = connected.map_err(refused)?;
        let server = Self {
            address,
            admin_address,
            maintenance_database: database.clone(),
            kind: ServerKind::of(&config.server),
            started: None,
            facts: admin.facts(&config.template.base).await?,
        };
        server.verify()?;
        Ok((server, admin))
    }

    /// Checks that the server has the configured version.
    ///
    /// # Errors
    /// [`ServerError::WrongVersion`].
    pub fn check_version(&self, settings: &ServerConfig) -> Result<(), ServerError> {
        let major = u32::try_from(self.facts.major()).unwrap_or_default();
        match settings.version {
            Some(required) if required != major => Err(ServerError::WrongVersion {
                address: self.admin_address.to_string(),
                version: self.facts.version(),
                required,
            }),
            _ => Ok(()),
        }
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

/// Creates the role that tests connect as, unless it exists.
async fn ensure_test_role(admin: &mut Admin, role: &str) -> Result<(), ServerError> {
    let mut rights = admin.role(role).await?;
    if rights.is_none() {
        admin.ensure_role(role, "server.test_role").await?;
        rights = admin.role(role).await?;
    }
    match rights {
        Some(rights) if rights.superuser => Err(ServerError::TestRoleIsSuperuser {
            role: role.to_owned(),
        }),
        Some(rights) if rights.login => Ok(()),
        _ => Ok(admin.allow_login(role).await?),
    }
}

/// Why an administrative session could not be opened.
fn refused_by(error: PgError, address: &Address, database: &str) -> ServerError {
    let denied = |message: String| ServerError::MaintenanceDenied {
        address: address.to_string(),
        database: database.to_owned(),
        role: address.user.clone(),
        message,
    };
    match (error.code().as_deref(), &error) {
        _ if error.is_rejected_by_pooler() => ServerError::Pooler(address.to_string()),
        (Some(sqlstate::INVALID_CATALOG_NAME), _) => ServerError::NoMaintenanceDatabase {
            address: address.to_string(),
            database: database.to_owned(),
        },
        // The role lacks CONNECT, or the database accepts no connections.
        (
            Some(sqlstate::INSUFFICIENT_PRIVILEGE | sqlstate::NOT_IN_PREREQUISITE_STATE),
            PgError::Statement { source, .. },
        ) => denied(
            source
                .as_database_error()
                .map_or_else(String::new, |e| e.message().to_owned()),
        ),
        // Rules of pg_hba.conf name databases.
        (_, PgError::Login { message, .. }) if message.contains("pg_hba.conf") => {
            denied(message.clone())
        }
        _ => error.into(),
    }
}

/// Rejects servers on other machines unless the configuration allows them.
///
/// # Errors
/// [`ServerError::Remote`].
fn check_remote<'a>(
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
    use crate::pg::facts::{Sessions, Settings};

    #[test]
    fn a_rule_of_pg_hba_may_be_for_the_maintenance_database() {
        let address = Address::socket("/x".into(), 5432, "me");
        let login = |message: &str| PgError::Login {
            address: address.to_string(),
            message: message.to_owned(),
        };
        let hba = login(
            "no pg_hba.conf entry for host \"[local]\", user \"me\", database \"postgres\", no encryption",
        );
        let message = refused_by(hba, &address, "postgres").to_string();
        for part in [
            "`postgres`",
            "`server.maintenance_database`",
            "pg_hba.conf",
            "`sslmode=require`",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let password = login("password authentication failed for user \"me\"");
        let message = refused_by(password, &address, "postgres").to_string();
        assert!(
            message.contains("correct the user or the password"),
            "{message}"
        );
    }

    #[test]
    fn too_old_a_server_is_refused_with_its_version() {
        let server = Server {
            address: Address::socket("/x".into(), 5432, "me"),
            admin_address: Address::socket("/x".into(), 5432, "me"),
            maintenance_database: "postgres".to_owned(),
            kind: ServerKind::Adopted,
            started: None,
            facts: ServerFacts {
                version_num: 120_022,
                role: "me".to_owned(),
                can_create: true,
                superuser: false,
                fsync: true,
                sessions: Sessions::default(),
                base_locale: String::new(),
                base: None,
                role_settings: String::new(),
                settings: Settings::default(),
                options: None,
            },
        };
        let message = server.verify().expect_err("12 is too old").to_string();
        assert!(message.contains("version 12.22"), "{message}");
    }
}
