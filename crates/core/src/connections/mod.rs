//! The connection budget: the test processes of this user on this host share the connections of a server, so that the server refuses none of them
//! with "too many clients".
//!
//! `limit` computes the number of connection slots; the [`Ledger`] records who holds them. If there are enough, a run reserves the slots of all of
//! its processes. Otherwise each process takes its share before it connects, and waits if there are too few. A crash leaves an entry whose `flock`
//! is free or whose run has ended; the next process that finds too few slots removes it.

mod limit;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use limit::PER_KEEPER;
pub use queue::{Notice, wait};

use crate::address::Address;
use crate::pg::facts::Sessions;
use crate::protocol::{Connections, Ledger, Limit, PoolConfig, RunDirError, RunId, Runtime};

/// Keepers that are about to start.
#[derive(Debug, Clone, Copy)]
pub struct Keepers<'a> {
    /// The run of one of them.
    pub of: &'a RunId,
    /// How many others start for the same test run, at most.
    pub more: u32,
}

/// The connection slots of a server now.
pub fn limit(
    runtime: &Runtime,
    server: &Address,
    sessions: &Sessions,
    starting: Option<Keepers<'_>>,
) -> Result<Limit, RunDirError> {
    let here: BTreeSet<RunId> = runtime.runs().into_iter().collect();
    let has_keeper = |run: &RunId| runtime.has_keeper_pid(run);
    // Checking whether runs are alive takes the gate, so do it only if a run may have a keeper.
    let alive = match here.iter().any(has_keeper) {
        true => runtime.alive()?,
        false => Vec::new(),
    };
    let with_keeper: BTreeSet<RunId> = alive
        .into_iter()
        .filter(|file| file.admin_address().is_same_server(server))
        .map(|file| file.run)
        .filter(has_keeper)
        .chain(starting.map(|keepers| keepers.of.clone()))
        .collect();
    let keepers = u32::try_from(with_keeper.len()).unwrap_or(u32::MAX);
    let keepers = keepers.saturating_add(starting.map_or(0, |keepers| keepers.more));
    Ok(Limit::new(sessions, &here, keepers))
}

/// Opens the ledger of a server and stores the current limit in it.
pub fn update(
    runtime: &Runtime,
    server: &Address,
    sessions: &Sessions,
    starting: Option<Keepers<'_>>,
) -> Result<(Ledger, Limit), RunDirError> {
    let limit = limit(runtime, server, sessions, starting)?;
    let ledger = Ledger::open(runtime, server)?;
    ledger.set_limit(&limit)?;
    Ok((ledger, limit))
}

/// The connections of each process of a run with so many threads. The run reserves them for all of its processes, if there are enough.
pub fn reserve_for_run(
    ledger: &Ledger,
    limit: &Limit,
    pool: &PoolConfig,
    run: &RunId,
    threads: usize,
) -> Result<Connections, RunDirError> {
    if ledger.reserve(run, full_demand(threads, pool.max_connections))? {
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

/// The slots with which no process ever waits: for each process the connections of its pool, and one for the session that creates a clone if none
/// is ready.
pub fn full_demand(threads: usize, pool: u32) -> u32 {
    let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
    threads.saturating_mul(pool.saturating_add(1))
}

/// The slots that a lease must queue for. `is_expected`: whether the run's reservation includes this lease; `declared`: the connections that the
/// test declares.
pub fn slots_to_request(
    connections: Connections,
    declared: Option<u32>,
    is_expected: bool,
    has_keeper: bool,
) -> u32 {
    let wanted = declared.unwrap_or(connections.per_process);
    if connections.reserved && is_expected {
        wanted.saturating_sub(connections.per_process)
    } else {
        // Without a keeper, this process holds the run lock and creates its clones on an additional session.
        wanted + u32::from(!has_keeper)
    }
}
