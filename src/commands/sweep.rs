//! `kapsel-testdb sweep`: the keeper's sweep in the foreground.

use std::process::ExitCode;

use kapsel_testdb_core::config::Config;

use crate::args::Sweep;
use crate::failure::{NOT_REMOVED, Result};
use crate::printer::Printer;
use crate::sweep::{Options, SweepReport, sweep};

/// The version of the JSON: it changes when a field is removed or changes its meaning.
const SCHEMA: u32 = 1;

pub async fn run(config: &Config, args: Sweep, printer: &Printer) -> Result<ExitCode> {
    let full = Options::full();
    let options = Options {
        dry_run: args.dry_run,
        watch: full.watch.filter(|_| !args.no_wait),
        spares: args.spares,
    };
    let Some(report) = sweep(config, options).await? else {
        printer.not_running(&config.server, args.json.then_some(SCHEMA));
        return Ok(ExitCode::SUCCESS);
    };
    if args.json {
        let json = serde_json::to_value(&report)?;
        let mut with_schema = serde_json::json!({ "schema": SCHEMA });
        if let (Some(to), Some(from)) = (with_schema.as_object_mut(), json.as_object()) {
            to.extend(from.clone());
        }
        printer.data(&format!("{with_schema:#}\n"));
    } else {
        print(&report, printer);
    }
    Ok(if report.skipped.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_REMOVED)
    })
}

fn print(report: &SweepReport, printer: &Printer) {
    let verb = if report.dry_run {
        "would drop"
    } else {
        "dropped"
    };
    for name in &report.dropped {
        printer.line(&format!("{verb} {name}"));
    }
    for name in &report.kept {
        let verb = if report.dry_run { "would keep" } else { "kept" };
        printer.line(&format!("{verb} {name}"));
    }
    if let Some(line) = report.others_line() {
        printer.line(&line);
    }
    for run in &report.unconfirmed_runs {
        printer.line(&format!(
            "run {run} of another host appears dead; `kapsel-testdb sweep` without --dry-run and --no-wait watches it for 30 s and removes it"
        ));
    }
    for skipped in &report.skipped {
        printer.skipped(&skipped.name, &skipped.reason);
    }
    printer.line(&report.to_string());
}
