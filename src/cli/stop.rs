//! `kapsel-testdb stop`: the managed server.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::error::NOT_REMOVED;
use super::output::Printer;
use crate::config::Config;
use crate::pg::Address;
use crate::run_dir::Runtime;
use crate::server::local::Local;
use crate::server::{ServerKind, compose};

/// A fast shutdown ends sessions; without `fsync` there is little to write.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(config: &Config, force: bool, printer: &Printer) -> Result<ExitCode> {
    if let Some((address, _)) = &config.server.adopted {
        printer.line(&format!(
            "nothing to stop: the server at `{address}` is not managed by kapsel-testdb"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    if ServerKind::of(config) == ServerKind::Compose {
        return stop_service(config, force, printer).await;
    }
    let local = Local::open(&config.server)?;
    if !force && is_in_use(&local.address(), printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if local.stop(PATIENCE)? {
        printer.line("stopped the managed server; its data stays for the next start");
    } else {
        printer.line("the managed server does not run");
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_service(config: &Config, force: bool, printer: &Printer) -> Result<ExitCode> {
    let Some(running) = compose::find(config).await? else {
        printer.line("the service does not run");
        return Ok(ExitCode::SUCCESS);
    };
    if !force && is_in_use(&running.address, printer)? {
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if !force && !running.brought_up {
        printer.line(&format!(
            "not stopped: the service `{}` ran already, and kapsel-testdb did not bring it up; stop it with `{}`, or say --force",
            running.name(),
            running.stop_command()
        ));
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    compose::stop(config, &running).await?;
    printer.line(&format!(
        "stopped the service `{}`; what is in its volumes stays",
        running.name()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Whether runs are alive on the server; says which.
fn is_in_use(address: &Address, printer: &Printer) -> Result<bool> {
    let mut alive = Runtime::open()?.alive()?;
    alive.retain(|file| file.server.is_same_server(address));
    if alive.is_empty() {
        return Ok(false);
    }
    let runs: Vec<String> = alive.iter().map(|file| file.run.to_string()).collect();
    printer.line(&format!(
        "not stopped: these runs are alive on it: {}; wait for them (`kapsel-testdb wait`), or say --force",
        runs.join(", ")
    ));
    Ok(true)
}
