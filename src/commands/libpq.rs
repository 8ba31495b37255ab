//! PostgreSQL's own clients. Connection parameters are passed in the environment, because every user of the machine can read a command line.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::platform;
use kapsel_testdb_core::protocol::Runtime;
use kapsel_testdb_core::server::local::Local;
use kapsel_testdb_core::server::{Server, ServerKind, binaries};

use crate::failure::{Failure, Result};

/// Variables that would make libpq connect elsewhere.
const REMOVED_VARIABLES: &[&str] = &["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"];

/// A client program; for a managed server, the one of its version.
pub fn program(name: &str, config: &Config, server: &Server) -> Result<PathBuf> {
    let settings = &config.server;
    Ok(match server.kind {
        ServerKind::Local => {
            binaries::client_program(name, Some(&Local::open(settings)?.binaries().dir))
        }
        ServerKind::Adopted | ServerKind::Compose => {
            binaries::client_program(name, settings.bin_dir.as_deref())
        }
    })
}

/// pg_dump, which must not be older than the server.
pub fn dump_program(config: &Config, server: &Server) -> Result<PathBuf> {
    let program = program("pg_dump", config, server)?;
    if let Some(major) = major(&program)
        && major < server.facts.major()
    {
        let version = server.facts.version();
        return Err(anyhow::anyhow!(
            "`{}` has version {major} and cannot dump the server, which has version {version}; install PostgreSQL's client programs \
             of that version, or set `server.bin_dir`",
            program.display()
        )
        .into());
    }
    Ok(program)
}

/// A program's major version; `None` if it is missing or prints none.
fn major(program: &Path) -> Option<i32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(text: &str) -> Option<i32> {
    let version = text.split_once(") ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A client of a database, and the passfile that must stay open until it has started.
pub fn client<T: AsRef<OsStr>>(
    program: &Path,
    address: &Address,
    database: &str,
    arguments: &[T],
) -> Result<(Command, Option<File>)> {
    let mut command = Command::new(program);
    command.args(arguments);
    for name in REMOVED_VARIABLES {
        command.env_remove(name);
    }
    command.envs(address.libpq_variables(database));
    // It has no name, so no other process can find it and it needs no removal.
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
    Ok((command, passfile))
}

/// Becomes a client of a database (exec); returns only on error.
pub fn become_client<T: AsRef<OsStr>>(
    program: &Path,
    address: &Address,
    database: &str,
    arguments: &[T],
) -> Result<ExitCode> {
    let (mut command, _passfile) = client(program, address, database, arguments)?;
    Err(not_started(program, command.exec()))
}

/// The error for a client that could not be started.
pub fn not_started(program: &Path, error: std::io::Error) -> Failure {
    let error = anyhow::Error::new(error).context(format!(
        "failed to run `{}`; install PostgreSQL's client programs, or set `server.bin_dir`",
        program.display()
    ));
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_major_version_is_read_as_distributions_print_it() {
        let debian = "pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(parse_major(debian), Some(15));
        assert_eq!(parse_major("pg_dump (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(parse_major("psql"), None);
    }
}
