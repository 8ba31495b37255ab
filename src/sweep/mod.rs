//! Sweep: removes what dead runs left behind, and nothing else.
//!
//! `plan` decides from the state of the server and of this host. `execute` acts, and checks again under the fence before it drops
//! anything. The fence is the run directory's flock and the run lock, both exclusive and held until the last drop. A run without a
//! directory on this host is watched for 30 s first, on one session that must not break: a restart or crash of the server ends the locks
//! and sessions of live runs, too. A crash in the middle leaves the rest for the next sweep; an interrupted DROP leaves a database that
//! can only be dropped again.

mod execute;
mod plan;
mod spares;
mod templates;

use std::fmt;

use serde::Serialize;

use kapsel_testdb_core::protocol::{DbName, RunId};
use kapsel_testdb_core::run::end::Skipped;

pub use execute::{Options, sweep, sweep_for_run, sweep_local};
pub use plan::{Inputs, RunState, SweepPlan, Verdict, plan};
pub use templates::collect_templates;

/// The result of a sweep, or with `--dry-run` of what it would do. `sweep --json` prints it.
#[derive(Debug, Default, Serialize)]
pub struct SweepReport {
    /// Whether this was a dry run: nothing was done.
    pub dry_run: bool,
    /// Dropped databases.
    pub dropped: Vec<DbName>,
    /// Preserved databases of failed tests, by their new names.
    pub kept: Vec<DbName>,
    /// Runs whose directories were removed.
    pub run_directories: Vec<RunId>,
    /// Live runs.
    pub live_runs: Vec<RunId>,
    /// Runs of other hosts that appear dead, but were not watched for long enough.
    pub unconfirmed_runs: Vec<RunId>,
    /// Databases that could not be dropped.
    pub skipped: Vec<Skipped>,
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sweep: {} databases and {} run directories {}, {} runs alive, {} databases skipped",
            self.dropped.len(),
            self.run_directories.len(),
            if self.dry_run { "to remove" } else { "removed" },
            self.live_runs.len(),
            self.skipped.len()
        )
    }
}
