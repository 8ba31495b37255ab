//! The ledger of a server's connection slots: one file per queue entry. `<number>-<slots>` belongs to a process, which holds its `flock`;
//! `<number>-<slots>-<run>` is the reservation of a run and counts as long as the run lives.
//!
//! Entries are numbered in the order of arrival, under the ledger's gate. An entry is granted once its slots and those of all entries before it
//! fit into the limit. No entry is overtaken, so processes that want few slots do not starve one that wants many. Entries before one's own can
//! only disappear, so a waiting process checks again without a lock. Only one waiting process at a time reaps stale entries: the time of the last
//! attempt is the modification time of the gate.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::protocol::{
    Presence, RunDirError, RunId, Runtime, hex, is_locked, lock_file, open_lock, private_dir,
    write_atomically,
};

/// The number of slots before the server was asked: small enough for any server.
const UNKNOWN: u32 = 20;
/// How long the time of a directory may stay the same although entries change: more than a tick of the kernel's clock.
const TIME_RESOLUTION: Duration = Duration::from_millis(100);
/// How often a process that waits lists the entries, even if the time of the directory stays the same.
const LIST_INTERVAL: Duration = Duration::from_secs(1);

/// The number of connection slots that tests share, and the values that it was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Slots that the tests of this user on this host share.
    pub slots: u32,
    /// `max_connections` of the server.
    pub max_connections: u32,
    /// Connections that our role cannot use: reserved for superusers, or beyond the role's limit.
    pub reserved: u32,
    /// Sessions of other programs.
    pub others: u32,
    /// Kept free for short-lived sessions.
    pub headroom: u32,
    /// Live runs of other hosts or users; each gets an equal part.
    pub foreign_runs: u32,
    /// Connections for the keepers of this host.
    pub keepers: u32,
}

impl Limit {
    /// The limit before the server was asked.
    pub fn unknown() -> Self {
        Self {
            slots: UNKNOWN,
            max_connections: 0,
            reserved: 0,
            others: 0,
            headroom: 0,
            foreign_runs: 0,
            keepers: 0,
        }
    }
}

/// The ledger of one server.
#[derive(Debug, Clone)]
pub struct Ledger {
    runtime: Runtime,
    dir: PathBuf,
}

/// The queue entry of this process. Dropping it removes the file; if the process dies, the file stays with a free `flock`.
#[derive(Debug)]
pub struct QueueEntry {
    /// Its number and slots.
    pub holder: Holder,
    path: PathBuf,
    /// `None` only after [`QueueEntry::into_file`].
    flock: Option<File>,
}

impl QueueEntry {
    /// The descriptor that holds the entry, for a child process to inherit. The file stays; it is stale when that process ends.
    pub fn into_file(mut self) -> Option<File> {
        self.flock.take()
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        if self.flock.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A queue entry, parsed from its file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    number: u64,
    /// Slots that it holds or waits for.
    pub slots: u32,
    /// The run that reserved them; `None` if the entry belongs to a process.
    pub run: Option<RunId>,
}

impl Holder {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        Some(Self {
            number: parts.next()?.parse().ok()?,
            slots: parts.next()?.parse().ok()?,
            run: parts.next().map(str::parse).transpose().ok()?,
        })
    }

    fn name(&self) -> String {
        let Self { number, slots, .. } = self;
        match &self.run {
            Some(run) => format!("{number:012}-{slots}-{run}"),
            None => format!("{number:012}-{slots}"),
        }
    }
}

/// What a waiting process knows about the entries before its own. It keeps the ledger's directory open and lists it only if it has changed.
#[derive(Debug)]
pub struct Standing {
    dir: File,
    listed: Option<(SystemTime, Instant)>,
    ahead: Option<usize>,
}

impl Standing {
    /// The number of waiting entries before this one; `None` once the entry is granted.
    pub fn ahead(&mut self, ledger: &Ledger, holder: &Holder) -> Option<usize> {
        let modified = self.dir.metadata().and_then(|dir| dir.modified()).ok();
        let is_known = self
            .listed
            .is_some_and(|(at, when)| Some(at) == modified && when.elapsed() < LIST_INTERVAL);
        if !is_known {
            // A change in the same tick as the last one would not show.
            let is_settled = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > TIME_RESOLUTION);
            self.listed = modified.filter(is_settled).map(|at| (at, Instant::now()));
            self.ahead = ahead(&ledger.holders(), ledger.limit().slots, holder);
        }
        self.ahead
    }
}

impl Ledger {
    /// How to watch the entries before one's own.
    pub fn standing(&self) -> Result<Standing, RunDirError> {
        let opened = File::open(&self.dir);
        Ok(Standing {
            dir: opened.map_err(|source| RunDirError::Io {
                context: "open",
                path: self.dir.clone(),
                source,
            })?,
            listed: None,
            ahead: None,
        })
    }

    /// Opens the ledger of a server. All roles of one server share it.
    pub fn open(runtime: &Runtime, server: &Address) -> Result<Self, RunDirError> {
        let key = hex(&Sha256::digest(server.endpoint())[..8]);
        let ledgers = runtime.path().join("slots");
        private_dir(&ledgers)?;
        let dir = ledgers.join(key);
        private_dir(&dir)?;
        Ok(Self {
            runtime: runtime.clone(),
            dir,
        })
    }

    /// Stores the limit for all processes.
    pub fn set_limit(&self, limit: &Limit) -> Result<(), RunDirError> {
        if self.limit() == *limit {
            return Ok(());
        }
        let text = serde_json::to_string(limit).unwrap_or_default();
        write_atomically(&self.dir.join("limit"), &text)
    }

    /// The stored limit.
    pub fn limit(&self) -> Limit {
        let text = fs::read_to_string(self.dir.join("limit")).ok();
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_else(Limit::unknown)
    }

    /// All entries in the order of arrival. Some may be stale.
    pub fn holders(&self) -> Vec<Holder> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut holders: Vec<Holder> = entries
            .filter_map(|entry| Holder::parse(entry.file_name().to_str()?))
            .collect();
        holders.sort();
        holders
    }

    /// Appends an entry. `wanted` computes its slots from the limit and the number of entries before it.
    pub fn enqueue(
        &self,
        wanted: impl FnOnce(&Limit, usize) -> u32,
    ) -> Result<QueueEntry, RunDirError> {
        let _gate = self.gate()?;
        let holders = self.holders();
        let holder = Holder {
            number: next_number(&holders),
            slots: wanted(&self.limit(), holders.len()),
            run: None,
        };
        let path = self.dir.join(holder.name());
        let flock = open_lock(&path)?;
        lock_file(&flock, &path)?;
        Ok(QueueEntry {
            holder,
            path,
            flock: Some(flock),
        })
    }

    /// Whether the entry is granted. One that wants more slots than the limit is granted when no entry is before it.
    pub fn is_granted(&self, holder: &Holder) -> bool {
        ahead(&self.holders(), self.limit().slots, holder).is_none()
    }

    /// Reserves slots for all processes of a run, if at least as many stay free. Returns whether the run has a reservation.
    pub fn reserve(&self, run: &RunId, slots: u32) -> Result<bool, RunDirError> {
        let fits = |holders: &[Holder]| {
            let free = self.limit().slots.saturating_sub(slots_of(holders.iter()));
            slots <= free / 2
        };
        if !fits(&self.holders()) {
            self.reap_stale_entries()?;
        }
        let _gate = self.gate()?;
        let holders = self.holders();
        if holders.iter().any(|h| h.run.as_ref() == Some(run)) {
            return Ok(true);
        }
        if !fits(&holders) {
            return Ok(false);
        }
        let holder = Holder {
            number: next_number(&holders),
            slots,
            run: Some(run.clone()),
        };
        open_lock(&self.dir.join(holder.name()))?;
        Ok(true)
    }

    /// [`Self::reap_stale_entries`], unless a process has done so within `interval`, or holds the gate.
    pub fn reap_if_due(&self, interval: Duration) -> Result<(), RunDirError> {
        let path = self.dir.join("gate");
        let is_due = || {
            let reaped = fs::metadata(&path).and_then(|gate| gate.modified());
            // A time in the future is no reason to wait for it.
            let age = reaped.ok().and_then(|at| at.elapsed().ok());
            age.is_none_or(|age| age >= interval)
        };
        if !is_due() {
            return Ok(());
        }
        let gate = open_lock(&path)?;
        // Of several processes that saw the old time, one reaps.
        if gate.try_lock().is_err() || !is_due() {
            return Ok(());
        }
        let _ = gate.set_modified(SystemTime::now());
        drop(gate);
        self.reap_stale_entries()
    }

    /// Removes the entries of dead processes and of runs that have ended.
    pub fn reap_stale_entries(&self) -> Result<(), RunDirError> {
        let runs: Vec<Holder> = self
            .holders()
            .into_iter()
            .filter(|h| h.run.is_some())
            .collect();
        if !runs.is_empty() {
            let gate = self.runtime.gate()?;
            let over = |holder: &&Holder| {
                let run = holder.run.as_ref();
                run.is_some_and(|run| self.runtime.presence(&gate, run) != Presence::Alive)
            };
            runs.iter()
                .filter(over)
                .for_each(|holder| self.remove(holder));
        }
        // A process that has created its entry but not locked it yet holds the gate.
        let _gate = self.gate()?;
        let processes = self.holders().into_iter().filter(|h| h.run.is_none());
        let dead = |holder: &Holder| !is_locked(&self.dir.join(holder.name()));
        processes
            .filter(dead)
            .for_each(|holder| self.remove(&holder));
        Ok(())
    }

    fn remove(&self, holder: &Holder) {
        let _ = fs::remove_file(self.dir.join(holder.name()));
    }

    fn gate(&self) -> Result<File, RunDirError> {
        let path = self.dir.join("gate");
        let file = open_lock(&path)?;
        lock_file(&file, &path)?;
        Ok(file)
    }
}

/// The number of waiting entries before this one; `None` if it is granted. `holders` is in the order of arrival.
fn ahead(holders: &[Holder], limit: u32, holder: &Holder) -> Option<usize> {
    let is_granted = |before: u32, slots: u32| before == 0 || before.saturating_add(slots) <= limit;
    let (mut before, mut waiting) = (0_u32, 0);
    for other in holders.iter().filter(|h| h.number < holder.number) {
        waiting += usize::from(!is_granted(before, other.slots));
        before = before.saturating_add(other.slots);
    }
    (!is_granted(before, holder.slots)).then_some(waiting)
}

fn next_number(holders: &[Holder]) -> u64 {
    holders.last().map_or(1, |last| last.number + 1)
}

fn slots_of<'a>(holders: impl Iterator<Item = &'a Holder>) -> u32 {
    holders.map(|h| h.slots).fold(0, u32::saturating_add)
}
