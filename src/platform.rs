//! All that differs between operating systems. Linux comes first; elsewhere polling takes the place of pidfd and inotify, and
//! data goes to disk because there is no tmpfs to be found.

use std::io;
use std::num::NonZero;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub use rustix::process::Signal;

/// Whether both paths lead to one folder: the same path, or the same device and inode.
pub fn is_same_folder(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    one == other || matches!((id(one), id(other)), (Ok(a), Ok(b)) if a == b)
}

/// Makes a command start in a session of its own, so that no terminal's or group's signal reaches it, with no descriptors but the
/// standard three and `keep`: an inherited pipe would keep `nextest run | tail` from ending. Our own descriptors stay as they are.
#[expect(
    unsafe_code,
    reason = "std has no safe setsid, and nobody owns inherited descriptors"
)]
pub fn detach(command: &mut Command, keep: &[RawFd]) {
    let keep = keep.to_vec();
    // SAFETY: what runs between fork and exec is system calls only; it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            close_all_on_exec();
            for fd in &keep {
                let fd = BorrowedFd::borrow_raw(*fd);
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
}

/// Marks every descriptor above the standard three. Kernels before 5.9 do not know the call: there what others left open without
/// the mark is inherited.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe wrapper")]
fn close_all_on_exec() {
    // SAFETY: a system call without pointers.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
}

/// Marks every descriptor above the standard three.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "nobody owns inherited descriptors")]
fn close_all_on_exec() {
    for fd in 3..1024 {
        // SAFETY: used for one call; a number that is not open gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
    }
}

/// Lets a descriptor stay open in what this process becomes.
///
/// # Errors
/// The operating system refused.
pub fn keep_on_exec(file: &std::fs::File) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
}

/// Sends a signal.
///
/// # Errors
/// There is no such process, or it is not ours to signal.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Kills a process group.
pub fn kill_group(leader: u32) {
    let leader = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader {
        let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    }
}

/// Whether a terminal sends its signals to our process group.
pub fn in_foreground() -> bool {
    let terminal = rustix::termios::tcgetpgrp(std::io::stdin()).ok();
    terminal.is_some_and(|group| group == rustix::process::getpgrp())
}

/// Whether a process of that number, name and user runs. Where the system does not tell, the number alone decides.
pub fn is_running(pid: u32, name: &str, uid: u32) -> bool {
    let of_user = || std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == uid);
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(comm) => comm.trim_end() == name && of_user(),
        Err(_) if cfg!(target_os = "linux") => false,
        Err(_) => i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()),
    }
}

/// Whether any process has that number.
pub fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        let asked = rustix::process::test_kill_process(pid);
        // Another user's, which we may not signal, is there too.
        asked != Err(rustix::io::Errno::SRCH)
    })
}

/// Whether a process of that number, name and user works in a folder, deleted or not. Where the system does not tell, the number
/// alone decides.
pub fn is_running_in(folder: &Path, pid: u32, name: &str, uid: u32) -> bool {
    is_running(pid, name, uid)
        && match std::fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(shown) => is_folder(folder, &shown),
            // A zombie has none any more.
            Err(_) => cfg!(not(target_os = "linux")),
        }
}

fn is_folder(folder: &Path, shown: &Path) -> bool {
    let mut deleted = folder.as_os_str().to_owned();
    deleted.push(" (deleted)");
    shown == folder || shown.as_os_str() == deleted
}

/// The processes of that name and user that work in a folder, deleted or not. None where the system does not tell.
pub fn running_in(folder: &Path, name: &str, uid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_running_in(folder, *pid, name, uid))
        .collect()
}

/// A user's and its group's number.
pub fn user_ids(name: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    });
    entry.or_else(|| Some((ask_id("-u", name)?, ask_id("-g", name)?)))
}

/// Users that are not in the file (LDAP, macOS) are known to `id`.
fn ask_id(flag: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Cores that this process may use; one, as nextest takes it, where nobody knows.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes that may still be written below a path. On a tmpfs also what the memory limit of our control group leaves: its files
/// are memory.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if tmpfs_room(path) == 0 {
        return Some(free);
    }
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?;
        text.trim().parse().ok()
    };
    let Some((most, now)) = read("memory.max").zip(read("memory.current")) else {
        return Some(free);
    };
    let cached = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").map_or(0, |s| cache(&s));
    Some(free.min(most.saturating_sub(now.saturating_sub(cached))))
}

/// What a control group counts as used and gives up when it is asked for more: pages of files that nobody has used lately.
fn cache(memory_stat: &str) -> u64 {
    let mut lines = memory_stat.lines();
    let pages = lines.find_map(|line| line.strip_prefix("inactive_file "));
    pages.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// All bytes of the file system that a path is on.
pub fn disk_size(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Free bytes of a tmpfs; zero where the path is on none.
#[cfg(target_os = "linux")]
pub fn tmpfs_room(path: &Path) -> u64 {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    match rustix::fs::statfs(path) {
        Ok(stat) if stat.f_type == TMPFS_MAGIC => {
            stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs())
        }
        _ => 0,
    }
}

/// Free bytes of a tmpfs; macOS has none by default.
#[cfg(not(target_os = "linux"))]
pub fn tmpfs_room(_path: &Path) -> u64 {
    0
}

#[cfg(feature = "cli")]
pub use cli::{DirWatch, ProcessId, ProcessWatch, inherit, nextest_ancestor};

#[cfg(feature = "cli")]
mod cli {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
    use std::path::Path;
    use std::time::Duration;

    use rustix::io::FdFlags;

    /// How often we look where the system cannot tell.
    const POLL: Duration = Duration::from_millis(50);

    /// Takes over a descriptor that the parent left open for us under this number.
    ///
    /// # Errors
    /// There is no such descriptor.
    #[expect(unsafe_code, reason = "the number comes from our parent")]
    pub fn inherit(fd: RawFd) -> io::Result<File> {
        // SAFETY: checked to be open right below; the hidden subcommand that calls this owns what its parent passed.
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
    fn readable(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
        let interest = tokio::io::Interest::READABLE;
        // SAFETY: an `OwnedFd` is a valid descriptor, and the `AsyncFd` that owns it neither replaces nor closes it.
        Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) }?)
    }

    /// A process that we wait for without being its parent.
    #[derive(Debug)]
    pub enum ProcessWatch {
        /// The system tells.
        #[cfg(target_os = "linux")]
        Pidfd(tokio::io::unix::AsyncFd<OwnedFd>),
        /// We look.
        Poll(ProcessId),
    }

    /// A process, told from a later one with the same number by its start time (zero where the system does not tell).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            parse().ok_or_else(|| format!("`{text}` is no process id"))
        }
    }

    impl ProcessId {
        /// Ourselves.
        pub fn own() -> Option<Self> {
            Self::of(std::process::id())
        }

        /// Our parent.
        pub fn parent() -> Option<Self> {
            let parent = rustix::process::getppid()?;
            Self::of(parent.as_raw_nonzero().get().unsigned_abs())
        }

        /// The process with that number now.
        pub fn of(pid: u32) -> Option<Self> {
            let (_, started) = stat(pid)?;
            Some(Self { pid, started })
        }
    }

    /// The nearest process above us that is nextest, else our parent.
    pub fn nextest_ancestor() -> Option<ProcessId> {
        let parent = rustix::process::getppid()?;
        let parent = parent.as_raw_nonzero().get().unsigned_abs();
        let mut pid = parent;
        while pid > 1 {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim_end() == "cargo-nextest" {
                return ProcessId::of(pid);
            }
            // Without `/proc` the processes above our parent stay unknown.
            let Some((above, _)) = stat(pid).filter(|(above, _)| *above > 0) else {
                break;
            };
            pid = above;
        }
        (parent > 1).then(|| ProcessId::of(parent)).flatten()
    }

    /// A process's parent and start time, zero where unknown; `None` where there is no such process.
    #[cfg(target_os = "linux")]
    fn stat(pid: u32) -> Option<(u32, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; what follows the last one is fields 3 (state), 4 (parent), … 22 (start).
        let mut after = stat.rsplit_once(')')?.1.split_whitespace();
        let parent = after.nth(1)?.parse().ok()?;
        Some((parent, after.nth(17)?.parse().ok()?))
    }

    #[cfg(not(target_os = "linux"))]
    fn stat(pid: u32) -> Option<(u32, u64)> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        rustix::process::test_kill_process(pid)
            .ok()
            .map(|()| (0, 0))
    }

    impl ProcessWatch {
        /// Begins to watch. `None`: it is gone already.
        pub fn open(process: &ProcessId) -> Option<Self> {
            let watch = Self::pidfd(process.pid).unwrap_or(Self::Poll(*process));
            // Checked after opening: the number may have gone to another process in between.
            (ProcessId::of(process.pid) == Some(*process)).then_some(watch)
        }

        #[cfg(target_os = "linux")]
        fn pidfd(pid: u32) -> Option<Self> {
            use rustix::process::{Pid, PidfdFlags, pidfd_open};
            let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
            let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            readable(fd).ok().map(Self::Pidfd)
        }

        #[cfg(not(target_os = "linux"))]
        fn pidfd(_pid: u32) -> Option<Self> {
            None
        }

        /// Waits for its end.
        pub async fn ended(&self) {
            match self {
                #[cfg(target_os = "linux")]
                Self::Pidfd(pidfd) => drop(pidfd.readable().await),
                Self::Poll(process) => {
                    while ProcessId::of(process.pid) == Some(*process) {
                        tokio::time::sleep(POLL).await;
                    }
                }
            }
        }
    }

    /// Tells when something in some folders changes.
    #[derive(Debug)]
    pub struct DirWatch {
        #[cfg(target_os = "linux")]
        inotify: Option<tokio::io::unix::AsyncFd<OwnedFd>>,
    }

    impl DirWatch {
        /// Watches folders for entries that come and go, or that who wrote into them closes; falls back to polling where the system's watches are used up.
        #[cfg(target_os = "linux")]
        pub fn open(folders: &[&Path]) -> Self {
            let inotify = Self::inotify(folders);
            if let Err(error) = &inotify {
                tracing::info!("no inotify ({error}); polling");
            }
            Self {
                inotify: inotify.ok(),
            }
        }

        /// Watches folders for entries that come and go.
        #[cfg(not(target_os = "linux"))]
        pub fn open(_folders: &[&Path]) -> Self {
            Self {}
        }

        #[cfg(target_os = "linux")]
        fn inotify(folders: &[&Path]) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
            use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
            let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            for folder in folders {
                let events = WatchFlags::MOVED_TO
                    | WatchFlags::MOVED_FROM
                    | WatchFlags::CREATE
                    | WatchFlags::DELETE
                    | WatchFlags::CLOSE_WRITE;
                inotify::add_watch(&fd, *folder, events)?;
            }
            readable(fd)
        }

        /// Waits until something has changed, or may have.
        #[cfg(target_os = "linux")]
        pub async fn changed(&self) {
            let Some(inotify) = &self.inotify else {
                return tokio::time::sleep(POLL).await;
            };
            if let Ok(mut guard) = inotify.readable().await {
                let mut buffer = [0_u8; 4096];
                while rustix::io::read(inotify.get_ref().as_fd(), &mut buffer).is_ok_and(|n| n > 0)
                {
                }
                guard.clear_ready();
            }
        }

        /// Waits until something may have changed.
        #[cfg(not(target_os = "linux"))]
        pub async fn changed(&self) {
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(user_ids("root"), Some((0, 0)));
        assert_eq!(user_ids("no-such-user-here"), None);
    }

    #[test]
    fn what_a_control_group_can_give_up_is_read() {
        assert_eq!(cache("anon 5\ninactive_file 4096\nactive_file 7\n"), 4096);
        assert_eq!(cache("anon 5\n"), 0);
    }
}
