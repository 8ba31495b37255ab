//! `kapsel-testdb template`: lists, explains, builds, drops, exports and imports templates.

mod drop;
mod export;
mod import;
mod list;
mod why;

pub use drop::report;

use std::path::Path;
use std::process::ExitCode;

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::run::{self, Identity};
use kapsel_testdb_core::server::{Server, ServerError, ServerKind};
use kapsel_testdb_core::template::TemplatePlan;

use crate::args::TemplateCommand as Command;
use crate::commands::interrupt::{Signals, interruptible};
use crate::commands::prepare::{summary, test_threads};
use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(config: &Config, command: Command, printer: &Printer) -> Result<ExitCode> {
    match command {
        Command::List { json } => list::run(config, json, printer).await,
        Command::Why { json } => why::run(config, json, printer).await,
        Command::Build => build(config, printer).await,
        Command::Drop(args) => drop::run(config, &args, printer).await,
        Command::Export { output } => {
            let mut signals = Signals::new()?;
            let directory = output.unwrap_or_else(|| Path::new(".").into());
            let exported = export::run(config, &directory, printer);
            interruptible(config, &mut signals, printer, exported).await
        }
        Command::Import { from } => {
            let mut signals = Signals::new()?;
            let imported = import::run(config, &from, printer);
            interruptible(config, &mut signals, printer, imported).await
        }
    }
}

/// Builds the current templates that are missing.
async fn build(config: &Config, printer: &Printer) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    for config in &config.per_template() {
        let begun = std::time::Instant::now();
        let opening =
            async { Ok(run::open(config, Identity::Process, test_threads(), printer).await?) };
        let run = interruptible(config, &mut signals, printer, opening).await?;
        printer.line(&summary(&run, begun));
        run.close().await;
    }
    super::idle::start_watch(config, printer);
    Ok(ExitCode::SUCCESS)
}

/// The running server, and the plan of each template.
async fn current(config: &Config) -> Result<(Server, Admin, Vec<TemplatePlan>)> {
    let Some((server, admin)) = Server::find(config, "template").await? else {
        return Err(ServerError::NotRunning(ServerKind::of(&config.server)).into());
    };
    let plans = plans(config, &server).await?;
    Ok((server, admin, plans))
}

async fn plans(config: &Config, server: &Server) -> Result<Vec<TemplatePlan>> {
    let mut plans = Vec::new();
    for config in &config.per_template() {
        plans.push(TemplatePlan::new(config, &server.facts).await?);
    }
    Ok(plans)
}
