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
use super::output::Printer;
use super::prepare::test_threads;
use crate::config::{Config, ExportUrl, Origin};
use crate::export::{self, Variables};
use crate::platform::{self, ProcessId};
use crate::run::keeper::STRAGGLERS;
use crate::run::teardown::{End, Ending};
use crate::run::{self, Identity, OpenRun, clone, spawn};

pub async fn run(config: &Config, args: Run, printer: &Printer) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut run = run::open(config, Identity::Process, test_threads(), printer).await?;
    let url = export_url(config);
    if url == ExportUrl::Shared {
        clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
    }
    let keeper = if config.keeper && !args.no_keeper {
        spawn::spawn_keeper(&run, ProcessId::own(), config.template.keep)?
    } else {
        None
    };
    let variables = export::for_run(&run.dir, &run.file, url);
    let status = command(&args.command, &variables, &mut signals).await;
    end(run, keeper, config.template.keep, printer).await;
    match status {
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
                if let Some(pid) = child.id() {
                    // Gone already: then its status comes next.
                    let _ = platform::signal(pid, signal);
                }
            }
        }
    }
}

/// Ends the run: tells the keeper to, or does it here.
async fn end(run: OpenRun, keeper: Option<Child>, templates: usize, printer: &Printer) {
    let ended = match keeper {
        Some(keeper) => end_by_keeper(run, keeper).await,
        None => {
            let ending = Ending {
                runtime: run.runtime,
                dir: run.dir,
                file: run.file,
                admin: run.admin,
                templates,
            };
            let end = ending.run(STRAGGLERS).await;
            end.map(|end| end == End::Clean)
                .map_err(anyhow::Error::from)
        }
    };
    match ended {
        Ok(true) => {}
        Ok(false) => {
            printer.warn("the run's end is left to the next sweep: a process of it still lives")
        }
        Err(error) => printer.warn(&format!("the run's end is left to the next sweep: {error}")),
    }
}

/// Lets go of the run and tells the keeper, as soon as it listens, that this is the end.
async fn end_by_keeper(run: OpenRun, mut keeper: Child) -> Result<bool> {
    while run.dir.keeper_pid().is_none() && keeper.try_wait()?.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    drop(run.dir);
    run.admin.close().await;
    platform::signal(keeper.id(), platform::Signal::TERM)?;
    Ok(keeper.wait()?.success())
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
