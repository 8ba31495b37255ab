//! Waits in the ledger's queue for connection slots.

use std::fmt;
use std::time::{Duration, Instant};

use crate::pg::error::backoff;
use crate::protocol::{Ledger, Limit, QueueEntry, RunDirError};

/// How often a waiting process reaps stale entries.
const REAP_INTERVAL: Duration = Duration::from_millis(250);
/// How long a process waits before it reports that it waits.
const NOTIFY_AFTER: Duration = Duration::from_secs(2);
/// The longest wait. After it the process continues without slots, and the server may refuse its connections.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// An event of a wait, to be printed.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// Other processes hold the slots.
    Waiting {
        /// Slots that the process waits for.
        slots: u32,
        /// The limit.
        limit: &'a Limit,
    },
    /// The wait timed out, and the process continues without slots.
    GaveUp {
        /// Slots that the process waited for.
        slots: u32,
        /// The duration of the wait.
        waited: Duration,
    },
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { slots, limit } => write!(
                f,
                "waiting for {slots} connection slots: other test processes hold them (tests share {} of the server's {} connections; \
                 `kapsel-testdb status` shows how that number is computed)",
                limit.slots, limit.max_connections
            ),
            Self::GaveUp { slots, waited } => write!(
                f,
                "timed out after {} s waiting for {slots} connection slots; continuing without a reservation; if the server refuses \
                 connections, raise its max_connections, or run fewer tests at once",
                waited.as_secs()
            ),
        }
    }
}

/// Enters the queue and waits until the entry is granted, at most two minutes. `wanted` computes the number of slots from the limit and the number
/// of entries.
///
/// # Errors
/// The ledger cannot be read or written.
pub async fn wait(
    ledger: &Ledger,
    wanted: impl FnOnce(&Limit, usize) -> u32,
    mut notify: impl FnMut(Notice<'_>),
) -> Result<QueueEntry, RunDirError> {
    let entry = ledger.enqueue(wanted)?;
    let slots = entry.holder.slots;
    let started = Instant::now();
    let (mut reaped, mut notified) = (None::<Instant>, false);
    for attempt in 0.. {
        if ledger.is_granted(&entry.holder) {
            break;
        }
        if reaped.is_none_or(|at| at.elapsed() > REAP_INTERVAL) {
            ledger.reap_stale_entries()?;
            reaped = Some(Instant::now());
            continue;
        }
        if started.elapsed() > WAIT_LIMIT {
            notify(Notice::GaveUp {
                slots,
                waited: WAIT_LIMIT,
            });
            break;
        }
        if started.elapsed() > NOTIFY_AFTER && !notified {
            notify(Notice::Waiting {
                slots,
                limit: &ledger.limit(),
            });
            notified = true;
        }
        tokio::time::sleep(backoff(attempt.min(3))).await;
    }
    Ok(entry)
}
