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

use std::path::Path;
use std::time::{Duration, Instant};

use kapsel_testdb_core::platform;
use rustix::fs::StatVfsMountFlags;
use tempfile::TempDir;

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

const MEMORY: &str = "/dev/shm";
const DISK: &str = "/tmp";

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

/// A new directory with a short path (a unix socket's path has about 103 bytes), removed with its handle. It is in memory if there is
/// room: some file systems take long for the thousands of small files of a server.
pub fn short_temp_dir() -> TempDir {
    let executable = rustix::fs::statvfs(MEMORY)
        .is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let room = platform::tmpfs_free_bytes(Path::new(MEMORY)) >= 2 << 30;
    temp_dir_in(if executable && room { MEMORY } else { DISK })
}

/// [`short_temp_dir`] on disk.
pub fn short_temp_dir_on_disk() -> TempDir {
    temp_dir_in(DISK)
}

fn temp_dir_in(parent: &str) -> TempDir {
    let mut builder = tempfile::Builder::new();
    let dir = builder.prefix("kt-").tempdir_in(parent);
    dir.expect("a temporary directory")
}
