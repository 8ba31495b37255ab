//! `kapsel-testdb kept`: lists, opens, dumps, compares and drops kept databases. Like `status`, it does not start a server.

mod diff;
pub mod find;
mod list;
mod open;
mod remove;

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;

use crate::args::KeptCommand as Command;
use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(config: &Config, command: Command, printer: &Printer) -> Result<ExitCode> {
    match command {
        Command::List { json } => list::run(config, json, printer).await,
        Command::Psql(args) => open::psql(config, &args).await,
        Command::Dump(args) => open::dump(config, &args).await,
        Command::Diff(args) => diff::run(config, &args, printer).await,
        Command::Drop(args) => remove::run(config, &args, printer).await,
    }
}
