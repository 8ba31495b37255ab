//! Entries: one file per database of a run, in the folder that says what state it is in.
//!
//! Moving on is one rename: who loses a race gets `ENOENT`. Names are never used twice, so an entry that was renamed is never
//! mistaken for another one. A crash of a claimant frees its entry's flock, which is how it is found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{At, RunDir, RunDirError, open_lock};
use crate::name::DbName;

/// A state that a database of the run is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Waiting for a test.
    Ready,
    /// A test's.
    Leased,
    /// Given back: to be dropped.
    Released,
    /// A failed test's: to be kept.
    Failed,
}

impl Folder {
    /// All folders.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Leased, Self::Released, Self::Failed];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Released => "released",
            Self::Failed => "failed",
        }
    }
}

/// How many names a claimant reads before it tries them.
const BATCH: usize = 16;

/// A claimed entry. Its flock says that the claimant lives; closing the descriptor frees it.
#[derive(Debug)]
pub struct Claim {
    /// The database.
    pub name: DbName,
    /// Renames that it took, failed ones included.
    pub renames: usize,
    flock: File,
}

impl Claim {
    /// The descriptor that holds the claim.
    pub fn file(&self) -> &File {
        &self.flock
    }
}

impl RunDir {
    fn entry(&self, folder: Folder, name: &str) -> PathBuf {
        self.path().join(folder.as_str()).join(name)
    }

    /// The databases in a folder, in no order.
    pub fn list(&self, folder: Folder) -> Vec<DbName> {
        list_folder(self.path(), folder)
    }

    /// Offers a database to the tests. It must exist.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer(&self, name: &DbName) -> Result<(), RunDirError> {
        let path = self.entry(Folder::Ready, &name.to_string());
        open_lock(&path).map(drop)
    }

    /// Claims a ready database; `None` where none is ready. `start` spreads claimants that come at once.
    pub fn claim(&self, start: usize) -> Option<Claim> {
        let entries = fs::read_dir(self.path().join(Folder::Ready.as_str())).ok()?;
        let mut names = entries.flatten().map(|entry| entry.file_name());
        let mut renames = 0;
        // A few at a time: there may be many, and one of the first is free as a rule.
        loop {
            let batch: Vec<_> = names.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return None;
            }
            let (before, from_start) = batch.split_at(start % batch.len());
            let mut ready = from_start.iter().chain(before).filter_map(|n| n.to_str());
            if let Some(claim) = ready.find_map(|text| self.claim_entry(text, &mut renames)) {
                return Some(claim);
            }
        }
    }

    fn claim_entry(&self, text: &str, renames: &mut usize) -> Option<Claim> {
        let name = text.parse().ok()?;
        let from = self.entry(Folder::Ready, text);
        // Gone, or another claimant holds it: the next one.
        let flock = File::open(&from).ok()?;
        flock.try_lock().ok()?;
        *renames += 1;
        fs::rename(&from, self.entry(Folder::Leased, text)).ok()?;
        Some(Claim {
            name,
            renames: *renames,
            flock,
        })
    }

    /// Enters a database that is about to be made as leased: locked before it is visible, so that nobody takes it for
    /// abandoned.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn enter_leased(&self, name: &DbName) -> Result<Claim, RunDirError> {
        let text = name.to_string();
        let hidden = self.path().join(format!("{text}.new"));
        let file = open_lock(&hidden)?;
        file.lock().at("lock", &hidden)?;
        fs::rename(&hidden, self.entry(Folder::Leased, &text)).at("enter", &hidden)?;
        Ok(Claim {
            name: name.clone(),
            renames: 0,
            flock: file,
        })
    }

    /// Moves a leased database on; `false` where the run or the entry is gone.
    pub fn leave(&self, claim: Claim, to: Folder) -> bool {
        self.move_leased(&claim.name, to)
    }

    /// [`Self::leave`] for a claim that another process holds; that process gives up the claim when it sees this.
    pub fn move_leased(&self, name: &DbName, to: Folder) -> bool {
        let text = name.to_string();
        fs::rename(self.entry(Folder::Leased, &text), self.entry(to, &text)).is_ok()
    }

    /// Marks the databases of dead claimants as released, and names them.
    pub fn release_abandoned(&self) -> Vec<DbName> {
        let mut abandoned = self.list(Folder::Leased);
        abandoned.retain(|name| {
            let text = name.to_string();
            let from = self.entry(Folder::Leased, &text);
            let dead = File::open(&from).is_ok_and(|file| file.try_lock().is_ok());
            dead && fs::rename(&from, self.entry(Folder::Released, &text)).is_ok()
        });
        abandoned
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, folder: Folder, name: &DbName) {
        let _ = fs::remove_file(self.entry(folder, &name.to_string()));
    }

    /// Marks an existing database as given back, so that the keeper drops it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer_for_drop(&self, name: &DbName) -> Result<(), RunDirError> {
        open_lock(&self.entry(Folder::Released, &name.to_string())).map(drop)
    }
}

/// The databases that have an entry in a folder of a run directory, alive or dead, in no order.
pub(super) fn list_folder(run_dir: &Path, folder: Folder) -> Vec<DbName> {
    fs::read_dir(run_dir.join(folder.as_str()))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
