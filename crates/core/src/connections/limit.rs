//! Computes the number of connection slots of a server from what the server reports.

use std::collections::BTreeSet;

use crate::pg::facts::Sessions;
use crate::protocol::{DbName, Kind, Limit, RunId};

/// The most sessions of one keeper.
pub const PER_KEEPER: u32 = 4;

impl Limit {
    /// Computes the limit. `here` are the runs of this host: the slots of their processes are counted in the ledger. `keepers` is the number of
    /// keepers on this host.
    pub fn new(sessions: &Sessions, here: &BTreeSet<RunId>, keepers: u32) -> Self {
        let usable = sessions
            .role_limit
            .map_or(sessions.usable, |limit| limit.min(sessions.usable));
        let (mut others, mut foreign) = (0, BTreeSet::new());
        for (database, count) in &sessions.by_database {
            // A session on a kept database belongs to no run; it counts as another program.
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
            // At least 2: a refused connection is better than a test that waits forever.
            slots: divided.saturating_sub(keepers).max(2),
            max_connections: sessions.max_connections,
            reserved: sessions.max_connections.saturating_sub(usable),
            others,
            headroom,
            foreign_runs,
            keepers,
        }
    }

    /// The slots of each of `processes` simultaneous processes: at most `most`, and at least 2, because many tests hold one connection while they
    /// use another.
    pub fn share(&self, processes: usize, most: u32) -> u32 {
        let processes = u32::try_from(processes.max(1)).unwrap_or(u32::MAX);
        (self.slots / processes).max(2).min(most)
    }
}
