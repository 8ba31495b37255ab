//! `kapsel-testdb doctor`: looks at everything that tests stand on, and says what mends what.
//!
//! It changes nothing. With `--measure` it opens a run and makes clones in it: a crash leaves what a sweep removes.

mod measure;
mod nextest;
mod report;
mod server;
mod surroundings;

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use self::report::Level;
use super::args::{Doctor, Global};
use super::output::Printer;

pub async fn run(global: &Global, args: Doctor, printer: &Printer) -> Result<ExitCode> {
    let config = global.load()?;
    let mut checks = surroundings::look(&config);
    checks.extend(nextest::look(&config.root));
    let sound = server::look(&config, args.measure, &mut checks, printer).await;
    let measured = match args.measure && sound {
        true => Some(measure::measure(&config, printer).await?),
        false => None,
    };
    if args.json {
        let report = json!({ "schema": 1, "checks": checks, "measured": measured });
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
