//! The helper that test processes use: a database from the run that `prepare` opened, or from a run of this process's own.
//!
//! Call order: `session` (environment → run directory, or slow path) → `lease` (claim or clone) → pool → the test → release. On the
//! fast path a test opens one connection to its database and no other; everything else is a rename. What a crash leaves: a
//! leased entry whose flock is free: the keeper keeps that database as a failed test's, or whoever ends the run or sweeps.

mod arguments;
mod background;
mod config;
mod connect;
mod db;
mod error;
mod fixtures;
mod id;
mod identity;
mod leaks;
mod measure;
mod plan;
mod report;
mod runner;
mod sandbox;
mod session;
mod shared_use;
mod template;
mod tokens;
mod transaction;

pub use arguments::{Arguments, SandboxArguments, sandboxed};
pub use config::DatabaseConfig;
pub use db::{TestDb, TestDbOptions};
pub use error::TestDbError;
pub use id::test_id;
pub use measure::{Measured, NotInTime, Times, measure, measure_times, wait_until};
pub use plan::{Isolation, Migrations, Plan};
pub use runner::{run, run_blocking};
pub use transaction::TestTransaction;

#[cfg(feature = "cli")]
pub(crate) use identity::from_nextest;
#[cfg(feature = "cli")]
pub(crate) use session::{join_run, lease_for_other_process};
