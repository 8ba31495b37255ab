//! The command `kapsel-testdb`, as a library for its binary, tests and benchmarks.
//!
//! `args` is the command line. A command (`commands/`) takes the resolved configuration and a `Printer`, the only access to the terminal.
//! These modules build on the core: `compare` (a database and its template), `pollution` (what tests committed into the shared clone), `sweep`
//! (what dead runs left behind), `archive` (a template as a file) and `keeper` (a run's background process). Errors are printed once, here, and mapped to exit codes.

#![doc(hidden)]

mod archive;
mod args;
pub mod commands;
pub mod compare;
mod export;
mod failure;
pub mod init;
pub mod keeper;
pub mod pollution;
mod printer;
mod screen;
pub mod sweep;

use std::process::ExitCode;
use std::time::Duration;

use crate::args::{Args, Command};
use crate::failure::{Failure, Result};
use crate::printer::Printer;

/// The command line, for the reference of commands.
pub fn command_line() -> clap::Command {
    Args::command_line()
}

/// Parses the command line, runs the command, prints its error if there is one.
pub fn main() -> ExitCode {
    commands::completions::answer_shell();
    let args = Args::read();
    let printer = Printer::new(args.global.quiet, args.global.verbose);
    // The keeper's standard error is its log file.
    let is_keeper = matches!(args.command, Command::Keeper(_));
    let verbose = args.global.verbose.max(u8::from(is_keeper));
    printer::start_log(verbose, !args.global.quiet && !is_keeper);
    match start(args, &printer) {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            error.exit_code()
        }
    }
}

fn start(args: Args, printer: &Printer) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(dispatch(args, printer));
    if matches!(result, Err(Failure::Interrupted(_))) {
        // The drop would wait for a thread that starts a server.
        runtime.shutdown_background();
    }
    result
}

async fn dispatch(args: Args, printer: &Printer) -> Result<ExitCode> {
    let global = &args.global;
    match args.command {
        Command::Init(options) => commands::init::run(global, options, printer).await,
        Command::Completions { shell } => commands::completions::run(shell, printer),
        Command::Keeper(order) => commands::keeper::run(&order).await,
        Command::Acquire(options) => commands::acquire::acquire(options, printer).await,
        Command::Release(options) => commands::acquire::release(&options).await,
        Command::Hold(order) => commands::acquire::hold(order).await,
        Command::Config { json } => commands::config::run(&global.config(printer)?, json, printer),
        Command::Prepare(options) => {
            commands::prepare::run(&global.config(printer)?, options, printer).await
        }
        Command::Run(options) => {
            commands::run::run(&global.config(printer)?, options, printer).await
        }
        Command::Wait { timeout } => {
            let timeout = Duration::from_secs(timeout);
            commands::wait::run(&global.config(printer)?, timeout, printer).await
        }
        Command::Sweep(options) => {
            commands::sweep::run(&global.config(printer)?, options, printer).await
        }
        Command::Doctor(options) => commands::doctor::run(global, options, printer).await,
        Command::Status(options) => {
            commands::status::run(&global.config(printer)?, options, printer).await
        }
        Command::Kept(command) => {
            commands::kept::run(&global.config(printer)?, command, printer).await
        }
        Command::Template(command) => {
            commands::template::run(&global.config(printer)?, command, printer).await
        }
        Command::Purge(options) => {
            commands::purge::run(&global.config(printer)?, &options, printer).await
        }
        Command::Server(command) => {
            commands::server::run(&global.config(printer)?, command, printer).await
        }
        Command::IdleStop { order } => commands::idle::run(&order).await,
    }
}
