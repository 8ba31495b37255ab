//! Sweep: removes what dead runs left behind, and nothing else.
//!
//! `plan` decides from the state of the server and of this host. `execute` acts, and checks again under the fence before it drops
//! anything. The fence is the run directory's flock and the run lock, both exclusive and held until the last drop. A run without a
//! directory on this host is watched for 30 s first, on one session that must not break: a restart or crash of the server ends the locks
//! and sessions of live runs, too. A crash in the middle leaves the rest for the next sweep; an interrupted DROP leaves a database that
//! can only be dropped again.

mod execute;
mod others;
mod plan;
mod spares;
mod templates;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{DbName, RunId};
use kapsel_testdb_core::run::end::Skipped;

pub use execute::{Options, sweep, sweep_for_run, sweep_local};
pub use others::drop_unused;
pub use plan::{Inputs, RunState, SweepPlan, Verdict, plan};
pub use templates::{Collected, collect_templates, drop_templates};

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
    /// Dropped databases of other projects.
    pub others: Vec<DbName>,
    /// Databases that could not be dropped.
    pub skipped: Vec<Skipped>,
}

impl SweepReport {
    /// What was dropped of other projects, in a line.
    pub fn others_line(&self) -> Option<String> {
        let namespaces: BTreeSet<String> = self
            .others
            .iter()
            .map(|name| name.namespace().to_string())
            .collect();
        let verb = if self.dry_run {
            "would drop"
        } else {
            "dropped"
        };
        (!namespaces.is_empty()).then(|| {
            format!(
                "{verb} {} that other projects left on the server ({}); `template.others_max_age_days` and `template.others_max_mb` set the limits",
                count(self.others.len(), "database"),
                namespaces.into_iter().collect::<Vec<_>>().join(", ")
            )
        })
    }
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sweep: {} and {} {}, {} alive, {} skipped",
            count(self.dropped.len(), "database"),
            count(self.run_directories.len(), "run directory"),
            if self.dry_run { "to remove" } else { "removed" },
            count(self.live_runs.len(), "run"),
            count(self.skipped.len(), "database")
        )
    }
}
