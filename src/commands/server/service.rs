//! `kapsel-testdb server` for the service of a compose file. A service that kapsel-testdb did not start is stopped only with `--force`.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::compose::{self, RunningService};
use kapsel_testdb_core::server::{Server, ServerKind};

use crate::commands::server::{Command, is_in_use};
use crate::failure::{Failure, NOT_REMOVED, Result};
use crate::printer::Printer;

pub async fn run(
    config: &Config,
    command: Command,
    running: Option<RunningService>,
    printer: &Printer,
) -> Result<ExitCode> {
    match (command, running) {
        (Command::Start, running) => start(config, running.is_some(), printer).await,
        (Command::Restart { force }, Some(running)) => {
            match stop(config, &running, force, printer).await? {
                ExitCode::SUCCESS => start(config, false, printer).await,
                refused => Ok(refused),
            }
        }
        (Command::Restart { .. }, None) => start(config, false, printer).await,
        (Command::Stop { delete: true, .. }, _) => Err(Failure::Usage(
            "`--delete` is for the managed server; remove the volumes of a compose service with its own tool, as in `docker compose rm --stop --volumes`"
                .to_owned(),
        )),
        (Command::Stop { force, .. }, Some(running)) => {
            stop(config, &running, force, printer).await
        }
        (Command::Logs { lines }, Some(running)) => {
            for line in running.log_tail(lines).await? {
                printer.data(&format!("{line}\n"));
            }
            Ok(ExitCode::SUCCESS)
        }
        (_, _) => {
            printer.line(ServerKind::Compose.not_running());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn start(config: &Config, ran: bool, printer: &Printer) -> Result<ExitCode> {
    let (server, admin) = Server::locate(config, "start").await?;
    admin.close().await;
    let state = if ran { "is already running" } else { "started" };
    printer.line(&format!(
        "compose PostgreSQL {} at {} {state}",
        server.facts.version(),
        server.address
    ));
    Ok(ExitCode::SUCCESS)
}

async fn stop(
    config: &Config,
    running: &RunningService,
    force: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    if !force && is_in_use(&running.address, printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if !force && !running.started_by_us {
        printer.problem(&format!(
            "not stopped: kapsel-testdb did not start the service `{}`; stop it with `{}`, or use --force",
            running.name(),
            running.stop_command()
        ));
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    compose::stop(config, running).await?;
    printer.line(&format!(
        "stopped the service `{}`; its volumes are kept",
        running.name()
    ));
    Ok(ExitCode::SUCCESS)
}
