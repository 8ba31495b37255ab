//! How a sandbox was lost, in a person's words.

use std::fmt;
use std::sync::Arc;

use super::held::Held;
use crate::driver::sandbox::Loss;
use crate::name::DbName;

/// A sandbox that was lost before its test was over.
#[derive(Debug, Clone)]
pub struct SandboxLost {
    loss: Loss,
    database: String,
    /// Who had the connection, as far as it is known. Looking the place up takes up to seconds: not while somebody waits for the pool.
    held: Option<Arc<Held>>,
}

impl SandboxLost {
    pub(super) fn new(loss: Loss, database: &DbName, held: Option<Held>) -> Self {
        Self {
            loss,
            database: database.to_string(),
            held: held.map(Arc::new),
        }
    }
}

impl fmt::Display for SandboxLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the test's sandbox was lost: ")?;
        match &self.loss {
            Loss::Committed => write!(
                f,
                "a raw `COMMIT` ended its transaction; what the test had written until then is in the shared clone `{}` now, where \
                 the run's other tests see it",
                self.database
            ),
            Loss::RolledBack => f.write_str(
                "a raw `ROLLBACK` (or a raw `COMMIT` after an error) ended its transaction, and all that the test had written is gone",
            ),
            Loss::Prepared => write!(
                f,
                "`PREPARE TRANSACTION` ended it; the prepared transaction keeps its locks in the shared clone `{}` until it is \
                 committed or rolled back",
                self.database
            ),
            Loss::Begin => f.write_str(
                "sqlx rolled its transaction back, because `begin` (or `begin_with`, which cannot work here) failed or was cancelled \
                 again and again on one connection",
            ),
            Loss::Broken(reason) => write!(f, "its connection broke ({reason})"),
            Loss::Taken => f.write_str(
                "its connection was taken out of the pool, by `detach`, `close` or `close_on_drop`",
            ),
            Loss::Unknown(reason) => write!(f, "{reason}"),
        }?;
        if let Some(held) = &self.held {
            write!(f, "; the connection had been acquired {}", held.place())?;
        }
        f.write_str("; a test that does this needs `isolation = \"database\"`")
    }
}
