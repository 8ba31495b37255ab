//! One exit code per class of error; `--help` and the README list them.

use std::process::ExitCode;

use crate::cli::init::InitError;
use crate::cli::kept::KeptError;
use crate::config::ConfigError;
use crate::export::ExportError;
use crate::pg::PgError;
use crate::run::RunError;
use crate::run_dir::RunDirError;
use crate::server::ServerError;
use crate::server::compose::ComposeError;
use crate::server::local::LocalError;
use crate::template::TemplateError;
use crate::testing::TestDbError;

/// Something could not be removed; the report says what.
pub const NOT_REMOVED: u8 = 8;

/// A database is not as its template; the report says how.
pub const DIFFERENT: u8 = 9;

/// The exit code of an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(class(error))
}

fn of_run(error: &RunError) -> u8 {
    match error {
        RunError::Server(_) | RunError::Pg(_) | RunError::SharedClone(_) => 4,
        RunError::Template(_) => 5,
        RunError::RunDir(_) | RunError::Keeper(_) => 6,
    }
}

fn class(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<RunError>() {
        return of_run(error);
    }
    if let Some(error) = error.downcast_ref::<TestDbError>() {
        return match error {
            TestDbError::Run(error) => of_run(error),
            TestDbError::Config(_) => 3,
            TestDbError::Pg(_) | TestDbError::Connect { .. } => 4,
            TestDbError::RunDir(_) => 6,
            TestDbError::Background(_) | TestDbError::Fixture(_) => 1,
        };
    }
    let is = |class, found| if found { Some(class) } else { None };
    is(2, error.is::<KeptError>())
        .or(is(3, error.is::<ConfigError>() || error.is::<InitError>()))
        .or(is(
            4,
            error.is::<ServerError>()
                || error.is::<PgError>()
                || error.is::<LocalError>()
                || error.is::<ComposeError>(),
        ))
        .or(is(5, error.is::<TemplateError>()))
        .or(is(6, error.is::<RunDirError>()))
        .or(is(7, error.is::<ExportError>()))
        .unwrap_or(1)
}
