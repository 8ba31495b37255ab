//! Waits in the ledger's queue for connection slots.

use std::fmt;
use std::time::{Duration, Instant};

use crate::plural::count;
use crate::protocol::{Ledger, Limit, QueueEntry, RunDirError, random};

/// How often the waiting processes together reap stale entries.
const REAP_INTERVAL: Duration = Duration::from_millis(250);
/// The longest pause of the first process in the queue. The next ones pause twice as long, three times as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(40);
/// The longest pause of any process.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
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
                "waiting for {}: other test processes hold them (tests share {} of the server's {}; \
                 `kapsel-testdb status -v` shows how that number is computed)",
                count(*slots, "connection slot"),
                limit.slots,
                count(limit.max_connections, "connection")
            ),
            Self::GaveUp { slots, waited } => write!(
                f,
                "timed out after {} s waiting for {}; continuing without a reservation; if the server refuses \
                 connections, raise its max_connections, or run fewer tests at once",
                waited.as_secs(),
                count(*slots, "connection slot")
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
    let mut standing = ledger.standing()?;
    let mut notified = false;
    while let Some(ahead) = standing.ahead(ledger, &entry.holder) {
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
        ledger.reap_if_due(REAP_INTERVAL)?;
        tokio::time::sleep(pause(ahead, started.elapsed())).await;
    }
    Ok(entry)
}

/// The pause of a process with so many others before it. The first pauses are shorter, because many waits are. Shortened at random by up to a half, so
/// that processes do not check together.
fn pause(ahead: usize, waited: Duration) -> Duration {
    let place = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1);
    let full = FIRST_PAUSE
        .saturating_mul(place)
        .min(LONGEST_PAUSE)
        .min(waited.max(Duration::from_millis(5)));
    full - full * u32::try_from(random() % 256).unwrap_or(0) / 512
}
