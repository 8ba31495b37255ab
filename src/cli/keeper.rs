//! The hidden command that a run's background process is. Its standard error is its log.

use std::process::ExitCode;

use anyhow::Result;

use super::args::Keeper;
use crate::run::keeper::keep;
use crate::run::spawn::KeeperOrder;
use crate::run::teardown::End;
use crate::server::local::idle::IdleOrder;

pub async fn run(args: Keeper) -> Result<ExitCode> {
    let order = KeeperOrder {
        dir: args.dir,
        lock_fd: args.lock_fd,
        keeper_fd: args.keeper_fd,
        watch: args.watch,
        templates: args.templates,
        idle: args.idle,
    };
    let end = keep(&order).await?;
    // In a process of its own: who waits for the run's end must not wait for the server's.
    if let Some(Err(error)) = order.idle.as_ref().map(IdleOrder::start) {
        tracing::warn!("the server will not be stopped when it is idle: {error}");
    }
    tracing::info!(?end, "the keeper ends");
    Ok(match end {
        End::Clean => ExitCode::SUCCESS,
        End::FencedOff | End::LeftToSweep => ExitCode::from(super::error::NOT_REMOVED),
    })
}
