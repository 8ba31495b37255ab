//! `kapsel-testdb kept psql` and `dump`: this process becomes the client program (exec), on the kept database of a test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::server::local::Local;
use kapsel_testdb_core::server::{Server, ServerError, ServerKind, binaries};

use crate::args::{KeptDump, KeptPsql, KeptTest};
use crate::commands::kept::find::{KeptQuery, find_kept};
use crate::commands::libpq;
use crate::failure::Result;

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
        return Err(anyhow::anyhow!(
            "`{}` has version {major} and cannot dump the server, which has version {version}; install PostgreSQL's client programs \
             of that version, or set `server.bin_dir`",
            program.display()
        )
        .into());
    }
    let mut arguments = args.arguments.clone();
    if let Some(file) = &args.output {
        arguments.extend([OsString::from("--file"), file.into()]);
    }
    become_client(&program, &server, &name, &arguments)
}

/// Bypasses a pooler, which would keep sessions open on the database.
fn become_client(
    program: &Path,
    server: &Server,
    name: &DbName,
    arguments: &[OsString],
) -> Result<ExitCode> {
    libpq::become_client(program, &server.admin_address, &name.to_string(), arguments)
}

async fn find(config: &Config, test: &KeptTest) -> Result<(Server, DbName)> {
    let Some((server, admin, kept)) = find_kept(config).await? else {
        return Err(ServerError::NotRunning(ServerKind::of(&config.server)).into());
    };
    admin.close().await;
    let query = KeptQuery {
        namespace: &config.namespace,
        name: &test.test,
        attempt: test.attempt,
    };
    Ok((server, query.one(&kept)?.row.name.clone()))
}

/// A client program; for a managed server, the one of its version.
fn program(name: &str, config: &Config, server: &Server) -> Result<PathBuf> {
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
