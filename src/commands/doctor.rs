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

use self::report::Level;
use crate::args::{Doctor, Global};
use crate::failure::Result;
use crate::printer::Printer;

pub async fn run(global: &Global, args: Doctor, printer: &Printer) -> Result<ExitCode> {
    let config = global.load()?;
    let mut checks = host::check(&config);
    checks.extend(nextest::check(&config.root));
    let usable = server::check(&config, args.measure, &mut checks, printer).await;
    let measured = match args.measure && usable {
        true => Some(measure::measure(&config, printer).await?),
        false => None,
    };
    if args.json {
        let report = json!({ "schema": 1, "checks": checks, "measurement": measured });
        printer.data(&format!("{report:#}\n"));
    } else {
        printer.data(&report::table(&checks));
        if let Some(measured) = &measured {
            printer.data(&format!("\n{measured}"));
        }
        printer.line(&report::summary(&checks));
    }
    let fails = checks.iter().any(|check| check.level == Level::Fails);
    Ok(ExitCode::from(u8::from(fails)))
}
