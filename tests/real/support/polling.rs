//! Waits that have a limit.

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Polls every few milliseconds until there is something, and fails with the last `Err` when time runs out.
pub fn poll_until<T>(what: &str, deadline: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    try_poll_until(deadline, look).unwrap_or_else(|last| {
        panic!("timed out after {deadline:?} waiting until {what}; last result: {last}")
    })
}

/// [`poll_until`] for destructors, which must not panic.
pub fn try_poll_until<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if begun.elapsed() > deadline => return Err(last),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
