//! PostgreSQL's own clients: this process becomes one, with everything that leads to the server in its environment: a command line
//! can be seen by everybody on the machine.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::name::random_word;
use crate::pg::Address;
use crate::platform;
use crate::run_dir::Runtime;

/// What would lead libpq elsewhere.
const MISLEADING: &[&str] = &["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"];

/// Becomes a client of a database; comes back only with an error.
pub fn become_client<T: AsRef<OsStr>>(
    program: &Path,
    address: &Address,
    database: &str,
    arguments: &[T],
) -> Result<ExitCode> {
    let mut command = Command::new(program);
    command.args(arguments);
    for name in MISLEADING {
        command.env_remove(name);
    }
    command.envs(address.libpq_variables(database));
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
