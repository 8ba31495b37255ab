//! `kapsel-testdb init`: says what [`super::init`] did.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use super::args::Init;
use super::init::{Change, InitOptions, init};
use super::output::Printer;

pub fn run(root: &Path, args: Init, allow_remote: bool, printer: &Printer) -> Result<ExitCode> {
    let relative = |path: &Path| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let options = InitOptions {
        command: args.command,
        filter: args.filter,
        allow_remote,
    };
    for change in init(root, &options)? {
        printer.line(&match &change {
            Change::Created(path) => format!("created {}", relative(path)),
            Change::Updated(path) => format!("updated {}", relative(path)),
            Change::Unchanged(path) => format!("left {} as it was", relative(path)),
        });
    }
    printer.line("next: `cargo nextest run`");
    Ok(ExitCode::SUCCESS)
}
