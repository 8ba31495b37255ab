//! `kapsel-testdb server` for the service of a compose file. What ran before we came is the user's: it is stopped only by force.

use std::process::ExitCode;

use anyhow::Result;

use super::{Command, is_in_use};
use crate::cli::error::NOT_REMOVED;
use crate::cli::output::Printer;
use crate::config::Config;
use crate::server::compose::{self, Running};
use crate::server::{Server, ServerKind};

pub async fn run(
    config: &Config,
    command: Command,
    running: Option<Running>,
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
        (Command::Stop { force }, Some(running)) => stop(config, &running, force, printer).await,
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
    let what = if ran { "runs already" } else { "started" };
    printer.line(&format!(
        "compose PostgreSQL {} at {} {what}",
        server.facts.version(),
        server.address
    ));
    Ok(ExitCode::SUCCESS)
}

async fn stop(
    config: &Config,
    running: &Running,
    force: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    if !force && is_in_use(&running.address, printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if !force && !running.brought_up {
        printer.problem(&format!(
            "not stopped: the service `{}` ran already, and kapsel-testdb did not bring it up; stop it with `{}`, or say --force",
            running.name(),
            running.stop_command()
        ));
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    compose::stop(config, running).await?;
    printer.line(&format!(
        "stopped the service `{}`; what is in its volumes stays",
        running.name()
    ));
    Ok(ExitCode::SUCCESS)
}
