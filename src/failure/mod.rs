//! Errors of commands, and their exit codes. Documented in docs/COMMANDS.md.

pub mod kept;

use std::process::ExitCode;

use kapsel_testdb_core::config::ConfigError;
use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::platform::Signal;
use kapsel_testdb_core::protocol::{NameError, RunDirError};
use kapsel_testdb_core::run::RunError;
use kapsel_testdb_core::server::ServerError;
use kapsel_testdb_core::server::compose::ComposeError;
use kapsel_testdb_core::server::local::LocalError;
use kapsel_testdb_core::template::TemplateError;

use crate::archive::ArchiveError;
use crate::export::ExportError;
use crate::init::InitError;

pub use self::kept::KeptError;

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Exit code: the server cannot be used.
const SERVER: u8 = 4;

/// Exit code: the template, or a migration of it, cannot be used.
const TEMPLATE: u8 = 5;

/// Exit code: something could not be removed or stopped; the output names it.
pub const NOT_REMOVED: u8 = 8;

/// Exit code: a database differs from its template, or could not be compared with it; the output shows how, or why.
pub const DIFFERENT: u8 = 9;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line names something that does not exist.
    #[error("{0}")]
    Usage(String),
    /// No kept database, or several, match.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A name on the command line breaks the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The workspace cannot be set up.
    #[error(transparent)]
    Init(#[from] InitError),
    /// No usable server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The managed server cannot be used.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The compose service cannot be used.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// A statement or a connection failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The template could not be built or used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// An archive of a template cannot be written or used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The run could not be started or used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The run directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A command that needs a run was called outside a run, or for a database that the run has not leased.
    #[error("{0}")]
    NotInRun(String),
    /// The variables cannot be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A signal ended the command.
    #[error("interrupted by {}; the next run, or `kapsel-testdb sweep`, removes what is left on the server", signal_name(*.0))]
    Interrupted(Signal),
    /// Any other error.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
    /// An operating system call failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A value could not be serialized as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Failure {
    /// The exit code of the command.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// Whether the server or the template is not usable, so that only tests which need a database have to fail.
    pub fn concerns_databases(&self) -> bool {
        matches!(self.code(), SERVER | TEMPLATE)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Kept(_) | Self::Name(_) => 2,
            Self::Config(_) | Self::Init(_) => 3,
            Self::Server(_) | Self::Local(_) | Self::Compose(_) | Self::Pg(_) => SERVER,
            Self::Template(_) | Self::Archive(_) => TEMPLATE,
            Self::RunDir(_) | Self::NotInRun(_) => 6,
            Self::Run(error) => match error {
                RunError::Server(_) | RunError::Pg(_) | RunError::SharedClone(_) => SERVER,
                RunError::Template(_) => TEMPLATE,
                RunError::RunDir(_) | RunError::FencedOff(_) | RunError::Keeper(_) => 6,
            },
            Self::Export(_) => 7,
            Self::Interrupted(signal) => signal_number(*signal),
            Self::Other(_) | Self::Io(_) | Self::Json(_) => 1,
        }
    }
}

/// The exit code of a command that a signal ended, as shells report it.
pub fn signal_code(signal: Signal) -> ExitCode {
    ExitCode::from(signal_number(signal))
}

fn signal_number(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

fn signal_name(signal: Signal) -> String {
    match signal {
        Signal::INT => "SIGINT".to_owned(),
        Signal::TERM => "SIGTERM".to_owned(),
        Signal::HUP => "SIGHUP".to_owned(),
        other => format!("signal {}", other.as_raw()),
    }
}
