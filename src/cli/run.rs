//! `kapsel-testdb run`: a run for any command: prepare → environment → spawn → teardown → the command's exit code.
//!
//! A crash of this process leaves what a crash of nextest leaves: the keeper watches us and ends the run; without one, the sweep.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Run;
use super::error::DIFFERENT;
use super::output::Printer;
use super::pollution;
use super::prepare::test_threads;
use crate::config::{Config, ExportUrl, Origin};
use crate::export::{self, Variables};
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::platform::{self, ProcessId};
use crate::run::locks::Locks;
use crate::run::teardown::{End, Ending, STRAGGLERS};
use crate::run::{self, Identity, OpenRun, clone, spawn};
use crate::run_dir::{RunDir, RunFile, Runtime};

pub async fn run(config: &Config, args: Run, printer: &Printer) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut run = run::open(config, Identity::Command, test_threads(), printer).await?;
    let url = export_url(config);
    if url == ExportUrl::Shared {
        clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
    }
    let keeper = if config.keeper && !args.no_keeper {
        spawn::spawn_keeper(&run, ProcessId::own(), config)?
    } else {
        None
    };
    let variables = export::for_run(&run.dir, &run.file, url);
    let status = command(&args.command, &variables, &mut signals).await;
    let has_keeper = keeper.is_some();
    let (runtime, id) = (run.runtime.clone(), run.file.run.clone());
    end(run, keeper, config.template.keep, printer).await?;
    let polluted = pollution::tell(&runtime, &config.namespace, Some(&id), printer);
    if !has_keeper {
        super::idle::leave_watch(config, printer);
    }
    match status {
        // The command's own failure says more.
        Ok(status) if status.success() && polluted => Ok(ExitCode::from(DIFFERENT)),
        Ok(status) => Ok(exit_code(status)),
        Err(error) => {
            printer.error(&error);
            Ok(ExitCode::from(CANNOT_RUN))
        }
    }
}

/// How often we look whether the keeper listens.
const LOOK: Duration = Duration::from_millis(2);
/// As a shell reports a command that it cannot start.
const CANNOT_RUN: u8 = 127;

/// A command that knows nothing of us needs a database to be led to, so `off` must be said.
fn export_url(config: &Config) -> ExportUrl {
    match config.origins["export.database_url"].1 {
        Origin::Default => ExportUrl::Shared,
        _ => config.export_url,
    }
}

async fn command(
    words: &[OsString],
    variables: &Variables,
    signals: &mut Signals,
) -> Result<ExitStatus> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("there is no command to run; say `kapsel-testdb run -- COMMAND`");
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .spawn()
        .with_context(|| format!("failed to run `{}`", program.display()))?;
    loop {
        tokio::select! {
            status = child.wait() => return status.context("failed to wait for the command"),
            signal = signals.next() => {
                // The terminal has sent its own Ctrl-C to the command already; a second one is a different message.
                let twice = signal == platform::Signal::INT && platform::in_foreground();
                if let Some(pid) = child.id().filter(|_| !twice) {
                    // Gone already: then its status comes next.
                    let _ = platform::signal(pid, signal);
                }
            }
        }
    }
}

/// Ends the run: tells the keeper to, or does it here. A signal from now on means us, not the command.
async fn end(
    run: OpenRun,
    keeper: Option<Child>,
    templates: usize,
    printer: &Printer,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let interrupted = match keeper {
        Some(_) => "interrupted: the keeper ends the run by itself",
        None => "interrupted: the run's end is left to the next sweep",
    };
    let ended = async {
        match keeper {
            Some(keeper) => end_by_keeper(run, keeper, templates).await,
            None => end_here(run.runtime, run.dir, run.file, run.admin, templates).await,
        }
    };
    let ended = tokio::select! {
        ended = ended => ended,
        _ = signals.next() => {
            printer.warn(interrupted);
            return Ok(());
        }
    };
    match ended {
        Ok(true) => {}
        Ok(false) => {
            printer.warn("the run's end is left to the next sweep: a process of it still lives");
        }
        Err(error) => printer.warn(&format!("the run's end is left to the next sweep: {error}")),
    }
    Ok(())
}

async fn end_here(
    runtime: Runtime,
    dir: RunDir,
    file: RunFile,
    admin: Admin,
    templates: usize,
) -> Result<bool> {
    let ending = Ending {
        runtime,
        dir,
        file,
        locks: Locks::on(admin),
        templates,
        hurry: None,
    };
    Ok(ending.run(STRAGGLERS).await? == End::Clean)
}

/// Lets go of the run and tells the keeper, as soon as it listens, that this is the end. A keeper that has died leaves the end to us.
async fn end_by_keeper(run: OpenRun, mut keeper: Child, templates: usize) -> Result<bool> {
    let path = run.dir.path().to_path_buf();
    while run.dir.keeper_pid().is_none() && keeper.try_wait()?.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    drop(run.dir);
    run.admin.close().await;
    // Gone already: its status tells.
    let _ = platform::signal(keeper.id(), platform::Signal::TERM);
    let status = loop {
        match keeper.try_wait()? {
            Some(status) => break status,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    if status.code().is_some() {
        return Ok(status.success());
    }
    let dir = RunDir::join(&path)?;
    let admin = clone::admin(&run.file, "run", Patience::RUNNING).await?;
    end_here(run.runtime, dir, run.file, admin, templates).await
}

/// As a shell reports it: 128 and the signal's number for a command that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Signals that are passed on to the command, so that it decides what they mean.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> platform::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => platform::Signal::INT,
            _ = self.terminate.recv() => platform::Signal::TERM,
            _ = self.hangup.recv() => platform::Signal::HUP,
        }
    }
}
