//! `kapsel-testdb doctor`: diagnoses the test setup and suggests fixes.
//!
//! It changes nothing. With `--measure` it starts a run and creates clones in it; after a crash, a sweep removes them.

mod host;
mod measure;
mod nextest;
mod report;
mod server;

use std::process::ExitCode;

use serde_json::json;

use kapsel_testdb_core::config::Config;

use self::report::{Check, Level};
use crate::args::{Doctor, Global};
use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(global: &Global, args: Doctor, printer: &Printer) -> Result<ExitCode> {
    let config = global.load()?;
    let (checks, usable) = check(&config, args.measure, printer).await;
    let measured = match args.measure && usable {
        true => Some(measure::measure(&config, printer).await?),
        false => None,
    };
    if args.json {
        let report = json!({ "schema": 1, "checks": checks, "measurement": measured });
        printer.data(&format!("{report:#}\n"));
    } else {
        printer.screen(&report::table(&checks, printer.width()));
        if let Some(measured) = &measured {
            printer.data(&format!("\n{measured}"));
        }
        printer.line(&report::summary(&checks));
    }
    let fails = checks.iter().any(|check| check.level == Level::Fails);
    Ok(ExitCode::from(u8::from(fails)))
}

/// All checks, and whether the server can be measured.
async fn check(config: &Config, start: bool, printer: &Printer) -> (Vec<Check>, bool) {
    let mut checks = host::check(config);
    checks.extend(nextest::check(&config.root));
    let usable = server::check(config, start, &mut checks, printer).await;
    (checks, usable)
}

/// Prints only what is not in order, and the summary.
pub async fn print_problems(config: &Config, printer: &Printer) {
    let (mut checks, _) = check(config, false, printer).await;
    let summary = report::summary(&checks);
    checks.retain(|check| check.level != Level::Ok);
    printer.line(&format!(
        "{}{summary}",
        report::table(&checks, printer.width())
    ));
}
