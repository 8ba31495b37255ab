//! The helper that test processes use: a database from the run that `prepare` opened, or from a run of this process's own.
//!
//! Call order: `session` (environment → run directory, or slow path) → `lease` (claim or clone) → pool → the test → release. On the
//! fast path a test opens one connection to its database and no other; everything else is a rename. What a crash leaves: a
//! leased entry whose flock is free, which the keeper drops, or the sweep.

mod background;
mod db;
mod error;
mod id;
mod report;
mod runner;
mod session;
mod tokens;
mod transaction;

pub use db::{TestDb, TestDbOptions};
pub use error::TestDbError;
pub use id::test_id;
pub use runner::{Isolation, Plan, TestOutcome, run};
pub use transaction::TestTransaction;

#[cfg(feature = "cli")]
pub(crate) use session::{join_run, lease_for_other_process};
