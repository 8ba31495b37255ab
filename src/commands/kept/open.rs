//! `kapsel-testdb kept psql` and `dump`: this process becomes the client program (exec), on the kept database of a test.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::server::{Server, ServerError, ServerKind};

use crate::args::{KeptDump, KeptPsql, KeptTest};
use crate::commands::kept::find::{KeptQuery, find_kept};
use crate::commands::libpq;
use crate::failure::Result;

pub async fn psql(config: &Config, args: &KeptPsql) -> Result<ExitCode> {
    let (server, name) = find(config, &args.test).await?;
    let program = libpq::program("psql", config, &server)?;
    become_client(&program, &server, &name, &args.arguments)
}

pub async fn dump(config: &Config, args: &KeptDump) -> Result<ExitCode> {
    let (server, name) = find(config, &args.test).await?;
    let program = libpq::dump_program(config, &server)?;
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
