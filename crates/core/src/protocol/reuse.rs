//! What is recorded about clones that are used more than once: in entries, in comments of spares, and in the run directory's `profile`.
//!
//! [`Profile`] has a file of its own.
//!
//! A baseline is not trusted: it only says what the server's counters were when the clone was known to equal its template. A process that offers the clone
//! again compares them with the server first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DbName, RunId};

/// The oid of a relation. All clones of a template share them, because `CREATE DATABASE` copies the catalogs.
pub type Oid = u32;

/// Numbers of inserted, updated and deleted rows, as the server counts them.
pub type Tuples = [i64; 3];

/// What the server reports about a database to sessions on other databases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `pg_stat_database.sessions`: sessions that the database has had.
    pub sessions: i64,
    /// Rows written to all of its relations.
    pub tuples: Tuples,
    /// When the counters were reset, in the server's words. A crash resets them.
    pub resets: String,
    /// MD5 of the database's row in `pg_database`, its settings and its labels, without names and comments.
    pub row: String,
    /// The oid of the database that has the name of its template; 0 if there is none. Another build of the template has other oids of relations.
    pub template: Oid,
}

/// The evidence that was recorded when a clone was known to equal its template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The database's oid.
    pub database: Oid,
    /// Counters of its relations, unless all three are 0.
    pub counters: BTreeMap<Oid, Tuples>,
    /// Blocks that were read of its sequences, unless 0. Every use of a sequence reads one.
    pub sequences: BTreeMap<Oid, i64>,
    /// What other databases see.
    pub seen: Seen,
    /// The next transaction id at that time. Rows that tests insert later have this id or a younger one.
    pub xid: u64,
    /// How many tests have used the clone.
    pub uses: u32,
}

impl Baseline {
    /// Why a database no longer equals its template, according to what other databases see of it.
    pub fn difference(&self, seen: &Seen) -> Option<Reason> {
        let expected = &self.seen;
        if seen.resets != expected.resets {
            Some(Reason::CountersReset)
        } else if seen.sessions != expected.sessions || seen.tuples != expected.tuples {
            Some(Reason::Sessions)
        } else if seen.row != expected.row || seen.template != expected.template {
            Some(Reason::Database)
        } else {
            None
        }
    }
}

/// Why a clone was dropped instead of being recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No baseline was recorded when it was created.
    NoBaseline,
    /// The role may not reset what the test changed.
    Rights,
    /// The server did not count, or something could have kept it from counting.
    NotCounted,
    /// Counters are lower than before: the server crashed, or a test reset them.
    CountersReset,
    /// Another session was connected.
    Sessions,
    /// The schema, a grant, a large object or another part of the catalog changed.
    Catalog,
    /// Rows that the template has were updated or deleted.
    ReferenceRows,
    /// Too many rows were written to a table.
    ManyRows,
    /// A rule or trigger fires always, also during a reset.
    AlwaysFires,
    /// A relation has contents that no counter shows.
    HiddenWrite,
    /// The database's own settings, comment or grants changed.
    Database,
    /// The reset left something behind.
    Residue,
    /// No session was free to clean it.
    Busy,
    /// It was used often enough.
    Uses,
    /// A statement failed.
    Failed,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NoBaseline => "nothing was recorded when it was new",
            Self::Rights => "the role may not reset what the test changed",
            Self::NotCounted => "the server does not count reliably",
            Self::CountersReset => "the server's counters were reset",
            Self::Sessions => "another session was connected",
            Self::Catalog => "the schema changed",
            Self::ReferenceRows => "rows of the template were updated or deleted",
            Self::ManyRows => "too many rows were written",
            Self::AlwaysFires => "a rule or trigger fires always",
            Self::HiddenWrite => "a relation has contents that no counter shows",
            Self::Database => "the database's own settings changed",
            Self::Residue => "the reset left something behind",
            Self::Busy => "no session was free to clean it",
            Self::Uses => "it was used often enough",
            Self::Failed => "a statement failed",
        })
    }
}

/// What the process that cleaned a clone wrote into its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleaning {
    /// The clone equals its template.
    Cleaned(Baseline),
    /// It cannot be shown to equal its template.
    Dirty(Reason),
}

/// The comment of a spare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareNote {
    /// Version of the tool that made it a spare.
    pub tool: String,
    /// The run that used it last.
    pub run: RunId,
    /// Its template.
    pub template: DbName,
    /// Since when it is a spare, in seconds since 1970.
    pub since: u64,
    /// How many clones that run used at the same time.
    pub demand: usize,
    /// Whether that run used a shared clone.
    #[serde(default)]
    pub shared: bool,
    /// How many spares of this template that run wanted to leave.
    pub limit: usize,
    /// What it was like.
    pub baseline: Baseline,
}

impl SpareNote {
    /// Parses the comment of a database.
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        serde_json::from_str(comment?).ok()
    }
}

/// What happened to the clones of a run, one line of JSON per event in the run directory's `reuse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReuseEvent {
    /// A clone was created.
    Created,
    /// A spare was adopted.
    Adopted,
    /// A used clone was made ready again.
    Recycled,
    /// A used clone was dropped.
    Dropped {
        /// Why it was not recycled; `None` if recycling is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
}

/// Counts of [`ReuseEvent`]s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReuseCounts {
    /// Clones that were created.
    pub created: usize,
    /// Spares that were adopted.
    pub adopted: usize,
    /// Clones that were made ready again.
    pub recycled: usize,
    /// Used clones that were dropped.
    pub dropped: usize,
    /// The reasons, if recycling is on.
    pub reasons: BTreeMap<Reason, usize>,
}

impl std::fmt::Display for ReuseCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} created, {} adopted, {} recycled, {} dropped",
            self.created, self.adopted, self.recycled, self.dropped
        )?;
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (at, (reason, count)) in reasons.into_iter().enumerate() {
            let separator = if at == 0 { " (" } else { ", " };
            write!(f, "{separator}{count} because {reason}")?;
        }
        f.write_str(if self.reasons.is_empty() { "" } else { ")" })
    }
}

impl ReuseCounts {
    /// Adds an event.
    pub fn add(&mut self, event: ReuseEvent) {
        match event {
            ReuseEvent::Created => self.created += 1,
            ReuseEvent::Adopted => self.adopted += 1,
            ReuseEvent::Recycled => self.recycled += 1,
            ReuseEvent::Dropped { reason } => {
                self.dropped += 1;
                if let Some(reason) = reason {
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }
}
