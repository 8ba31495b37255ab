//! The message about a lost sandbox.

use std::fmt;
use std::sync::Arc;

use kapsel_testdb_core::protocol::DbName;

use crate::sandbox::acquisition::Acquisition;
use crate::sqlx_compat::sandbox::Loss;

/// A sandbox was lost before its test ended.
#[derive(Debug, Clone)]
pub struct SandboxLost {
    loss: Loss,
    database: String,
    /// The acquire during which it was lost, if known. Resolving its location can take seconds, so that must not happen while the pool waits.
    acquisition: Option<Arc<Acquisition>>,
}

impl SandboxLost {
    pub(super) fn new(loss: Loss, database: &DbName, acquisition: Option<Acquisition>) -> Self {
        Self {
            loss,
            database: database.to_string(),
            acquisition: acquisition.map(Arc::new),
        }
    }
}

impl fmt::Display for SandboxLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the test's sandbox was lost: ")?;
        match &self.loss {
            Loss::Committed => write!(
                f,
                "a raw `COMMIT` ended its transaction; everything that the test had written until then is now in the shared clone `{}`, \
                 and the run's other tests see it",
                self.database
            ),
            Loss::RolledBack => f.write_str(
                "a raw `ROLLBACK` (or a raw `COMMIT` after an error) ended its transaction; everything that the test had written is gone",
            ),
            Loss::Prepared => write!(
                f,
                "`PREPARE TRANSACTION` ended its transaction; the prepared transaction keeps its locks in the shared clone `{}` until it \
                 is committed or rolled back",
                self.database
            ),
            Loss::Begin => f.write_str(
                "sqlx rolled its transaction back, because `begin` (or `begin_with`, which always fails in a sandbox) failed or was \
                 cancelled several times on one connection",
            ),
            Loss::Broken(reason) => write!(f, "its connection broke ({reason})"),
            Loss::Detached => f.write_str(
                "its connection was taken out of the pool, by `detach`, `close` or `close_on_drop`",
            ),
            Loss::Unknown(reason) => f.write_str(reason),
        }?;
        if let Some(acquisition) = &self.acquisition {
            write!(
                f,
                "; the connection was acquired {}",
                acquisition.location()
            )?;
        }
        f.write_str("; if the test needs to do this, use `isolation = \"database\"`")
    }
}
