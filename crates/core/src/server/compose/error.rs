//! Why a service of a compose file could not be started.

use std::path::PathBuf;
use std::time::Duration;

use crate::pg::PgError;
use crate::plural::quoted;
use crate::protocol::RunDirError;

/// Why a service of a compose file could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// No compose tool works.
    #[error(
        "found no compose tool; tried {}; install docker with its compose plugin, docker-compose or podman, or set \
         `server.compose_command`",
        tried.join(", ")
    )]
    NoTool {
        /// Each command line with its error.
        tried: Vec<String>,
    },
    /// There is no compose file.
    #[error(
        "found no compose file in `{}` (compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml); set `server.compose_file`",
        .0.display()
    )]
    NoFile(PathBuf),
    /// The configured compose file does not exist.
    #[error("the compose file `{}` does not exist; correct `server.compose_file`", .0.display())]
    NoSuchFile(PathBuf),
    /// The compose file has no such service.
    #[error(
        "{file} has no service `{wanted}`, only {}; correct `server.compose_service`",
        quoted(services, "none")
    )]
    NoService {
        /// The compose file.
        file: String,
        /// The configured service.
        wanted: String,
        /// The existing services.
        services: Vec<String>,
    },
    /// The compose file has several services, and none is called `postgres`.
    #[error(
        "{file} has several services, and none is named `postgres`: {}; set `server.compose_service` to the PostgreSQL service",
        quoted(services, "none")
    )]
    WhichService {
        /// The compose file.
        file: String,
        /// The services.
        services: Vec<String>,
    },
    /// The tool works, but the container engine does not respond.
    #[error(
        "the container engine of `{tool}` does not respond: {message}; start it (Debian: `service docker start`), or correct DOCKER_HOST"
    )]
    Engine {
        /// The command line.
        tool: String,
        /// Its error message.
        message: String,
    },
    /// The engine is on another machine, which is not allowed.
    #[error(
        "the container engine is on another machine, `{0}` (DOCKER_HOST, or docker's current context); if databases may be created \
         and dropped there, set KAPSEL_TESTDB_ALLOW_REMOTE=1, or `allow_remote = true` under `[server]` in \
         `.config/kapsel-testdb.toml` (`kapsel-testdb init --allow-remote` writes it)"
    )]
    RemoteEngine(String),
    /// A command failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A command did not finish in time.
    #[error("`{command}` did not finish within {} s", after.as_secs())]
    Slow {
        /// The command line.
        command: String,
        /// The time limit.
        after: Duration,
    },
    /// The service does not publish its port.
    #[error(
        "the service `{service}` does not publish its port {port}; in {file}, add `ports: [\"127.0.0.1::{port}\"]` to it, or set \
         `server.compose_port` to the port that PostgreSQL listens on in the container"
    )]
    NotPublished {
        /// The service.
        service: String,
        /// The container's port.
        port: u16,
        /// The compose file.
        file: String,
    },
    /// The container stopped.
    #[error(
        "the container of the service `{service}` stopped; fix the service in the compose file; the last lines of its log: {logs}"
    )]
    Ended {
        /// The service.
        service: String,
        /// The end of its log.
        logs: String,
    },
    /// The server rejected the login from the container's environment.
    #[error(
        "the service `{service}` rejected the user and password of its own environment (POSTGRES_USER, POSTGRES_PASSWORD): {message}; \
         a volume keeps the user and password that it was initialized with: set these, or remove the volume (`{tool} down -v`)"
    )]
    Login {
        /// The service.
        service: String,
        /// The server's message.
        message: String,
        /// The command line.
        tool: String,
    },
    /// The service did not become ready in time.
    #[error(
        "the service `{service}` at `{address}` was not ready within {} s: {message}; if it only needs more time, raise \
         `server.start_timeout_secs`; the last lines of its log: {logs}",
        waited.as_secs()
    )]
    NotReady {
        /// The service.
        service: String,
        /// The server's address.
        address: String,
        /// How long we waited.
        waited: Duration,
        /// The result of the last attempt.
        message: String,
        /// The end of its log.
        logs: String,
    },
    /// A connection or a statement failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The cache directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
}
