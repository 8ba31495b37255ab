//! The connection budget: a server's connections are divided among the test processes of this user on this host, so that none of
//! them is ever refused with "too many clients".
//!
//! `limit` says how many there are to divide, `ledger` who holds how many. A run reserves what all of its processes may open at once
//! where there is plenty; else each process takes its part before it connects, and waits when there is too little. What a crash
//! leaves: an entry whose flock is free, or whose run is over; the next process that finds too little room removes it.

mod ledger;
mod limit;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use ledger::{Holder, Ledger, Place};
pub use limit::{Limit, PER_KEEPER, Sessions};

use crate::config::PoolConfig;
use crate::name::RunId;
use crate::run_dir::{Connections, RunDirError, Runtime};
use crate::server::Server;

/// What a server has to divide now. `opened` is a run that is about to get a keeper.
///
/// # Errors
/// The operating system refused.
pub fn limit(
    runtime: &Runtime,
    server: &Server,
    opened: Option<&RunId>,
) -> Result<Limit, RunDirError> {
    let here: BTreeSet<RunId> = runtime.runs().into_iter().collect();
    let has_keeper = |run: &RunId| runtime.run_path(run).join("keeper.pid").exists();
    // Whether runs are alive is asked behind the gate, one after the other: only where one may have a keeper.
    let alive = match here.iter().any(has_keeper) {
        true => runtime.alive()?,
        false => Vec::new(),
    };
    let kept: BTreeSet<RunId> = alive
        .into_iter()
        .filter(|file| file.admin_address().is_same_server(&server.admin_address))
        .map(|file| file.run)
        .filter(has_keeper)
        .chain(opened.cloned())
        .collect();
    let keepers = u32::try_from(kept.len()).unwrap_or(u32::MAX);
    Ok(Limit::new(&server.facts.sessions, &here, keepers))
}

/// The ledger of a server, told what that server has to divide now.
///
/// # Errors
/// The operating system refused.
pub fn update(
    runtime: &Runtime,
    server: &Server,
    opened: Option<&RunId>,
) -> Result<(Ledger, Limit), RunDirError> {
    let limit = limit(runtime, server, opened)?;
    let ledger = Ledger::open(runtime, &server.admin_address)?;
    ledger.set_limit(&limit)?;
    Ok((ledger, limit))
}

/// What each process of a run may open when so many of them run at once: reserved for the run where there is plenty.
///
/// # Errors
/// The operating system refused.
pub fn for_run(
    runtime: &Runtime,
    server: &Server,
    pool: &PoolConfig,
    run: &RunId,
    threads: usize,
) -> Result<Connections, RunDirError> {
    let (ledger, limit) = update(runtime, server, Some(run))?;
    if ledger.reserve(run, wanted(threads, pool.max_connections))? {
        return Ok(Connections {
            per_process: pool.max_connections,
            reserved: true,
        });
    }
    Ok(Connections {
        per_process: limit.share(threads, pool.max_connections),
        reserved: false,
    })
}

/// Connections that nobody of so many processes would ever wait for: one more for each than its pool has, for the session that
/// makes a clone where none is ready.
pub fn wanted(threads: usize, pool: u32) -> u32 {
    let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
    threads.saturating_mul(pool.saturating_add(1))
}
