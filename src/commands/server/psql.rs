//! `kapsel-testdb server psql`: becomes `psql` (exec); for a managed server, the one of its version.

use std::ffi::OsString;
use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::{ServerError, ServerKind, binaries};

use crate::commands::libpq;
use crate::commands::server::Subject;
use crate::failure::Result;

pub fn run(config: &Config, subject: &Subject<'_>, arguments: &[OsString]) -> Result<ExitCode> {
    let settings = &config.server;
    let (program, address, database) = match subject {
        Subject::Local(local) if !local.runs() => {
            return Err(ServerError::NotRunning(ServerKind::Local).into());
        }
        Subject::Local(local) => {
            let bin_dir = Some(local.binaries().dir.as_path());
            (
                binaries::client_program("psql", bin_dir),
                local.address(),
                None,
            )
        }
        Subject::Service(running) => {
            let Some(running) = running.as_ref() else {
                return Err(ServerError::NotRunning(ServerKind::Compose).into());
            };
            let program = binaries::client_program("psql", settings.bin_dir.as_deref());
            (program, running.address.clone(), None)
        }
        Subject::Adopted(address) => {
            let named = settings.adopted.as_ref().and_then(|(_, name)| name.clone());
            let program = binaries::client_program("psql", settings.bin_dir.as_deref());
            (program, (*address).clone(), named)
        }
    };
    let database = database.unwrap_or_else(|| settings.maintenance_database.clone());
    libpq::become_client(&program, &address, &database, arguments)
}
