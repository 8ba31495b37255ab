//! `kapsel-testdb stop`: the managed server.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::error::NOT_REMOVED;
use super::output::Printer;
use crate::config::Config;
use crate::run_dir::Runtime;
use crate::server::local::Local;

/// A fast shutdown ends sessions; without `fsync` there is little to write.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(config: &Config, force: bool, printer: &Printer) -> Result<ExitCode> {
    if let Some((address, _)) = &config.server.adopted {
        printer.line(&format!(
            "nothing to stop: the server at `{address}` is not managed by kapsel-testdb"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let local = Local::open(&config.server)?;
    let mut alive = Runtime::open()?.alive()?;
    alive.retain(|file| file.server.is_same_server(&local.address()));
    if !alive.is_empty() && !force {
        let runs: Vec<String> = alive.iter().map(|file| file.run.to_string()).collect();
        printer.line(&format!(
            "not stopped: these runs are alive on it: {}; wait for them (`kapsel-testdb wait`), or say --force",
            runs.join(", ")
        ));
        return Ok(ExitCode::from(NOT_REMOVED));
    }
    if local.stop(PATIENCE)? {
        printer.line("stopped the managed server; its data stays for the next start");
    } else {
        printer.line("the managed server does not run");
    }
    Ok(ExitCode::SUCCESS)
}
