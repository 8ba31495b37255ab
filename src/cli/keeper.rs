//! The hidden command that a run's background process is. Its standard error is its log.

use std::process::ExitCode;

use anyhow::Result;

use super::args::Keeper;
use crate::run::keeper::keep;
use crate::run::spawn::KeeperOrder;
use crate::run::teardown::End;

pub async fn run(args: Keeper) -> Result<ExitCode> {
    let order = KeeperOrder {
        dir: args.dir,
        lock_fd: args.lock_fd,
        keeper_fd: args.keeper_fd,
        watch: args.watch,
        templates: args.templates,
    };
    let end = keep(&order).await?;
    tracing::info!(?end, "the keeper ends");
    Ok(match end {
        End::Clean => ExitCode::SUCCESS,
        End::FencedOff | End::LeftToSweep => ExitCode::from(super::error::NOT_REMOVED),
    })
}
