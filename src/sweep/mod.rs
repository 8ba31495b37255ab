//! Sweep: removing what dead runs left behind, and nothing else.
//!
//! `plan` decides from what the server and this host show; `execute` acts, and looks again under the fence before it drops
//! anything: the run directory's flock and the run lock, both exclusive, both held until the last drop. A run without a directory
//! on this host is watched for 30 s first, on one session that must not break: a restart or crash of the server ends locks and
//! sessions of the living too. A crash in the middle leaves the rest for the next sweep; an interrupted DROP leaves a database
//! that can only be dropped again.

mod drop;
mod execute;
mod plan;
mod templates;

use std::fmt;

use serde::Serialize;

pub(crate) use drop::drop_rows;
pub use drop::{Removal, drop_run};
pub use execute::{Options, sweep, sweep_for_run, sweep_local};
pub use plan::{Inputs, Plan, RunState, Verdict, plan};
pub use templates::collect_templates;

use crate::name::{DbName, RunId};

/// A database that was not dropped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The database.
    pub name: DbName,
    /// Why, and what to do.
    pub reason: String,
}

/// What a sweep did, or with `--dry-run` would do.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Databases dropped.
    pub dropped: Vec<DbName>,
    /// Failed tests' databases that were preserved, by their new names.
    pub kept: Vec<DbName>,
    /// Run directories removed.
    pub directories: Vec<RunId>,
    /// Runs that live.
    pub alive: Vec<RunId>,
    /// Runs of other hosts that look dead, but have not been watched for long enough.
    pub waiting: Vec<RunId>,
    /// Databases that could not be dropped.
    pub skipped: Vec<Skipped>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sweep: {} databases and {} run directories {}, {} runs alive, {} databases skipped",
            self.dropped.len(),
            self.directories.len(),
            if self.dry_run { "to remove" } else { "removed" },
            self.alive.len(),
            self.skipped.len()
        )
    }
}
