//! PostgreSQL's own clients: this process becomes one (exec). Connection parameters are passed in the environment, because every user of
//! the machine can read a command line.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::platform;
use kapsel_testdb_core::protocol::Runtime;

use crate::failure::Result;

/// Variables that would make libpq connect elsewhere.
const REMOVED_VARIABLES: &[&str] = &["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"];

/// Becomes a client of a database; returns only on error.
pub fn become_client<T: AsRef<OsStr>>(
    program: &Path,
    address: &Address,
    database: &str,
    arguments: &[T],
) -> Result<ExitCode> {
    let mut command = Command::new(program);
    command.args(arguments);
    for name in REMOVED_VARIABLES {
        command.env_remove(name);
    }
    command.envs(address.libpq_variables(database));
    // Stays open until the client exits. It has no name, so no other process can find it and it needs no removal.
    let passfile = match address.passfile_lines() {
        Some(lines) => Some(Runtime::open()?.unlinked_passfile(&lines)?),
        None => None,
    };
    if let Some(file) = &passfile {
        let descriptor = file.as_raw_fd();
        platform::keep_on_exec(file).context("failed to pass the passfile to the client")?;
        command.env_remove("PGPASSWORD");
        command.env("PGPASSFILE", format!("/dev/fd/{descriptor}"));
    }
    let error = anyhow::Error::new(command.exec()).context(format!(
        "failed to run `{}`; install PostgreSQL's client programs, or set `server.bin_dir`",
        program.display()
    ));
    Err(error.into())
}
