//! Why the managed server could not be started or stopped.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::RunDirError;
use crate::server::local::SOCKET_PATH_MAX;

/// Why the managed server could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No binaries were found.
    #[error(
        "found no PostgreSQL server binaries (`initdb`, `postgres`); searched {}; install PostgreSQL (Debian: `apt-get install postgresql`, \
         macOS: `brew install postgresql`), set `server.bin_dir`, or set DATABASE_URL to a running server",
        searched.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", ")
    )]
    NoBinaries {
        /// The searched directories.
        searched: Vec<PathBuf>,
    },
    /// There are binaries, but none of the configured version.
    #[error(
        "found no PostgreSQL {version} (`server.version`) on this machine, only {}; install it (Debian: `apt-get install postgresql-{version}`, \
         macOS: `brew install postgresql@{version}`), or change `server.version`",
        others.iter().map(|(major, dir)| format!("{major} in `{}`", dir.display())).collect::<Vec<_>>().join(", ")
    )]
    NoVersion {
        /// The major version.
        version: u32,
        /// The versions that were found, with their directories.
        others: BTreeSet<(String, PathBuf)>,
    },
    /// We are root, as which PostgreSQL does not run, and the configured user does not exist.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `{0}` to run it as; set `server.run_as` to an existing user"
    )]
    NoUser(String),
    /// A system call failed.
    #[error("failed to {context} `{}`: {source}", path.display())]
    Io {
        /// Completes "failed to …".
        context: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A directory is not private.
    #[error(
        "`{}` is not a private directory of the server's user ({why}); remove it, or set `server.state_dir` to another directory",
        path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// Root runs the server as a user who may not enter a directory.
    #[error(
        "root runs the managed server as `{user}`, who may not enter `{}` (mode {mode:o}), but `{}` is there; set `{setting}` to a directory that \
         this user may enter, or run `chmod o+x {}`",
        directory.display(), path.display(), directory.display()
    )]
    Closed {
        /// The server's user.
        user: String,
        /// The directory.
        directory: PathBuf,
        /// Its mode.
        mode: u32,
        /// What is below it, or the directory itself.
        path: PathBuf,
        /// The setting that names another place.
        setting: &'static str,
    },
    /// Another user could replace a directory.
    #[error(transparent)]
    Replaceable(RunDirError),
    /// The socket's path is too long.
    #[error(
        "the socket path `{}` is longer than the {SOCKET_PATH_MAX} bytes that a unix socket allows; set `server.state_dir` to a shorter path",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// initdb failed.
    #[error(
        "`initdb` failed ({status}): {output}; fix the cause, or set `server.bin_dir` to another installation"
    )]
    InitDb {
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server did not start because of a setting of the configuration.
    #[error(
        "the managed server does not start with `server.settings.{name}`: {message}; correct or remove that key (the log is `{}`)",
        log.display()
    )]
    Setting {
        /// The setting.
        name: String,
        /// The server's message.
        message: String,
        /// The log file.
        log: PathBuf,
    },
    /// The server did not start.
    #[error("the managed server did not start: {reason}; the last lines of its log `{}`: {tail}; {remedy}", log.display())]
    Start {
        /// The reason.
        reason: String,
        /// The log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
        /// The remedy.
        remedy: String,
    },
    /// The server did not stop.
    #[error("the managed server did not stop: {0}")]
    Stop(String),
}

/// Adds an action and a path to an I/O error.
pub(super) trait PathContext<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, LocalError>;
}

impl<T> PathContext<T> for io::Result<T> {
    fn at(self, context: &'static str, path: &Path) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io {
            context,
            path: path.to_path_buf(),
            source,
        })
    }
}
