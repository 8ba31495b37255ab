//! Temporary directories for servers.

use std::path::Path;

use kapsel_testdb_core::platform;
use rustix::fs::StatVfsMountFlags;
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";
const DISK: &str = "/tmp";

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
