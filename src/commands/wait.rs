//! `kapsel-testdb wait`: returns when all runs of this project on this host have ended, including cleanup, and prints their pollution reports.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kapsel_testdb_core::config::Config;
use kapsel_testdb_core::protocol::{RunId, Runtime};
use kapsel_testdb_core::waiting::waiting;

use crate::commands::pollution;
use crate::failure::{DIFFERENT, NOT_REMOVED, Result};
use crate::printer::Printer;
use crate::screen::{WARNING, paint};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub async fn run(config: &Config, timeout: Duration, printer: &Printer) -> Result<ExitCode> {
    let runtime = Runtime::open()?;
    let begun = Instant::now();
    let _waiting = waiting("the runs of this project to end", timeout);
    loop {
        let alive = alive(&runtime, config)?;
        if alive.is_empty() {
            let failed = pollution::print_pending(&runtime, &config.namespace, None, printer);
            return Ok(if failed {
                ExitCode::from(DIFFERENT)
            } else {
                ExitCode::SUCCESS
            });
        }
        if begun.elapsed() >= timeout {
            for run in alive {
                let state = format!("still alive after {} s", timeout.as_secs());
                printer.problem(&format!("run {run} is {}", paint(WARNING, &state)));
            }
            return Ok(ExitCode::from(NOT_REMOVED));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn alive(runtime: &Runtime, config: &Config) -> Result<Vec<RunId>> {
    let mut alive = runtime.alive()?;
    alive.retain(|file| file.namespace == config.namespace);
    Ok(alive.into_iter().map(|file| file.run).collect())
}
