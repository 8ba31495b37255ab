//! The hidden command that runs the keeper. Its standard error is its log file.

use std::process::ExitCode;

use kapsel_testdb_core::server::local::idle::IdleStopJob;

use crate::args::KeeperArgs;
use crate::failure::{NOT_REMOVED, Result};
use crate::keeper::keep;
use crate::keeper::spawn::KeeperOrder;
use crate::keeper::teardown::TeardownOutcome;

pub async fn run(args: &KeeperArgs) -> Result<ExitCode> {
    let order: KeeperOrder = serde_json::from_str(&args.order)?;
    let end = keep(&order).await?;
    // In a process of its own: a process that waits for the run's end must not wait for the server's.
    if let Some(Err(error)) = order.idle.as_ref().map(IdleStopJob::start) {
        tracing::warn!("failed to start the process that stops the idle server: {error}");
    }
    tracing::info!(?end, "the keeper ends");
    Ok(match end {
        TeardownOutcome::Clean => ExitCode::SUCCESS,
        TeardownOutcome::FencedOff | TeardownOutcome::LeftToSweep => ExitCode::from(NOT_REMOVED),
    })
}
