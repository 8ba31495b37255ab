//! Says in the run directory that this test uses the shared clone: what is found committed there at the run's end is reported with
//! the tests that could have done it. Two appends of a line, microseconds each; where they fail, the test goes on all the same.

use std::path::PathBuf;

use super::identity;
use super::session::Session;
use crate::config::Pollution;
use crate::name::{DbName, random_word};
use crate::run_dir::{SharedUse, UseEvent, UseMode};

/// A use that was noted. Dropped without [`Self::end`] once there is a connection, it counts as going on: somebody may still commit.
#[derive(Debug)]
pub struct Use {
    run_dir: PathBuf,
    id: String,
    ends_when_dropped: bool,
}

impl Use {
    /// Notes that it begins. `None` where nobody asks: in a run of this process's own, or where it is turned off.
    pub fn begin(session: &Session, database: &DbName, mode: UseMode) -> Option<Self> {
        if session.is_own() || session.file.pollution == Pollution::Off {
            return None;
        }
        let new = Self {
            run_dir: session.dir().path().to_path_buf(),
            id: format!("{}{}", random_word(), random_word()),
            ends_when_dropped: true,
        };
        let claimant = identity::claimant();
        new.note(&UseEvent::Open(SharedUse {
            id: new.id.clone(),
            database: database.clone(),
            mode,
            test: claimant.test,
            binary: claimant.binary,
            attempt: Some(claimant.attempt),
            at: UseEvent::now(),
            until: None,
        }));
        Some(new)
    }

    /// There is a connection: only a transaction's goes with it.
    pub fn connected(mut self, mode: UseMode) -> Self {
        self.ends_when_dropped = mode == UseMode::Begin;
        self
    }

    /// Notes that it is over: no connection is left that could commit anything.
    pub fn end(mut self) {
        self.ends_when_dropped = true;
    }

    fn note(&self, event: &UseEvent) {
        if let Err(error) = event.note(&self.run_dir) {
            tracing::debug!("a use of the shared clone was not noted: {error}");
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if self.ends_when_dropped {
            self.note(&UseEvent::Close {
                id: self.id.clone(),
                at: UseEvent::now(),
            });
        }
    }
}
