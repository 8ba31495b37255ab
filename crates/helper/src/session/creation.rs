//! A clone that this process creates. The future that waits for it may be dropped at any moment, for example by a time-out, but the server finishes the
//! `CREATE DATABASE` all the same. So the task that creates the clone shares the claim with the future, and releases the clone if the future is gone.
//! A crash leaves a leased entry whose `flock` is free.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kapsel_testdb_core::protocol::{Baseline, Claim, DbName, Entries, EntryState};

use crate::session::{Session, lock};

#[derive(Debug)]
enum Progress {
    Running(Claim),
    /// The future that waited for the clone was dropped.
    Abandoned(Claim),
    Created(Claim),
    /// The claim is taken, or the creation failed.
    Ended,
}

/// The share of the task that creates the clone.
pub(super) struct Creator {
    progress: Arc<Mutex<Progress>>,
    run_dir: PathBuf,
    name: DbName,
}

/// The share of the future that waits for the clone.
pub(super) struct Waiter<'a> {
    progress: Arc<Mutex<Progress>>,
    session: &'a Session,
}

/// Shares the claim on a clone that is about to be created.
pub(super) fn share(claim: Claim, session: &Session) -> (Creator, Waiter<'_>) {
    let name = claim.name.clone();
    let progress = Arc::new(Mutex::new(Progress::Running(claim)));
    let creator = Creator {
        progress: progress.clone(),
        run_dir: session.path.clone(),
        name,
    };
    (creator, Waiter { progress, session })
}

impl Creator {
    /// Passes the clone to the future that waits for it. If that future was dropped, returns the claim.
    pub(super) fn created(self, baseline: Option<&Baseline>) -> Option<Claim> {
        let mut progress = lock(&self.progress);
        match std::mem::replace(&mut *progress, Progress::Ended) {
            Progress::Running(claim) => {
                if let Some(baseline) = baseline {
                    claim.note_baseline(baseline);
                }
                *progress = Progress::Created(claim);
                None
            }
            Progress::Abandoned(claim) => Some(claim),
            Progress::Created(_) | Progress::Ended => None,
        }
    }
}

impl Drop for Creator {
    /// Removes the entry if the creation failed.
    fn drop(&mut self) {
        let mut progress = lock(&self.progress);
        if let Progress::Running(_) | Progress::Abandoned(_) = *progress {
            Entries::of(&self.run_dir).remove_entry(EntryState::Leased, &self.name);
            *progress = Progress::Ended;
        }
    }
}

impl Waiter<'_> {
    /// Takes the claim on the created clone; `None` if the creation failed.
    pub(super) fn take(self) -> Option<Claim> {
        match std::mem::replace(&mut *lock(&self.progress), Progress::Ended) {
            Progress::Created(claim) => Some(claim),
            _ => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut progress = lock(&self.progress);
        let unused = match std::mem::replace(&mut *progress, Progress::Ended) {
            Progress::Running(claim) => {
                *progress = Progress::Abandoned(claim.without_claimant());
                None
            }
            Progress::Created(claim) => Some(claim),
            other @ (Progress::Abandoned(_) | Progress::Ended) => {
                *progress = other;
                None
            }
        };
        drop(progress);
        if let Some(claim) = unused {
            self.session.release_unused(claim);
        }
    }
}
