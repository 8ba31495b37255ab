//! `kapsel-testdb acquire` and `release`: a lease for scripts and other languages.
//!
//! A lease lives as long as a process holds its entry's flock. `acquire` leaves that to a small holder process, which ends with the
//! release, or with the process that called `acquire`, whose end gives the database back. A crash of the holder is the death of a
//! claimant: the keeper keeps the database as a failed test's.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::args::{Acquire, Hold, Release};
use super::output::Printer;
use crate::connections::Place;
use crate::name::DbName;
use crate::pg::connect::Patience;
use crate::platform::{self, DirWatch, ProcessId, ProcessWatch};
use crate::run::{clone, kept};
use crate::run_dir::{Claimant, Folder, RunDir};
use crate::testing::{from_nextest, join_run, lease_for_other_process};
use crate::{env, export};

/// How often the holder looks even if nobody tells it anything.
const LOOK: Duration = Duration::from_secs(1);

pub async fn acquire(args: Acquire, printer: &Printer) -> Result<ExitCode> {
    let dir = run_dir()?;
    let owner = match args.pid {
        Some(pid) => ProcessId::of(pid).with_context(|| format!("there is no process {pid}"))?,
        None => ProcessId::parent().context("the process that called has ended")?,
    };
    let claimant = match &args.name {
        Some(name) => Some(Claimant::named(name)),
        None => from_nextest(),
    };
    let lease = lease_for_other_process(&dir, args.connections, claimant).await?;
    let (claim, file) = (lease.claim, lease.file);
    let entry = claim.file();
    let tokens = lease.place.and_then(Place::hand_over);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("hold")
        .arg("--dir")
        .arg(&dir)
        .args(["--name", &claim.name.to_string()])
        .args(["--entry-fd", &entry.as_raw_fd().to_string()])
        .args(["--watch", &owner.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut inherited = vec![entry.as_raw_fd()];
    if let Some(tokens) = &tokens {
        command.args(["--tokens-fd", &tokens.as_raw_fd().to_string()]);
        inherited.push(tokens.as_raw_fd());
    }
    platform::detach(&mut command, &inherited);
    command
        .spawn()
        .context("failed to start the holder of the lease")?;
    let mut variables = export::for_database(&file.server, &claim.name.to_string());
    if file.server.password.is_some() {
        let passfile = dir.join("pgpass").to_string_lossy().into_owned();
        variables.push(("PGPASSFILE".to_owned(), passfile));
    }
    printer.data(&export::format(&variables, args.format.into())?);
    Ok(ExitCode::SUCCESS)
}

pub async fn release(args: &Release) -> Result<ExitCode> {
    let name: DbName = args.database.parse()?;
    let dir = RunDir::join(&run_dir()?)?;
    let to = if args.failed {
        Folder::Failed
    } else {
        Folder::Released
    };
    if !dir.move_leased(&name, to) {
        bail!(
            "`{name}` is not leased in this run; `acquire` prints the name in DATABASE_URL and PGDATABASE"
        );
    }
    if !dir.has_keeper() {
        let file = dir.read()?;
        let mut admin = clone::admin(&file, "release", Patience::RUNNING).await?;
        if args.failed {
            kept::preserve(&mut admin, dir.entries(), &name).await?;
            kept::bound(&mut admin, &file.namespace, file.keep).await?;
        } else {
            clone::drop_released(&mut admin, &dir, &file, &name).await?;
        }
        admin.close().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lives as long as the lease.
pub async fn hold(args: Hold) -> Result<ExitCode> {
    let _entry = platform::inherit(args.entry_fd)?;
    let _tokens = args.tokens_fd.map(platform::inherit).transpose()?;
    let run = join_run(&args.dir)?;
    let dir = run.dir();
    let name: DbName = args.name.parse()?;
    let leased = args.dir.join(Folder::Leased.as_str());
    let changes = DirWatch::open(&[leased.as_path()]);
    let owner = ProcessWatch::open(&args.watch);
    while dir.list(Folder::Leased).contains(&name) {
        tokio::select! {
            () = ended(owner.as_ref()) => {
                // How it ended is not known: who wants the database kept says so.
                dir.move_leased(&name, Folder::Released);
            }
            () = changes.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ended(owner: Option<&ProcessWatch>) {
    if let Some(owner) = owner {
        owner.ended().await;
    }
}

fn run_dir() -> Result<PathBuf> {
    let path = std::env::var_os(env::RUN_DIR).filter(|v| !v.is_empty());
    path.map(PathBuf::from).with_context(|| {
        format!(
            "there is no run: {} is not set; call this from a test under nextest, or from `kapsel-testdb run -- COMMAND`",
            env::RUN_DIR
        )
    })
}
