//! A line in the entries of this process if a signal ends it. Only the parent of a process learns how it ended, and the parent of a test process is not ours.
//!
//! A handler writes the line, and lets the signal end the process as it would have without the handler. It is never in the way of a handler of the program: it is
//! installed only where there is none, and does nothing where a later one calls it. SIGKILL and some crashes leave no line.

use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Instant;

/// The signals that end a process, and that it can see.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGINT, "SIGINT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGABRT, "SIGABRT"),
];

/// The handler has to find everything without locks and without memory of its own.
struct Slot {
    fd: AtomicI32,
    /// When the process got the database, in seconds after the handler was installed.
    since: AtomicU64,
}

const FREE: i32 = -1;
const BEING_FILLED: i32 = -2;

static SLOTS: [Slot; 64] = [const {
    Slot {
        fd: AtomicI32::new(FREE),
        since: AtomicU64::new(0),
    }
}; 64];

/// When the handler was installed, and in which process: a child that has not called `exec` inherits it.
static INSTALLED: OnceLock<(Instant, u32)> = OnceLock::new();

/// While it lives, an entry gets the line.
#[derive(Debug)]
pub(super) struct LastWords(Option<usize>);

impl LastWords {
    /// For an entry that is open to append, and is closed later than this is dropped. A process that has more than 64 at once leaves no line in the others.
    pub(super) fn into(entry: &File) -> Self {
        let (installed, _) = INSTALLED.get_or_init(install);
        let take = |slot: &Slot| {
            let order = Ordering::Relaxed;
            let taken = slot.fd.compare_exchange(FREE, BEING_FILLED, order, order);
            taken.is_ok()
        };
        let index = SLOTS.iter().position(take);
        if let Some(index) = index {
            let slot = &SLOTS[index];
            let since = installed.elapsed().as_secs();
            slot.since.store(since, Ordering::Relaxed);
            slot.fd.store(entry.as_raw_fd(), Ordering::Release);
        }
        Self(index)
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            SLOTS[index].fd.store(FREE, Ordering::Release);
        }
    }
}

/// The line for a signal. It is that of a [`FailureCause`](crate::protocol::FailureCause).
fn write_line(mut to: impl Write, signal: &str, after_secs: u64) -> std::io::Result<()> {
    let mut line = [0; 96];
    let mut rest = &mut line[..];
    writeln!(
        rest,
        r#"{{"died":{{"after_secs":{after_secs},"signal":"{signal}"}}}}"#
    )?;
    let unused = rest.len();
    let length = line.len() - unused;
    to.write_all(&line[..length])
}

#[expect(unsafe_code, reason = "std has no signal handlers")]
fn install() -> (Instant, u32) {
    for (signal, _) in SIGNALS {
        // SAFETY: the handler calls only functions that are safe in a signal handler.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let is_free = libc::sigaction(signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_DFL;
            if is_free {
                action.sa_sigaction = handler as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
    }
    (Instant::now(), std::process::id())
}

#[expect(unsafe_code, reason = "std has no signal handlers")]
extern "C" fn handler(signal: c_int) {
    // SAFETY: these calls are safe in a signal handler. Descriptors in the slots are open.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action);
        if action.sa_sigaction != handler as *const () as libc::sighandler_t {
            return;
        }
        note(signal);
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &action, std::ptr::null_mut());
        // It is blocked until this function returns.
        libc::raise(signal);
    }
}

fn note(signal: c_int) {
    let Some((installed, process)) = INSTALLED.get() else {
        return;
    };
    let known = SIGNALS.iter().find(|(number, _)| *number == signal);
    let Some((_, name)) = known.filter(|_| *process == std::process::id()) else {
        return;
    };
    let now = installed.elapsed().as_secs();
    for slot in &SLOTS {
        let fd = slot.fd.load(Ordering::Acquire);
        if fd >= 0 {
            let since = slot.since.load(Ordering::Relaxed);
            // The process ends now, so it cannot report an error.
            let _ = write_line(Descriptor(fd), name, now.saturating_sub(since));
        }
    }
}

/// A descriptor that somebody else closes.
struct Descriptor(i32);

impl Write for Descriptor {
    #[expect(unsafe_code, reason = "the descriptor has an owner elsewhere")]
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // SAFETY: the claim that owns the descriptor keeps it open as long as its slot has it.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) };
        Ok(rustix::io::write(fd, bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FailureCause;

    #[test]
    fn the_line_is_that_of_a_cause() {
        for (_, signal) in SIGNALS {
            let mut line = Vec::new();
            write_line(&mut line, signal, u64::MAX).expect("room");
            let line = String::from_utf8(line).expect("text");
            let text = line.strip_suffix('\n').expect("a whole line");
            let died = FailureCause::Died {
                after_secs: Some(u64::MAX),
                signal: Some(signal.to_owned()),
            };
            assert_eq!(FailureCause::parse(text), Some(died));
        }
    }

    #[test]
    fn a_slot_is_free_again_after_its_claim() {
        let file = tempfile::tempfile().expect("a file");
        let all: Vec<_> = (0..65).map(|_| LastWords::into(&file)).collect();
        assert!(all.last().expect("65").0.is_none());
        drop(all);
        assert!(LastWords::into(&file).0.is_some());
    }
}
