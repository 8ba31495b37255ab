//! The hidden command that stops an idle server, and those who leave it behind at the end of their run.

use std::process::ExitCode;

use anyhow::Result;

use super::output::Printer;
use crate::config::Config;
use crate::server::local::idle::IdleOrder;

pub async fn run(order: &IdleOrder) -> Result<ExitCode> {
    order.watch().await?;
    Ok(ExitCode::SUCCESS)
}

/// Where the configuration says that an idle server is stopped: leaves somebody who looks.
pub fn leave_watch(config: &Config, printer: &Printer) {
    let left = match IdleOrder::of(&config.server) {
        Ok(Some(order)) => order.start(),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = left {
        printer.warn(&format!(
            "the server will not be stopped when it is idle: {error}"
        ));
    }
}
