//! Waits for the end of another process or for a change in a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::FdFlags;

/// Interval of checks without pidfd or inotify.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Takes ownership of a descriptor that the parent process passed under this number.
///
/// # Errors
/// There is no such descriptor.
#[expect(unsafe_code, reason = "the number comes from our parent")]
pub fn inherit(fd: RawFd) -> io::Result<File> {
    // SAFETY: the next statement checks that it is open; the hidden subcommand that calls this owns the descriptors from its parent.
    let file = unsafe { File::from_raw_fd(fd) };
    match rustix::io::fcntl_setfd(&file, FdFlags::CLOEXEC) {
        Ok(()) => Ok(file),
        Err(error) => {
            std::mem::forget(file);
            Err(error.into())
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "tokio has no safe constructor any more")]
fn async_fd(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let interest = tokio::io::Interest::READABLE;
    // SAFETY: an `OwnedFd` is a valid descriptor, and the `AsyncFd` that owns it neither replaces nor closes it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) }?)
}

/// Waits for a process that need not be a child.
#[derive(Debug)]
pub enum ProcessWatch {
    /// The system notifies us.
    #[cfg(target_os = "linux")]
    Pidfd(tokio::io::unix::AsyncFd<OwnedFd>),
    /// We check at intervals.
    Poll(ProcessId),
}

/// A process id with the start time, which distinguishes it from a later process with the same id (0 if unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    pid: u32,
    started: u64,
}

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.pid, self.started)
    }
}

impl std::str::FromStr for ProcessId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (pid, started) = text.split_once(':')?;
            Some(Self {
                pid: pid.parse().ok()?,
                started: started.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is not a process id"))
    }
}

impl ProcessId {
    /// This process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The parent process.
    pub fn parent() -> Option<Self> {
        let parent = rustix::process::getppid()?;
        Self::of(parent.as_raw_nonzero().get().unsigned_abs())
    }

    /// The process that called this program: the parent, but not a subshell that only runs a command substitution, as in `"$(acquire | tee log)"`.
    /// It ends with this program; its parent reads the output. Without `/proc`, the parent.
    pub fn caller() -> Option<Self> {
        let mut caller = Self::parent()?;
        while let Some(above) = reader_of_subshell(caller.pid) {
            caller = Self::of(above)?;
        }
        Some(caller)
    }

    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Self> {
        let (_, started) = stat(pid)?;
        Some(Self { pid, started })
    }
}

/// The parent of a process, if the process is a fork of it without a program of its own, and the parent reads its standard output.
fn reader_of_subshell(pid: u32) -> Option<u32> {
    /// The kernel's `PF_FORKNOEXEC`.
    const FORKED_WITHOUT_EXEC: u64 = 0x40;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 4 is the parent, field 9 the flags.
    let mut after = stat.rsplit_once(')')?.1.split_whitespace();
    let parent: u32 = after.nth(1)?.parse().ok()?;
    let flags: u64 = after.nth(4)?.parse().ok()?;
    let output = std::fs::read_link(format!("/proc/{pid}/fd/1")).ok()?;
    let is_pipe = output.to_string_lossy().starts_with("pipe:");
    if !is_pipe || flags & FORKED_WITHOUT_EXEC == 0 {
        return None;
    }
    let mut descriptors = std::fs::read_dir(format!("/proc/{parent}/fd"))
        .ok()?
        .flatten();
    let reads = |descriptor: std::fs::DirEntry| {
        // The mode of the link is that of the descriptor.
        let mode = descriptor.metadata().map_or(0, |link| link.mode());
        mode & 0o400 != 0 && std::fs::read_link(descriptor.path()).is_ok_and(|to| to == output)
    };
    descriptors.any(reads).then_some(parent)
}

/// The parent and start time of a process (0 if unknown); `None` if there is no such process.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; after the last parenthesis come fields 3 (state), 4 (parent), … 22 (start).
    let mut after = stat.rsplit_once(')')?.1.split_whitespace();
    let parent = after.nth(1)?.parse().ok()?;
    Some((parent, after.nth(17)?.parse().ok()?))
}

#[cfg(not(target_os = "linux"))]
fn stat(pid: u32) -> Option<(u32, u64)> {
    super::process_exists(pid).then_some((0, 0))
}

impl ProcessWatch {
    /// Starts to watch. `None`: the process has already ended.
    pub fn open(process: &ProcessId) -> Option<Self> {
        let watch = Self::pidfd(process.pid).unwrap_or(Self::Poll(*process));
        // Checked after opening, because another process may have got the id in between.
        (ProcessId::of(process.pid) == Some(*process)).then_some(watch)
    }

    #[cfg(target_os = "linux")]
    fn pidfd(pid: u32) -> Option<Self> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        async_fd(fd).ok().map(Self::Pidfd)
    }

    #[cfg(not(target_os = "linux"))]
    fn pidfd(_pid: u32) -> Option<Self> {
        None
    }

    /// Waits until the process ends.
    pub async fn ended(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pidfd(pidfd) => drop(pidfd.readable().await),
            Self::Poll(process) => {
                while ProcessId::of(process.pid) == Some(*process) {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
    }
}

/// Waits for changes in directories.
#[derive(Debug)]
pub struct DirWatch {
    #[cfg(target_os = "linux")]
    inotify: Option<tokio::io::unix::AsyncFd<OwnedFd>>,
}

impl DirWatch {
    /// Watches directories for entries that are added, removed, or closed after writing. Polls if the system has no inotify watches left.
    #[cfg(target_os = "linux")]
    pub fn open(directories: &[&Path]) -> Self {
        let inotify = Self::inotify(directories);
        if let Err(error) = &inotify {
            tracing::info!("polling, because inotify is not available: {error}");
        }
        Self {
            inotify: inotify.ok(),
        }
    }

    /// Watches directories for entries that are added or removed.
    #[cfg(not(target_os = "linux"))]
    pub fn open(_directories: &[&Path]) -> Self {
        Self {}
    }

    #[cfg(target_os = "linux")]
    fn inotify(directories: &[&Path]) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for directory in directories {
            let events = WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::CLOSE_WRITE;
            inotify::add_watch(&fd, *directory, events)?;
        }
        async_fd(fd)
    }

    /// Waits until something changed or may have changed.
    #[cfg(target_os = "linux")]
    pub async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return tokio::time::sleep(POLL_INTERVAL).await;
        };
        if let Ok(mut guard) = inotify.readable().await {
            let mut buffer = [0_u8; 4096];
            while rustix::io::read(inotify.get_ref().as_fd(), &mut buffer).is_ok_and(|n| n > 0) {}
            guard.clear_ready();
        }
    }

    /// Waits until something changed or may have changed.
    #[cfg(not(target_os = "linux"))]
    pub async fn changed(&self) {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
