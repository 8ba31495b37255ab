//! `kapsel-testdb completions`.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use super::args::Args;
use super::output::Printer;

pub fn run(shell: clap_complete::Shell, printer: &Printer) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kapsel-testdb", &mut script);
    printer.data(&String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}
