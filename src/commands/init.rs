//! `kapsel-testdb init`: prints the result of [`crate::init`], and what `doctor` finds afterwards.

use std::path::Path;
use std::process::ExitCode;

use crate::args::{Global, Init};
use crate::commands::doctor;
use crate::failure::Result;
use crate::init::{Change, InitOptions, Migrations, init};
use crate::printer::Printer;

pub async fn run(global: &Global, args: Init, printer: &Printer) -> Result<ExitCode> {
    let root = global.root()?;
    let options = InitOptions {
        command: args.command,
        filter: args.filter,
        allow_remote: global.allows_remote(),
    };
    let setup = init(&root, &options)?;
    for change in &setup.changes {
        print_change(&root, change, printer);
    }
    print_migrations(&setup.migrations, printer);
    if !setup.has_dependents {
        printer.warn(
            "no package of the workspace depends on `kapsel-testdb`; add it to one: `cargo add --dev kapsel-testdb --package PACKAGE`",
        );
    }
    match global.load() {
        Ok(config) => doctor::print_problems(&config, printer).await,
        Err(error) => printer.warn(&error.to_string()),
    }
    printer.line("next: `cargo nextest run`");
    Ok(ExitCode::SUCCESS)
}

fn print_change(root: &Path, change: &Change, printer: &Printer) {
    let (verb, path) = match change {
        Change::Created(path) => ("created", path),
        Change::Updated(path) => ("updated", path),
        Change::Unchanged(path) => ("unchanged", path),
    };
    let relative = path.strip_prefix(root).unwrap_or(path);
    printer.line(&format!("{verb} {}", relative.display()));
}

fn print_migrations(migrations: &Migrations, printer: &Printer) {
    match migrations {
        Migrations::Configured => {}
        Migrations::Found { directory, others } => {
            printer.line(&format!("migrations: `{directory}`"));
            if !others.is_empty() {
                printer.line(&format!(
                    "  not used: {}; to use them, list them in `template.migrations`",
                    quoted(others)
                ));
            }
        }
        Migrations::Several(directories) => printer.warn(&format!(
            "found several directories of migrations: {}; name one or more in `template.migrations`",
            quoted(directories)
        )),
        Migrations::Missing => printer.warn(
            "found no directory of migrations; create `migrations`, or set `template.migrations` (\"\" for none)",
        ),
    }
}

fn quoted(directories: &[String]) -> String {
    let quoted: Vec<String> = directories.iter().map(|dir| format!("`{dir}`")).collect();
    quoted.join(", ")
}
