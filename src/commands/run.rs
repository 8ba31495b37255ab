//! `kapsel-testdb run`: runs any command in a run: prepare → environment → spawn → teardown → the command's exit code.
//!
//! After a crash of this process, the keeper ends the run, as after a crash of nextest; without a keeper, the next sweep does.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use tokio::time::MissedTickBehavior;

use kapsel_testdb_core::config::{Config, ExportUrl, Origin};
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::platform::{self, ProcessId};
use kapsel_testdb_core::protocol::{RunDir, RunFile, Runtime};
use kapsel_testdb_core::run::spares::Legacy;
use kapsel_testdb_core::run::{self, Identity, OpenRun, clone};
use kapsel_testdb_core::waiting::waiting;

use crate::args::Run;
use crate::commands::changes::{self, Changes};
use crate::commands::interrupt::{Signals, interruptible};
use crate::commands::pollution;
use crate::commands::prepare::{adopt_spares, test_threads};
use crate::export::{self, Variables};
use crate::failure::{DIFFERENT, Failure, Result};
use crate::keeper::locks::Locks;
use crate::keeper::spawn;
use crate::keeper::teardown::{TERMINATE_TIMEOUT, Teardown, TeardownOutcome};
use crate::printer::Printer;

pub async fn run(config: &Config, args: Run, printer: &Printer) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let url = export_url(config);
    let configs = config.per_template();
    let opening = open(&configs, url, printer);
    let (runs, demands) = interruptible(config, &mut signals, printer, opening).await?;
    let has_keeper = config.keeper && !args.no_keeper;
    let mut keepers = Vec::new();
    for ((run, demand), config) in runs.iter().zip(demands).zip(&configs) {
        keepers.push(match has_keeper {
            true => spawn::spawn_keeper(run, ProcessId::current(), config, demand)?,
            false => None,
        });
    }
    let variables = export::for_runs(config, &runs, url)?;
    let mut changes = Vec::new();
    for (run, config) in runs.iter().zip(&configs) {
        changes.push(Changes::since_start_of(run, config).await);
    }
    let status = command(&args.command, &variables, &mut signals, changes, printer).await;
    let mut polluted = false;
    for (run, keeper) in runs.into_iter().zip(keepers) {
        let (runtime, id) = (run.runtime.clone(), run.file.run.clone());
        end(run, keeper, config.template.keep, printer).await?;
        polluted |= pollution::print_pending(&runtime, &config.namespace, Some(&id), printer);
    }
    if !has_keeper {
        super::idle::start_watch(config, printer);
    }
    match status {
        // A failure of the command itself takes precedence.
        Ok(status) if status.success() && polluted => Ok(ExitCode::from(DIFFERENT)),
        Ok(status) => Ok(exit_code(status)),
        Err(error) => {
            printer.error(&error);
            Ok(ExitCode::from(CANNOT_RUN))
        }
    }
}

/// Opens the run of each template, and returns how many clones the last run of each used at the same time.
async fn open(
    configs: &[Config],
    url: ExportUrl,
    printer: &Printer,
) -> Result<(Vec<OpenRun>, Vec<usize>)> {
    let (mut runs, mut demands) = (Vec::new(), Vec::new());
    for config in configs {
        let (first, threads) = (runs.first(), test_threads());
        let opening = run::open_beside(first, config, Identity::Command, threads, printer);
        let mut run = opening.await?;
        demands.push(adopt_spares(&mut run).await?);
        if url == ExportUrl::Shared && runs.is_empty() {
            clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
        }
        runs.push(run);
    }
    Ok((runs, demands))
}

/// How often the keeper is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// The exit code of a shell for a command that it cannot start.
const CANNOT_RUN: u8 = 127;

/// A command that does not use the helper needs a database URL, so `off` must be set explicitly.
fn export_url(config: &Config) -> ExportUrl {
    match config.origins["export.database_url"].origin {
        Origin::Default => ExportUrl::Shared,
        _ => config.export_url,
    }
}

async fn command(
    words: &[OsString],
    variables: &Variables,
    signals: &mut Signals,
    mut changes: Vec<Changes<'_>>,
    printer: &Printer,
) -> Result<ExitStatus> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::Usage(
            "no command given; use `kapsel-testdb run -- COMMAND`".to_owned(),
        ));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .spawn()
        .with_context(|| format!("failed to run `{}`", program.display()))?;
    let mut looks = tokio::time::interval(changes::INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {
                for changes in &mut changes {
                    if let Some(report) = changes.report().await {
                        printer.warn(&report);
                    }
                }
            }
            status = child.wait() => return Ok(status.context("failed to wait for the command")?),
            signal = signals.next() => {
                // The terminal has already sent Ctrl-C to the command; forwarding it would make it a second one.
                let twice = signal == platform::Signal::INT && platform::in_foreground();
                if let Some(pid) = child.id().filter(|_| !twice) {
                    // If the command has exited, its status comes next.
                    let _ = platform::signal(pid, signal);
                }
            }
        }
    }
}

/// Ends the run, through the keeper if there is one. From now on a signal is for this process, not for the command.
async fn end(
    run: OpenRun,
    keeper: Option<Child>,
    templates: usize,
    printer: &Printer,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let interrupted = match keeper {
        Some(_) => "interrupted; the keeper ends the run",
        None => "interrupted; the next sweep ends the run",
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
            printer.warn("the run was not ended, because one of its processes is still alive; the next sweep ends it");
        }
        Err(error) => printer.warn(&format!(
            "failed to end the run: {error}; the next sweep ends it"
        )),
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
    let teardown = Teardown {
        legacy: Legacy::of(&file),
        runtime,
        dir,
        file,
        locks: Locks::new(admin),
        templates,
        terminate: None,
    };
    Ok(teardown.run(TERMINATE_TIMEOUT).await? == TeardownOutcome::Clean)
}

/// Releases the run and signals the keeper, as soon as it is ready, to end it. If the keeper has died, ends the run here.
async fn end_by_keeper(run: OpenRun, mut keeper: Child, templates: usize) -> Result<bool> {
    let path = run.dir.path().to_path_buf();
    while run.dir.keeper_pid().is_none() && keeper.try_wait()?.is_none() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    drop(run.dir);
    run.admin.close().await;
    // If the keeper has exited, its status comes next.
    let _ = platform::signal(keeper.id(), platform::Signal::TERM);
    let _waiting = waiting("the keeper to end the run", None::<Duration>);
    let status = loop {
        match keeper.try_wait()? {
            Some(status) => break status,
            None => tokio::time::sleep(POLL_INTERVAL).await,
        }
    };
    if status.code().is_some() {
        return Ok(status.success());
    }
    let dir = RunDir::join(&path)?;
    let admin = clone::admin(&run.file, "run", RetryLimits::RUNNING).await?;
    end_here(run.runtime, dir, run.file, admin, templates).await
}

/// The exit code of a shell: 128 plus the signal's number for a command that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
