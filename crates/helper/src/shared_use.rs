//! Records in the run directory that this test uses the shared clone. The report about pollution at the end of the run names the tests that
//! could have caused it. A record is two appended lines, microseconds each. If an append fails, the test continues.

use std::path::PathBuf;

use kapsel_testdb_core::protocol::{DbName, Pollution, SharedUse, UseEvent, UseMode, random_word};

use crate::session::Session;
use crate::{identity, test_id};

/// A recorded use. If it is dropped after the connect without [`Self::end`], the use counts as ongoing, because the test may still commit.
#[derive(Debug)]
pub struct SharedCloneUse {
    run_dir: PathBuf,
    id: String,
    ends_when_dropped: bool,
    own_keys: bool,
}

/// How a test uses the shared clone.
#[derive(Debug, Clone, Copy)]
pub struct SharedRequest {
    pub mode: UseMode,
    /// Whether the test commits only under keys of its own.
    pub own_keys: bool,
}

impl SharedRequest {
    /// In a transaction that is never committed.
    pub const TRANSACTION: Self = Self {
        mode: UseMode::Begin,
        own_keys: false,
    };
}

impl SharedCloneUse {
    /// Records the beginning. `None` if there is no report: in this process's own run, or with `shared.pollution = "off"`.
    pub fn begin(session: &Session, database: &DbName, request: SharedRequest) -> Option<Self> {
        if session.is_standalone() || session.file.pollution == Pollution::Off {
            return None;
        }
        let new = Self {
            run_dir: session.dir().path().to_path_buf(),
            id: format!("{}{}", random_word(), random_word()),
            ends_when_dropped: true,
            own_keys: request.own_keys || session.file.own_keys,
        };
        let claimant = identity::claimant();
        new.record(&UseEvent::Open(SharedUse {
            id: new.id.clone(),
            database: database.clone(),
            mode: request.mode,
            test: claimant.test,
            binary: claimant.binary,
            attempt: Some(claimant.attempt),
            own_keys: request.own_keys,
            at: UseEvent::now(),
            until: None,
            keys: Vec::new(),
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
                keys: if self.own_keys {
                    test_id::take()
                } else {
                    Vec::new()
                },
            });
        }
    }
}
