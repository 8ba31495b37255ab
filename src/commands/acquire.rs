//! `kapsel-testdb acquire` and `release`: a lease for scripts and other languages.
//!
//! A lease lives as long as a process holds its entry's flock. `acquire` starts a small holder process for that. The holder exits after the
//! release. It also releases the database when the process that called `acquire` exits. A crash of the holder is the death of a claimant:
//! the keeper preserves the database like that of a failed test.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use kapsel_testdb_core::connections::{self, Notice};
use kapsel_testdb_core::env;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::platform::{self, DirWatch, ProcessId, ProcessWatch};
use kapsel_testdb_core::protocol::{
    Claimant, DbName, Entries, EntryState, Ledger, QueueEntry, RunDir, RunDirError, RunFile, RunId,
};
use kapsel_testdb_core::run::lease::{self, KEEPER_CHECK_INTERVAL};
use kapsel_testdb_core::run::renew::Means;
use kapsel_testdb_core::run::templates::TemplateRun;
use kapsel_testdb_core::run::{clone, kept, renew};

use crate::args::{Acquire, Hold, Release};
use crate::export;
use crate::failure::{Failure, Result};
use crate::printer::Printer;

/// How often the holder checks without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub async fn acquire(args: Acquire, printer: &Printer) -> Result<ExitCode> {
    let path = run_dir(args.template.as_deref())?;
    let owner = match args.pid {
        Some(pid) => ProcessId::of(pid)
            .ok_or_else(|| Failure::Usage(format!("no process has the id `{pid}`; check `--pid`")))?,
        None => ProcessId::caller().context("failed to find the calling process, which may have exited; give the owner with `--pid`")?,
    };
    let claimant = match &args.name {
        Some(name) => Some(Claimant::named(name)),
        None => Claimant::from_nextest(),
    };
    let dir = RunDir::join(&path)?;
    let file = dir.read()?;
    let slots = enqueue(&dir, &file, args.connections, printer).await?;
    let claim = match dir.claim() {
        Some(claim) => claim.with_claimant(claimant),
        None => lease::lease_new_clone(&dir, &file, "acquire", claimant).await?,
    };
    let entry = claim.file();
    let slots = slots.and_then(QueueEntry::into_file);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("hold")
        .arg("--dir")
        .arg(&path)
        .args(["--name", &claim.name.to_string()])
        .args(["--entry-fd", &entry.as_raw_fd().to_string()])
        .args(["--watch", &owner.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut inherited = vec![entry.as_raw_fd()];
    if let Some(slots) = &slots {
        command.args(["--slots-fd", &slots.as_raw_fd().to_string()]);
        inherited.push(slots.as_raw_fd());
    }
    platform::detach(&mut command, &inherited);
    command
        .spawn()
        .context("failed to start the lease holder")?;
    let mut variables = export::for_database(&file.server, &claim.name.to_string());
    if file.server.password.is_some() {
        let passfile = dir.passfile().to_string_lossy().into_owned();
        variables.push(("PGPASSFILE".to_owned(), passfile));
    }
    printer.data(&export::format(&variables, args.format.into())?);
    Ok(ExitCode::SUCCESS)
}

pub async fn release(args: &Release) -> Result<ExitCode> {
    let name: DbName = args.database.parse()?;
    let dir = RunDir::join(&run_dir_of(&name)?)?;
    let to = if args.failed {
        EntryState::Failed
    } else {
        EntryState::Released
    };
    if !dir.move_leased(&name, to) {
        return Err(Failure::NotInRun(format!(
            "the database `{name}` is not leased in this run; use the name that `acquire` printed as PGDATABASE"
        )));
    }
    if !dir.has_keeper() {
        let file = dir.read()?;
        let mut admin = clone::admin(&file, "release", RetryLimits::RUNNING).await?;
        if args.failed {
            kept::preserve(&mut admin, dir.entries(), &name, Some(file.keep)).await?;
            kept::enforce_limits(&mut admin, &file.namespace, file.keep).await?;
        } else {
            renew::settle(&mut admin, &dir, &file, &name, Means::ALL).await?;
        }
        admin.close().await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Holds the lease until it ends.
pub async fn hold(args: Hold) -> Result<ExitCode> {
    let _entry = platform::inherit(args.entry_fd)?;
    let _slots = args.slots_fd.map(platform::inherit).transpose()?;
    let name: DbName = args.name.parse()?;
    let dir = match RunDir::join(&args.dir) {
        Err(RunDirError::Gone { .. }) => {
            // The run ended before the holder began, so no process uses the database. An entry without `flock` would count as that of a test that died.
            let entries = Entries::of(&args.dir);
            entries.move_entry(&name, EntryState::Leased, EntryState::Released);
            return Ok(ExitCode::SUCCESS);
        }
        joined => joined?,
    };
    let file = dir.read()?;
    let leased = dir.entries_dir(EntryState::Leased);
    let changes = DirWatch::open(&[leased.as_path()]);
    let owner = ProcessWatch::open(&args.watch);
    let mut run_lock = None;
    let mut checked = Instant::now();
    while dir.list(EntryState::Leased).contains(&name) {
        tokio::select! {
            () = ended(owner.as_ref()) => {
                // Its outcome is unknown; `release --failed` is the way to keep the database.
                dir.move_leased(&name, EntryState::Released);
            }
            () = changes.changed() => {}
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        if checked.elapsed() > KEEPER_CHECK_INTERVAL {
            checked = Instant::now();
            if !dir.has_keeper()
                && let Err(error) = lease::hold_run_lock(&mut run_lock, &file, "acquire").await
            {
                tracing::warn!("the run has no keeper, and taking the run lock failed: {error}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the lease's connection slots, unless the run has reserved them.
async fn enqueue(
    dir: &RunDir,
    file: &RunFile,
    declared: Option<u32>,
    printer: &Printer,
) -> Result<Option<QueueEntry>> {
    let expected = env::test_slot().is_none_or(|slot| slot < file.threads);
    let missing =
        connections::slots_to_request(file.connections, declared, expected, dir.has_keeper());
    if missing == 0 {
        return Ok(None);
    }
    let ledger = Ledger::open(dir.runtime(), file.admin_address())?;
    let notify = |notice: Notice<'_>| printer.line(&notice.to_string());
    Ok(Some(
        connections::wait(&ledger, |_, _| missing, notify).await?,
    ))
}

async fn ended(owner: Option<&ProcessWatch>) {
    if let Some(owner) = owner {
        owner.ended().await;
    }
}

/// The run of the template of that name; without a name, of the template that has the package in its list, else of the first one.
fn run_dir(template: Option<&str>) -> Result<PathBuf> {
    if let Some(error) = env::setup_error() {
        return Err(Failure::NotInRun(error));
    }
    let Some(first) = std::env::var_os(env::RUN_DIR).filter(|v| !v.is_empty()) else {
        return Err(Failure::NotInRun(format!(
            "no current run: {} is not set; call this from a test under nextest, or from `kapsel-testdb run -- COMMAND`",
            env::RUN_DIR
        )));
    };
    let runs = TemplateRun::exported()?;
    let package = std::env::var(env::PACKAGE_NAME).ok();
    let chosen = TemplateRun::choose(&runs, template, package.as_deref())?;
    Ok(chosen.map_or_else(|| first.into(), |run| run.run_dir.clone()))
}

/// The run that a database belongs to.
fn run_dir_of(database: &DbName) -> Result<PathBuf> {
    let first = run_dir(None)?;
    let run = database.run().map(RunId::as_str);
    let is_its = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()) == run;
    let mut dirs = TemplateRun::exported()?.into_iter().map(|run| run.run_dir);
    Ok(dirs.find(is_its).unwrap_or(first))
}
