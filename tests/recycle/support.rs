//! Throwaway servers, as in `tests/real`.

use std::path::Path;
use std::time::{Duration, Instant};

use kapsel_testdb_core::platform;
use tempfile::TempDir;

#[path = "../real/support/certificates.rs"]
mod certificates;
#[path = "../real/support/launcher.rs"]
mod launcher;
#[path = "../real/support/server.rs"]
mod server;
#[path = "../real/support/session.rs"]
mod session;

pub use certificates::Certificates;
pub use launcher::BIN_DIR;
pub use server::Server;
pub use session::Session;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks every few milliseconds until there is something, and fails with the last `Err` when time runs out.
pub fn poll_until<T>(what: &str, deadline: Duration, look: impl FnMut() -> Result<T, String>) -> T {
    try_poll_until(deadline, look)
        .unwrap_or_else(|last| panic!("timed out after {deadline:?} waiting until {what}: {last}"))
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

/// A new directory with a short path, in memory if there is room.
pub fn short_temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = platform::tmpfs_free_bytes(memory) >= 2 << 30;
    let parent = if room { memory } else { Path::new("/tmp") };
    let dir = tempfile::Builder::new().prefix("kt-").tempdir_in(parent);
    dir.expect("a temporary directory")
}
