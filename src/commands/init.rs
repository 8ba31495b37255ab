//! `kapsel-testdb init`: prints the result of [`crate::init`].

use std::path::Path;
use std::process::ExitCode;

use crate::args::Init;
use crate::failure::Result;
use crate::init::{Change, InitOptions, init};
use crate::printer::Printer;

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
            Change::Unchanged(path) => format!("unchanged {}", relative(path)),
        });
    }
    printer.line("next: `cargo nextest run`");
    Ok(ExitCode::SUCCESS)
}
