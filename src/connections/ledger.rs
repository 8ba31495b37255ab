//! Who holds how many of a server's connections: one file per holder, `<number>-<tokens>` of a process (which holds its flock) or
//! `<number>-<tokens>-<run>` of a run (which is alive as long as the run is).
//!
//! Numbers are given in the order of arrival, under the ledger's gate. A holder may go ahead once it and everybody before it fit
//! into the limit: nobody is overtaken, so who wants many is not starved by those who want few. Entries before one's own only ever
//! go, so looking again needs no lock.

use std::fs::{self, File};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::Limit;
use crate::name::{RunId, hex};
use crate::pg::Address;
use crate::run_dir::{
    Presence, RunDirError, Runtime, lock_file, open_lock, private_dir, write_atomically,
};

/// The ledger of one server.
#[derive(Debug, Clone)]
pub struct Ledger {
    runtime: Runtime,
    dir: PathBuf,
}

/// A process's entry; gone when this is dropped, and dead when the process is.
#[derive(Debug)]
pub struct Place {
    /// How it stands in the ledger.
    pub holder: Holder,
    path: PathBuf,
    /// Only taken out by [`Place::hand_over`].
    flock: Option<File>,
}

impl Place {
    /// The descriptor that holds the place, for another process to inherit; the place ends with that one.
    #[cfg(feature = "cli")]
    pub fn hand_over(mut self) -> Option<File> {
        self.flock.take()
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.flock.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An entry, as its name tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    number: u64,
    /// Connections that it stands for.
    pub tokens: u32,
    /// The run that reserved them; none: a process.
    pub run: Option<RunId>,
}

impl Holder {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        Some(Self {
            number: parts.next()?.parse().ok()?,
            tokens: parts.next()?.parse().ok()?,
            run: parts.next().map(str::parse).transpose().ok()?,
        })
    }

    fn name(&self) -> String {
        let Self { number, tokens, .. } = self;
        match &self.run {
            Some(run) => format!("{number:012}-{tokens}-{run}"),
            None => format!("{number:012}-{tokens}"),
        }
    }
}

impl Ledger {
    /// The ledger of a server, whoever logs in there.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn open(runtime: &Runtime, server: &Address) -> Result<Self, RunDirError> {
        let key = hex(&Sha256::digest(server.endpoint())[..8]);
        let all = runtime.path().join("tokens");
        private_dir(&all)?;
        let dir = all.join(key);
        private_dir(&dir)?;
        Ok(Self {
            runtime: runtime.clone(),
            dir,
        })
    }

    /// Tells everybody what there is to divide.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_limit(&self, limit: &Limit) -> Result<(), RunDirError> {
        if self.limit() == *limit {
            return Ok(());
        }
        let text = serde_json::to_string(limit).unwrap_or_default();
        write_atomically(&self.dir.join("limit"), &text)
    }

    /// What there is to divide.
    pub fn limit(&self) -> Limit {
        let text = fs::read_to_string(self.dir.join("limit")).ok();
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_else(Limit::unknown)
    }

    /// Everybody who holds or waits, in the order of arrival. Some may be dead.
    pub fn holders(&self) -> Vec<Holder> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut holders: Vec<Holder> = entries
            .filter_map(|entry| Holder::parse(entry.file_name().to_str()?))
            .collect();
        holders.sort();
        holders
    }

    /// Gets in line. `wanted` says how many tokens, given what there is and how many are in line already.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn enter(&self, wanted: impl FnOnce(&Limit, usize) -> u32) -> Result<Place, RunDirError> {
        let _gate = self.gate()?;
        let holders = self.holders();
        let holder = Holder {
            number: next_number(&holders),
            tokens: wanted(&self.limit(), holders.len()),
            run: None,
        };
        let path = self.dir.join(holder.name());
        let flock = open_lock(&path)?;
        lock_file(&flock, &path)?;
        Ok(Place {
            holder,
            path,
            flock: Some(flock),
        })
    }

    /// Whether somebody who is in line may go ahead. Who wants more than there is may when nobody is before it.
    pub fn is_granted(&self, holder: &Holder) -> bool {
        let holders = self.holders();
        let before = tokens_of(holders.iter().filter(|h| h.number < holder.number));
        before == 0 || before + holder.tokens <= self.limit().tokens
    }

    /// Reserves tokens for all processes of a run at once, where that leaves at least as many for others. `true` too where the run
    /// has a reservation already.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn reserve(&self, run: &RunId, tokens: u32) -> Result<bool, RunDirError> {
        let fits = |holders: &[Holder]| {
            let free = self
                .limit()
                .tokens
                .saturating_sub(tokens_of(holders.iter()));
            tokens <= free / 2
        };
        if !fits(&self.holders()) {
            self.bury_the_dead()?;
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
            tokens,
            run: Some(run.clone()),
        };
        open_lock(&self.dir.join(holder.name()))?;
        Ok(true)
    }

    /// Removes the entries of dead processes and of runs that are over.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn bury_the_dead(&self) -> Result<(), RunDirError> {
        let runs: Vec<Holder> = self
            .holders()
            .into_iter()
            .filter(|h| h.run.is_some())
            .collect();
        if !runs.is_empty() {
            let _gate = self.runtime.gate()?;
            let over = |holder: &&Holder| {
                let run = holder.run.as_ref();
                run.is_some_and(|run| self.runtime.presence(run) != Presence::Alive)
            };
            runs.iter()
                .filter(over)
                .for_each(|holder| self.remove(holder));
        }
        // Who has made its entry and not locked it yet holds the gate.
        let _gate = self.gate()?;
        let processes = self.holders().into_iter().filter(|h| h.run.is_none());
        let dead = |holder: &Holder| {
            let file = File::open(self.dir.join(holder.name()));
            file.is_ok_and(|file| file.try_lock().is_ok())
        };
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

fn next_number(holders: &[Holder]) -> u64 {
    holders.last().map_or(1, |last| last.number + 1)
}

fn tokens_of<'a>(holders: impl Iterator<Item = &'a Holder>) -> u32 {
    holders.map(|h| h.tokens).fold(0, u32::saturating_add)
}
