//! `kapsel-testdb wait`: returns when no run of this project on this host is alive any more, teardown included, and tells what they
//! committed into their shared clones.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::error::{DIFFERENT, NOT_REMOVED};
use super::output::Printer;
use super::pollution;
use crate::config::Config;
use crate::name::RunId;
use crate::run_dir::Runtime;

const LOOK: Duration = Duration::from_millis(10);

pub async fn run(config: &Config, timeout: Duration, printer: &Printer) -> Result<ExitCode> {
    let runtime = Runtime::open()?;
    let begun = Instant::now();
    loop {
        let alive = alive(&runtime, config)?;
        if alive.is_empty() {
            let fails = pollution::tell(&runtime, &config.namespace, None, printer);
            return Ok(if fails {
                ExitCode::from(DIFFERENT)
            } else {
                ExitCode::SUCCESS
            });
        }
        if begun.elapsed() >= timeout {
            for run in alive {
                printer.problem(&format!(
                    "run {run} is still alive after {} s",
                    timeout.as_secs()
                ));
            }
            return Ok(ExitCode::from(NOT_REMOVED));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn alive(runtime: &Runtime, config: &Config) -> Result<Vec<RunId>> {
    let mut alive = runtime.alive()?;
    alive.retain(|file| file.namespace == config.namespace);
    Ok(alive.into_iter().map(|file| file.run).collect())
}
