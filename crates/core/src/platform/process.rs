//! Processes: start detached, signal, find.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub use rustix::process::Signal;

/// Makes a command start in a session of its own, so that signals of a terminal or a process group do not reach it. It inherits
/// only the standard descriptors and `keep`: an inherited pipe would keep `nextest run | tail` from ending. The descriptors of this
/// process do not change.
#[expect(
    unsafe_code,
    reason = "std has no safe setsid, and inherited descriptors have no owner"
)]
pub fn detach(command: &mut Command, keep: &[RawFd]) {
    let keep = keep.to_vec();
    // SAFETY: between fork and exec there are only system calls and no allocations.
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

/// Sets close-on-exec on every descriptor above the standard three. Kernels before 5.9 lack the call: there, descriptors that
/// were opened without the flag are inherited.
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

/// Sets close-on-exec on every descriptor above the standard three.
#[cfg(not(target_os = "linux"))]
#[expect(unsafe_code, reason = "inherited descriptors have no owner")]
fn close_all_on_exec() {
    for fd in 3..1024 {
        // SAFETY: used for one call; a number that is not open gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
    }
}

/// Clears close-on-exec on a descriptor.
///
/// # Errors
/// `fcntl` fails.
pub fn keep_on_exec(file: &std::fs::File) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?)
}

/// Sends a signal.
///
/// # Errors
/// There is no such process, or we may not signal it.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Kills the process group of `leader`.
pub fn kill_group(leader: u32) {
    let leader = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader {
        let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    }
}

/// Whether our process group is the foreground group of the terminal.
pub fn in_foreground() -> bool {
    let terminal = rustix::termios::tcgetpgrp(std::io::stdin()).ok();
    terminal.is_some_and(|group| group == rustix::process::getpgrp())
}

/// Whether a process with this id, name and user runs. Without `/proc`, only the id is checked.
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

/// Whether any process has this id.
pub fn process_exists(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| {
        let tested = rustix::process::test_kill_process(pid);
        // Another user's process, which we may not signal, exists as well.
        tested != Err(rustix::io::Errno::SRCH)
    })
}

/// Whether a process with this id, name and user has `directory`, deleted or not, as its working directory. Without `/proc`, only
/// the id is checked.
pub fn is_running_in(directory: &Path, pid: u32, name: &str, uid: u32) -> bool {
    is_running(pid, name, uid)
        && match std::fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(cwd) => is_cwd(directory, &cwd),
            // A zombie has no working directory.
            Err(_) => cfg!(not(target_os = "linux")),
        }
}

fn is_cwd(directory: &Path, cwd: &Path) -> bool {
    let mut deleted = directory.as_os_str().to_owned();
    deleted.push(" (deleted)");
    let is_resolved = || std::fs::canonicalize(directory).is_ok_and(|path| path == cwd);
    cwd == directory || cwd.as_os_str() == deleted || is_resolved()
}

/// The processes with this name and user that have `directory`, deleted or not, as their working directory. Empty without `/proc`.
pub fn processes_in(directory: &Path, name: &str, uid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_running_in(directory, *pid, name, uid))
        .collect()
}
