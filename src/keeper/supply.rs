//! Pauses after new databases got no entry, because the runtime directory cannot be written. Such a database is dropped at once; without pauses the
//! keeper would create and drop databases as fast as the server can.

use std::path::Path;
use std::time::{Duration, Instant};

use kapsel_testdb_core::env;
use kapsel_testdb_core::protocol::RunDirError;

/// The pauses after the first failures in a row.
const FIRST_PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];
/// The pause after each later one.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// Whether the keeper may make databases ready ahead of demand.
#[derive(Debug, Default)]
pub struct Supply {
    failures: usize,
    resume: Option<Instant>,
}

impl Supply {
    /// How many databases may be made ready at `now`, at most `room`: none during a pause, and one after it.
    pub fn limit(&self, room: usize, now: Instant) -> usize {
        match self.resume {
            None => room,
            Some(resume) if now < resume => 0,
            Some(_) => room.min(1),
        }
    }

    /// A database got no entry. Returns whether this begins the first long pause. The other jobs that began before the pause do not count.
    pub fn failed(&mut self, now: Instant) -> bool {
        if self.resume.is_some_and(|resume| now < resume) {
            return false;
        }
        let pause = FIRST_PAUSES.get(self.failures).unwrap_or(&LONG_PAUSE);
        self.resume = Some(now + *pause);
        self.failures += 1;
        self.failures == FIRST_PAUSES.len() + 1
    }

    /// A database got its entry.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// The message about the first long pause, with the remedy.
pub fn warning(run_dir: &Path, error: &RunDirError) -> String {
    let seconds = LONG_PAUSE.as_secs();
    format!(
        "cannot write to the run directory `{}`, so new databases get no entry: the keeper stops creating databases ahead of demand and tries again every \
         {seconds} s; free space on its file system and make it writable, or set {} to a directory on another one ({error})",
        run_dir.display(),
        env::RUNTIME_DIR
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_the_third_one_is_reported_once() {
        let mut supply = Supply::default();
        let mut now = Instant::now();
        assert_eq!(supply.limit(8, now), 8);
        let mut reports = Vec::new();
        for pause in [250, 1000, 60_000, 60_000] {
            reports.push(supply.failed(now));
            assert!(!supply.failed(now), "a job that ran at the same time");
            let pause = Duration::from_millis(pause);
            assert_eq!(supply.limit(8, now + pause - Duration::from_millis(1)), 0);
            now += pause;
            assert_eq!(supply.limit(8, now), 1, "one attempt");
        }
        assert_eq!(reports, [false, false, true, false]);
        supply.succeeded();
        assert_eq!(supply.limit(8, now), 8);
        assert!(!supply.failed(now), "counts from the beginning");
    }
}
