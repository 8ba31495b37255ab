//! The command line: arguments, one file per command, and output. Errors are printed once, here, and mapped to exit codes.

mod acquire;
mod args;
mod completions;
mod config;
mod doctor;
mod error;
mod idle;
pub mod init;
mod init_command;
mod keeper;
mod kept;
mod libpq;
mod output;
mod pollution;
mod prepare;
mod run;
mod server;
mod status;
mod sweep;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use args::{Args, Command};
use output::Printer;

/// Parses the command line, runs the command, prints its error if it has one.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.global.quiet, args.global.verbose);
    // The keeper's standard error is its log file, read when something went wrong.
    let is_keeper = matches!(args.command, Command::Keeper(_));
    output::start_log(args.global.verbose.max(u8::from(is_keeper)));
    match start(args, &printer) {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            error::exit_code(&error)
        }
    }
}

fn start(args: Args, printer: &Printer) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(dispatch(args, printer))
}

async fn dispatch(args: Args, printer: &Printer) -> Result<ExitCode> {
    let global = &args.global;
    match args.command {
        Command::Init(options) => {
            init_command::run(&global.root()?, options, global.allows_remote(), printer)
        }
        Command::Completions { shell } => completions::run(shell, printer),
        Command::Keeper(order) => keeper::run(order).await,
        Command::Acquire(options) => acquire::acquire(options, printer).await,
        Command::Release(options) => acquire::release(&options).await,
        Command::Hold(order) => acquire::hold(order).await,
        Command::Config { json } => config::run(&global.config(printer)?, json, printer),
        Command::Prepare(options) => prepare::run(&global.config(printer)?, options, printer).await,
        Command::Run(options) => run::run(&global.config(printer)?, options, printer).await,
        Command::Wait { timeout } => {
            let timeout = Duration::from_secs(timeout);
            wait::run(&global.config(printer)?, timeout, printer).await
        }
        Command::Sweep(options) => sweep::run(&global.config(printer)?, options, printer).await,
        Command::Doctor(options) => doctor::run(global, options, printer).await,
        Command::Status { json } => status::run(&global.config(printer)?, json, printer).await,
        Command::Kept(command) => kept::run(&global.config(printer)?, command, printer).await,
        Command::Server(command) => server::run(&global.config(printer)?, command, printer).await,
        Command::IdleStop { order } => idle::run(&order).await,
    }
}
