//! Why the managed server cannot be had.

use std::io;
use std::path::{Path, PathBuf};

use super::SOCKET_PATH_MAX;

/// Why the managed server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There are no binaries.
    #[error(
        "found no PostgreSQL server binaries (`initdb`, `postgres`); looked in {}; install PostgreSQL (Debian: `apt-get install postgresql`, \
         macOS: `brew install postgresql`), set `server.bin_dir`, or set DATABASE_URL to a running server",
        looked_in.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", ")
    )]
    NoBinaries {
        /// Where.
        looked_in: Vec<PathBuf>,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to be.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `{0}` to run it as; set `server.run_as` to an existing user"
    )]
    NoUser(String),
    /// The operating system refused.
    #[error("failed to {doing} `{}`: {source}", path.display())]
    Io {
        /// As in "failed to …".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else's folder is in the place of ours.
    #[error(
        "`{}` is not a private folder of the server's user ({why}); remove it, or set `server.state_dir` to another place",
        path.display()
    )]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The socket's path is too long.
    #[error(
        "the path of the socket, `{}`, is longer than the {SOCKET_PATH_MAX} bytes that a unix socket may have; set `server.state_dir` to a shorter one",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// initdb failed.
    #[error(
        "`initdb` failed ({status}): {output}; mend that, or set `server.bin_dir` to another installation"
    )]
    InitDb {
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server did not come up.
    #[error("the managed server did not start: {reason}; its log, `{}`, ends: {tail}; {remedy}", log.display())]
    Start {
        /// It ended, or time ran out.
        reason: String,
        /// The log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
        /// What to do.
        remedy: String,
    },
    /// It did not end.
    #[error("the managed server did not stop: {0}")]
    Stop(String),
}

pub(super) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, LocalError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, LocalError> {
        self.map_err(|source| LocalError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        })
    }
}
