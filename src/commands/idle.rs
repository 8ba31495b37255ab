//! The hidden command that stops an idle server, and the function that starts it in the background.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::server::local::idle::IdleStopJob;

use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(order: &IdleStopJob) -> Result<ExitCode> {
    order.watch().await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the background process that stops the server when it is idle, if the configuration asks for that.
pub fn start_watch(config: &Config, printer: &Printer) {
    let started = match IdleStopJob::of(&config.server) {
        Ok(Some(order)) => order.start(),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        printer.warn(&format!(
            "failed to start the process that stops the idle server: {error}; stop it with `kapsel-testdb server stop`"
        ));
    }
}
