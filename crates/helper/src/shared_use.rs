//! Records in the run directory that this test uses the shared clone. The report about pollution at the end of the run names the tests that
//! could have caused it. A record is two appended lines, microseconds each. If an append fails, the test continues.

use std::path::PathBuf;

use kapsel_testdb_core::protocol::{DbName, Pollution, SharedUse, UseEvent, UseMode, random_word};

use crate::identity;
use crate::session::Session;

/// A recorded use. If it is dropped after the connect without [`Self::end`], the use counts as ongoing, because the test may still commit.
#[derive(Debug)]
pub struct SharedCloneUse {
    run_dir: PathBuf,
    id: String,
    ends_when_dropped: bool,
}

impl SharedCloneUse {
    /// Records the beginning. `None` if there is no report: in this process's own run, or with `shared.pollution = "off"`.
    pub fn begin(session: &Session, database: &DbName, mode: UseMode) -> Option<Self> {
        if session.is_standalone() || session.file.pollution == Pollution::Off {
            return None;
        }
        let new = Self {
            run_dir: session.dir().path().to_path_buf(),
            id: format!("{}{}", random_word(), random_word()),
            ends_when_dropped: true,
        };
        let claimant = identity::claimant();
        new.record(&UseEvent::Open(SharedUse {
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

    /// The connection is open. From now on, dropping ends the use only in mode `Begin`: the transaction rolls back.
    pub fn connected(mut self, mode: UseMode) -> Self {
        self.ends_when_dropped = mode == UseMode::Begin;
        self
    }

    /// Records the end: no connection is left that could commit.
    pub fn end(mut self) {
        self.ends_when_dropped = true;
    }

    fn record(&self, event: &UseEvent) {
        if let Err(error) = event.append(&self.run_dir) {
            tracing::debug!("failed to record a use of the shared clone: {error}");
        }
    }
}

impl Drop for SharedCloneUse {
    fn drop(&mut self) {
        if self.ends_when_dropped {
            self.record(&UseEvent::Close {
                id: self.id.clone(),
                at: UseEvent::now(),
            });
        }
    }
}
