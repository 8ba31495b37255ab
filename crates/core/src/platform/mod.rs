//! Everything that differs between operating systems. Linux has pidfd, inotify and tmpfs; on other systems the code polls, and
//! data are on disk.

mod ancestors;
pub mod disk;
mod flock;
mod listeners;
mod locales;
mod login;
mod process;
mod space;
mod system;
mod users;
mod watch;

use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use ancestors::nextest_ancestor;
pub use flock::{LockMode, SHORT_LOCK_LIMIT, lock};
pub use listeners::listening_sockets;
pub use locales::locales;
pub use login::files_end_with_login;
pub use process::{
    Signal, detach, in_foreground, is_running, is_running_in, keep_on_exec, kill_group,
    process_exists, processes_in, signal,
};
pub use space::{disk_size, free_bytes, tmpfs_free_bytes};
pub use system::System;
pub use users::user_ids;
pub use watch::{DirWatch, ProcessId, ProcessWatch, inherit};

/// Whether both paths name the same directory: equal paths, or the same device and inode.
pub fn is_same_dir(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    one == other || matches!((id(one), id(other)), (Ok(a), Ok(b)) if a == b)
}

/// Number of cores that this process may use; 1 if unknown, as in nextest.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
