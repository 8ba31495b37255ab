//! `kapsel-testdb kept psql` and `dump`: this process becomes the program, on the database of the test that was named.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use super::find::{Wanted, look};
use crate::cli::args::{KeptDump, KeptPsql, KeptTest};
use crate::cli::libpq;
use crate::config::Config;
use crate::name::DbName;
use crate::server::local::Local;
use crate::server::{Server, ServerError, ServerKind, binaries};

pub async fn psql(config: &Config, args: &KeptPsql) -> Result<ExitCode> {
    let (server, name) = find(config, &args.test).await?;
    let program = program("psql", config, &server)?;
    become_client(&program, &server, &name, &args.arguments)
}

pub async fn dump(config: &Config, args: &KeptDump) -> Result<ExitCode> {
    let (server, name) = find(config, &args.test).await?;
    let program = program("pg_dump", config, &server)?;
    if let Some(major) = major(&program)
        && major < server.facts.major()
    {
        let version = server.facts.version();
        bail!(
            "`{}` is of version {major}, and dumps no newer server; this one is {version}: install PostgreSQL's client programs \
             of that version, or set `server.bin_dir`",
            program.display()
        );
    }
    let mut arguments = args.arguments.clone();
    if let Some(file) = &args.output {
        arguments.extend([OsString::from("--file"), file.into()]);
    }
    become_client(&program, &server, &name, &arguments)
}

/// Past a pooler, which would go on holding sessions on the database.
fn become_client(
    program: &Path,
    server: &Server,
    name: &DbName,
    arguments: &[OsString],
) -> Result<ExitCode> {
    libpq::become_client(program, &server.admin_address, &name.to_string(), arguments)
}

async fn find(config: &Config, test: &KeptTest) -> Result<(Server, DbName)> {
    let Some((server, admin, kept)) = look(config).await? else {
        return Err(ServerError::NotRunning(ServerKind::of(&config.server)).into());
    };
    admin.close().await;
    let wanted = Wanted {
        namespace: &config.namespace,
        name: &test.test,
        attempt: test.attempt,
    };
    Ok((server, wanted.one(&kept)?.row.name.clone()))
}

/// A client program, that of the managed server's own version where it is ours.
fn program(name: &str, config: &Config, server: &Server) -> Result<PathBuf> {
    let settings = &config.server;
    Ok(match server.kind {
        ServerKind::Local => binaries::client(name, Some(&Local::open(settings)?.binaries().dir)),
        ServerKind::Adopted | ServerKind::Compose => {
            binaries::client(name, settings.bin_dir.as_deref())
        }
    })
}

/// A program's major version; `None` where it does not say, or is not there.
fn major(program: &Path) -> Option<i32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(text: &str) -> Option<i32> {
    let version = text.split_once(") ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
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
