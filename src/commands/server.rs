//! `kapsel-testdb server`: starts, stops and inspects the managed server or the service of a compose file. An adopted server is only
//! inspected and opened.

mod psql;
mod service;
mod status;

use std::process::ExitCode;
use std::time::Instant;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::protocol::Runtime;
use kapsel_testdb_core::server::compose::{self, RunningService};
use kapsel_testdb_core::server::local::Local;
use kapsel_testdb_core::server::{Server, ServerKind};

use crate::args::ServerCommand as Command;
use crate::failure::{NOT_REMOVED, Result};
use crate::printer::Printer;

/// The server that a command is about.
enum Subject<'a> {
    Adopted(&'a Address),
    Local(Local),
    /// None: the service is not running.
    Service(Box<Option<RunningService>>),
}

pub async fn run(config: &Config, command: Command, printer: &Printer) -> Result<ExitCode> {
    let subject = match &config.server.adopted {
        Some((address, _)) => Subject::Adopted(address),
        None if ServerKind::of(&config.server) == ServerKind::Compose => {
            Subject::Service(Box::new(compose::find(config).await?))
        }
        None => Subject::Local(Local::open(&config.server)?),
    };
    match (command, subject) {
        (Command::Status { json }, subject) => status::run(config, subject, json, printer).await,
        (Command::Psql { arguments }, subject) => psql::run(config, &subject, &arguments),
        (command, Subject::Service(running)) => {
            service::run(config, command, *running, printer).await
        }
        (command, Subject::Adopted(address)) => Ok(print_not_managed(&command, address, printer)),
        (Command::Start, Subject::Local(local)) => start(config, &local, printer).await,
        (Command::Stop { force, all, delete }, Subject::Local(local)) => {
            let others = match (all, delete) {
                (true, true) => local.others(),
                (true, false) => local.others_running(),
                (false, _) => Vec::new(),
            };
            let mut code = ExitCode::SUCCESS;
            for local in std::iter::once(local).chain(others) {
                let stopped = match delete {
                    true => stop_and_delete(&local, force, printer)?,
                    false => stop(&local, force, printer)?,
                };
                if stopped != ExitCode::SUCCESS {
                    code = stopped;
                }
            }
            Ok(code)
        }
        (Command::Restart { force }, Subject::Local(local)) => {
            match stop(&local, force, printer)? {
                ExitCode::SUCCESS => start(config, &local, printer).await,
                refused => Ok(refused),
            }
        }
        (Command::Logs { lines }, Subject::Local(local)) => logs(&local, lines, printer),
    }
}

fn print_not_managed(command: &Command, address: &Address, printer: &Printer) -> ExitCode {
    let nothing = match command {
        Command::Start => "nothing to start",
        Command::Stop { .. } => "nothing to stop",
        Command::Restart { .. } => "nothing to restart",
        _ => "no log to show",
    };
    printer.line(&format!(
        "{nothing}: the server at `{address}` is not managed by kapsel-testdb"
    ));
    ExitCode::SUCCESS
}

async fn start(config: &Config, local: &Local, printer: &Printer) -> Result<ExitCode> {
    let (begun, ran) = (Instant::now(), local.runs());
    let (server, admin) = Server::locate(config, "start").await?;
    admin.close().await;
    let state = if ran { "is already running" } else { "started" };
    printer.line(&format!(
        "managed PostgreSQL {} at {} {state}, {} ms",
        server.facts.version(),
        server.address,
        begun.elapsed().as_millis()
    ));
    super::idle::start_watch(config, printer);
    Ok(ExitCode::SUCCESS)
}

/// Whether runs are alive on the server; prints them.
fn is_in_use(address: &Address, printer: &Printer) -> Result<bool> {
    let mut alive = Runtime::open()?.alive()?;
    alive.retain(|file| file.server.is_same_server(address));
    if alive.is_empty() {
        return Ok(false);
    }
    let runs: Vec<String> = alive.iter().map(|file| file.run.to_string()).collect();
    printer.problem(&format!(
        "not stopped: runs are alive on the server: {}; wait for them (`kapsel-testdb wait`), or use --force",
        runs.join(", ")
    ));
    Ok(true)
}

fn stop(local: &Local, force: bool, printer: &Printer) -> Result<ExitCode> {
    if !force && is_in_use(&local.address(), printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if local.stop()? {
        printer.line(&format!(
            "stopped the managed server at {}; its data is kept for the next start (`--delete` removes it)",
            local.address()
        ));
    } else {
        printer.line("the managed server is not running");
    }
    Ok(ExitCode::SUCCESS)
}

fn stop_and_delete(local: &Local, force: bool, printer: &Printer) -> Result<ExitCode> {
    if !force && is_in_use(&local.address(), printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    let dir = local.dir();
    let dir = dir.display();
    printer.line(&match local.delete()? {
        true => format!("stopped the managed server and removed its data in `{dir}`"),
        false => format!("there are no data in `{dir}`"),
    });
    Ok(ExitCode::SUCCESS)
}

fn logs(local: &Local, lines: usize, printer: &Printer) -> Result<ExitCode> {
    let tail = local.log_tail(lines)?;
    if tail.is_empty() {
        printer.line(&format!("`{}` is empty", local.log().display()));
    }
    for line in tail {
        printer.data(&format!("{line}\n"));
    }
    Ok(ExitCode::SUCCESS)
}
