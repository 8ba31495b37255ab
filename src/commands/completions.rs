//! `kapsel-testdb completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::Args;
use crate::failure::Result;
use crate::printer::Printer;

pub fn run(shell: clap_complete::Shell, printer: &Printer) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "kapsel-testdb", &mut script);
    printer.data(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
