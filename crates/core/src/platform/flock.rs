//! Waits for a `flock`. The wait has a limit, because the process that holds the lock may be suspended.

use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

/// The limit for locks that are held for milliseconds.
pub const SHORT_LOCK_LIMIT: Duration = Duration::from_secs(60);

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Besides other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// Takes the lock of an open file; waits at most `limit` for other processes.
///
/// # Errors
/// The system call failed, or another process held the lock for too long.
pub fn lock(file: &File, mode: LockMode, limit: Duration) -> io::Result<()> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        let tried = match mode {
            LockMode::Shared => file.try_lock_shared(),
            LockMode::Exclusive => file.try_lock(),
        };
        match tried {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if started.elapsed() >= limit => {
                let message = format!(
                    "another process has held the lock for {} s; if it is suspended, continue or end it (`fuser` shows it)",
                    started.elapsed().as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_not_freed_is_an_error_after_the_limit() {
        let directory = tempfile::tempdir().expect("a temp dir");
        let path = directory.path().join("lock");
        let open = || {
            let options = File::options().create(true).append(true).open(&path);
            options.expect("a file")
        };
        let (holder, waiter) = (open(), open());
        let limit = Duration::from_millis(20);
        holder.lock_shared().expect("a lock");
        lock(&waiter, LockMode::Shared, limit).expect("a second shared lock");
        waiter.unlock().expect("an unlock");
        let refused = lock(&waiter, LockMode::Exclusive, limit).expect_err("a limit");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        drop(holder);
        lock(&waiter, LockMode::Exclusive, limit).expect("a free lock");
    }
}
