//! How many connections of a server tests may have, computed from what the server says.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{DbName, Kind, RunId};

/// Most sessions of a keeper.
pub const PER_KEEPER: u32 = 4;

/// What is divided while no server has said anything yet: little enough for any server.
const UNKNOWN: u32 = 20;

/// A server's limits and the sessions on it that are not administrative ones of ours.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sessions {
    /// `max_connections`, less what only superusers and members of `pg_use_reserved_connections` get.
    pub usable: u32,
    /// `max_connections`.
    pub max_connections: u32,
    /// `CONNECTION LIMIT` of our role, where it has one.
    pub role_limit: Option<u32>,
    /// Sessions per database.
    pub by_database: BTreeMap<String, u32>,
}

/// How many connections tests may have together, and what that was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What tests of this user on this host may have together.
    pub tokens: u32,
    /// `max_connections` of the server.
    pub max_connections: u32,
    /// What others than we may use: reserved for superusers, or beyond our role's limit.
    pub reserved: u32,
    /// Sessions of other programs.
    pub others: u32,
    /// Kept free: for sessions that come and go.
    pub headroom: u32,
    /// Live runs of other hosts or users, each of which gets an equal part.
    pub foreign_runs: u32,
    /// Kept for the keepers of this host.
    pub keepers: u32,
}

impl Limit {
    /// What to go by before the server was asked.
    pub fn unknown() -> Self {
        Self {
            tokens: UNKNOWN,
            max_connections: 0,
            reserved: 0,
            others: 0,
            headroom: 0,
            foreign_runs: 0,
            keepers: 0,
        }
    }

    /// Computes it. `here` are the runs of this host, whose processes hold tokens already; `keepers` are their keepers.
    pub fn new(sessions: &Sessions, here: &BTreeSet<RunId>, keepers: u32) -> Self {
        let usable = sessions
            .role_limit
            .map_or(sessions.usable, |limit| limit.min(sessions.usable));
        let (mut others, mut foreign) = (0, BTreeSet::new());
        for (database, count) in &sessions.by_database {
            // A kept database has no run any more: who looks at it is a program like any other.
            let name = database.parse::<DbName>().ok();
            let name = name.filter(|name| name.kind() != Kind::Kept);
            match name.as_ref().and_then(DbName::run) {
                Some(run) if here.contains(run) => {}
                Some(run) => drop(foreign.insert(run.clone())),
                None => others += count,
            }
        }
        let foreign_runs = u32::try_from(foreign.len()).unwrap_or(u32::MAX - 1);
        let headroom = (usable / 20).max(2);
        let keepers = keepers * PER_KEEPER;
        let divided = usable.saturating_sub(others + headroom) / (1 + foreign_runs);
        Self {
            // Never none: a test that waits for ever is worse than one that is refused.
            tokens: divided.saturating_sub(keepers).max(2),
            max_connections: sessions.max_connections,
            reserved: sessions.max_connections.saturating_sub(usable),
            others,
            headroom,
            foreign_runs,
            keepers,
        }
    }

    /// What each of so many processes gets at once: at most `most`, at least 2, because many a test holds one connection while
    /// it uses another.
    pub fn share(&self, processes: usize, most: u32) -> u32 {
        let processes = u32::try_from(processes.max(1)).unwrap_or(u32::MAX);
        (self.tokens / processes).max(2).min(most)
    }
}
