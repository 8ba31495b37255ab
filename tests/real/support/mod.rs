//! What all tests here stand on: throwaway servers, a user's project, the real binary with a clean environment.

mod certificates;
mod client_programs;
mod command;
mod composed;
mod fake_bin;
mod kept;
mod launcher;
mod nextest;
mod old_server;
mod pgbouncer;
mod project;
mod server;
mod session;

use std::time::{Duration, Instant};

pub use certificates::Certificates;
pub use client_programs::ClientPrograms;
pub use command::{BINARY, Outcome, Tool};
pub use composed::{Composed, one_service};
pub use fake_bin::FakeBin;
pub use kept::{Attempt, kept, wait_for_kept};
pub use launcher::{BIN_DIR, PROGRAMS, binaries};
pub use nextest::{DeadRun, FakeNextest, keeper_of, read_run};
pub use old_server::OldServer;
pub use pgbouncer::PgBouncer;
pub use project::Project;
pub use server::{ROLE, Server, free_port};
pub use session::Session;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks every few milliseconds until there is something, and fails with the last `Err` when time runs out.
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

/// A new folder with a short path (a unix socket's path has about 103 bytes), removed with its handle.
pub fn short_temp_dir() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("kt-")
        .tempdir_in("/tmp")
        .expect("a folder under /tmp")
}
