//! Why a service of a compose file cannot be had.

use std::path::PathBuf;
use std::time::Duration;

use crate::pg::PgError;
use crate::run_dir::RunDirError;

/// Why a service of a compose file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// No tool answers.
    #[error(
        "found no tool for compose files; tried {}; install docker with its compose plugin, docker-compose or podman, or set \
         `server.compose_command`",
        tried.join(", ")
    )]
    NoTool {
        /// Each command line and what became of it.
        tried: Vec<String>,
    },
    /// There is no compose file.
    #[error(
        "found no compose file in `{}` (compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml); set `server.compose_file`",
        .0.display()
    )]
    NoFile(PathBuf),
    /// The configured compose file is not there.
    #[error("the compose file `{}` does not exist; correct `server.compose_file`", .0.display())]
    NoSuchFile(PathBuf),
    /// The compose file has no such service.
    #[error(
        "{file} has no service `{wanted}`; it has {}: correct `server.compose_service`",
        list(services)
    )]
    NoService {
        /// The compose file.
        file: String,
        /// The service.
        wanted: String,
        /// The services that there are.
        services: Vec<String>,
    },
    /// The compose file has several services, and none is called `postgres`.
    #[error(
        "{file} has several services, and none is called `postgres`: {}; say with `server.compose_service` which one is PostgreSQL",
        list(services)
    )]
    WhichService {
        /// The compose file.
        file: String,
        /// The services.
        services: Vec<String>,
    },
    /// The tool is there, the engine behind it does not answer.
    #[error(
        "the engine behind `{tool}` does not answer: {message}; start it (Debian: `service docker start`), or correct DOCKER_HOST"
    )]
    Engine {
        /// The command line.
        tool: String,
        /// What it said.
        message: String,
    },
    /// The engine is on another machine.
    #[error(
        "the engine for containers is on another machine, `{0}` (DOCKER_HOST, or docker's current context); if databases may be created \
         and dropped there, set KAPSEL_TESTDB_ALLOW_REMOTE=1, or `allow_remote = true` under `[server]` in \
         `.config/kapsel-testdb.toml` (`kapsel-testdb init --allow-remote` writes it)"
    )]
    RemoteEngine(String),
    /// A command failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A command did not end.
    #[error("`{command}` did not end within {} s", after.as_secs())]
    Slow {
        /// The command line.
        command: String,
        /// How long we waited.
        after: Duration,
    },
    /// The service's port cannot be reached from here.
    #[error(
        "the service `{service}` does not publish its port {port}; in {file}, give it `ports: [\"127.0.0.1::{port}\"]`, or say with \
         `server.compose_port` on which port PostgreSQL listens in the container"
    )]
    NotPublished {
        /// The service.
        service: String,
        /// The container's port.
        port: u16,
        /// The compose file.
        file: String,
    },
    /// The container ended.
    #[error(
        "the container of the service `{service}` does not go on running; mend it in the compose file; its log ends: {logs}"
    )]
    Ended {
        /// The service.
        service: String,
        /// The end of its log.
        logs: String,
    },
    /// The password of the container's environment is not the server's.
    #[error(
        "the service `{service}` refused the user and the password that its own environment names (POSTGRES_USER, POSTGRES_PASSWORD): \
         {message}; a volume keeps what it was initialised with: set that, or remove the volume (`{tool} down -v`)"
    )]
    Login {
        /// The service.
        service: String,
        /// What the server said.
        message: String,
        /// The command line.
        tool: String,
    },
    /// It did not become ready.
    #[error(
        "the service `{service}` at `{address}` was not ready within {} s: {message}; raise `server.start_timeout_secs` if it only needs longer; its log ends: {logs}",
        waited.as_secs()
    )]
    NotReady {
        /// The service.
        service: String,
        /// Where we tried.
        address: String,
        /// How long we waited.
        waited: Duration,
        /// What the last attempt met.
        message: String,
        /// The end of its log.
        logs: String,
    },
    /// The server answers, and does not let us work.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The folder for our notes cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
}

fn list(services: &[String]) -> String {
    match services {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(|s| format!("`{s}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}
