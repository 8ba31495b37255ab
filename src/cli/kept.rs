//! `kapsel-testdb kept`: failed tests' databases, listed, opened, dumped, compared and dropped. Like `status`, it starts nothing.

mod diff;
mod error;
mod find;
mod list;
mod open;
mod remove;

use std::process::ExitCode;

use anyhow::Result;

use super::args::Kept as Command;
use super::output::Printer;
use crate::config::Config;
pub use error::KeptError;

pub async fn run(config: &Config, command: Command, printer: &Printer) -> Result<ExitCode> {
    match command {
        Command::List { json } => list::run(config, json, printer).await,
        Command::Psql(args) => open::psql(config, &args).await,
        Command::Dump(args) => open::dump(config, &args).await,
        Command::Diff(args) => diff::run(config, &args, printer).await,
        Command::Drop(args) => remove::run(config, &args, printer).await,
    }
}
