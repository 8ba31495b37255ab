//! `kapsel-testdb server psql`: becomes the `psql` of the server's own version, with everything that leads to the server in its
//! environment: a command line can be seen by everybody on the machine.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::{Subject, service};
use crate::config::Config;
use crate::name::random_word;
use crate::platform;
use crate::run_dir::Runtime;
use crate::server::binaries;
use crate::server::local::LocalError;

/// What would lead libpq elsewhere.
const MISLEADING: &[&str] = &["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"];

pub fn run(config: &Config, subject: &Subject<'_>, arguments: &[OsString]) -> Result<ExitCode> {
    let settings = &config.server;
    let (program, address, database) = match subject {
        Subject::Local(local) if !local.runs() => return Err(LocalError::NotRunning.into()),
        Subject::Local(local) => {
            let bin_dir = Some(local.binaries().dir.as_path());
            (binaries::psql(bin_dir), local.address(), None)
        }
        Subject::Service(running) => {
            let Some(running) = running.as_ref() else {
                bail!(service::NOT_RUNNING);
            };
            let program = binaries::psql(settings.bin_dir.as_deref());
            (program, running.address.clone(), None)
        }
        Subject::Adopted(address) => {
            let named = settings.adopted.as_ref().and_then(|(_, name)| name.clone());
            let program = binaries::psql(settings.bin_dir.as_deref());
            (program, (*address).clone(), named)
        }
    };
    let database = database.unwrap_or_else(|| settings.maintenance_database.clone());
    let mut command = Command::new(&program);
    command.args(arguments);
    for name in MISLEADING {
        command.env_remove(name);
    }
    command.envs(address.libpq_variables(&database));
    // Open until psql ends: it has no name that somebody could find, or that would have to be removed.
    let passfile = address
        .passfile_line()
        .map(|line| nameless(&line))
        .transpose()?;
    if let Some(file) = &passfile {
        let descriptor = file.as_raw_fd();
        platform::keep_on_exec(file).context("failed to pass the passfile on")?;
        command.env_remove("PGPASSWORD");
        command.env("PGPASSFILE", format!("/dev/fd/{descriptor}"));
    }
    Err(command.exec()).with_context(|| {
        format!(
            "failed to run `{}`; install PostgreSQL's client programs, or set `server.bin_dir`",
            program.display()
        )
    })
}

/// A private file without a name that holds this text.
fn nameless(text: &str) -> Result<File> {
    let path = Runtime::open()?
        .path()
        .join(format!("pgpass.{}.tmp", random_word()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let doing = || format!("failed to write `{}`", path.display());
    let mut file = options.open(&path).with_context(doing)?;
    fs::remove_file(&path).with_context(doing)?;
    file.write_all(text.as_bytes()).with_context(doing)?;
    file.seek(SeekFrom::Start(0)).with_context(doing)?;
    Ok(file)
}
