//! Entries: one file per database of a run, in the folder that says what state it is in.
//!
//! Moving on is one rename: who loses a race gets `ENOENT`. Names are never used twice, so an entry that was renamed is never
//! mistaken for another one. A crash of a claimant frees its entry's flock, which is how it is found.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{At, Claimant, RunDir, RunDirError, open_existing, open_lock};
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

/// The folder of the templates that tests of the run use besides the run's own.
pub(super) const TEMPLATES: &str = "templates";

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
    claimant: Option<Claimant>,
}

impl Claim {
    fn new(name: DbName, renames: usize, flock: File) -> Self {
        Self {
            name,
            renames,
            flock,
            claimant: None,
        }
    }

    /// The descriptor that holds the claim.
    pub fn file(&self) -> &File {
        &self.flock
    }

    /// Writes into the entry who claimed it.
    #[must_use]
    pub fn by(mut self, claimant: Option<Claimant>) -> Self {
        if let Some(claimant) = &claimant
            && let Err(error) = (&self.flock).write_all(claimant.line().as_bytes())
        {
            // The lease is as good without; only the kept database would have no test's name.
            tracing::debug!("nobody will know whose `{}` was: {error}", self.name);
        }
        self.claimant = claimant;
        self
    }

    /// Takes that back: no test has used the database.
    #[must_use]
    pub fn unused(mut self) -> Self {
        let _ = self.flock.set_len(0);
        self.claimant = None;
        self
    }

    /// Who claimed it, where that is known.
    pub fn claimant(&self) -> Option<&Claimant> {
        self.claimant.as_ref()
    }
}

/// The entries of a run directory, dead or alive.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    run_dir: &'a Path,
}

impl<'a> Entries<'a> {
    pub(super) fn of(run_dir: &'a Path) -> Self {
        Self { run_dir }
    }

    fn path(&self, folder: Folder, name: &str) -> PathBuf {
        self.run_dir.join(folder.as_str()).join(name)
    }

    /// The databases in a folder, in no order.
    pub fn list(&self, folder: Folder) -> Vec<DbName> {
        list(&self.run_dir.join(folder.as_str()))
    }

    /// Who claimed a database. `None`: nobody, or somebody who did not say.
    pub fn claimant(&self, folder: Folder, name: &DbName) -> Option<Claimant> {
        let text = fs::read_to_string(self.path(folder, &name.to_string())).ok()?;
        Claimant::parse(&text)
    }

    /// Moves a database on; `false` where the entry is gone.
    pub fn advance(&self, name: &DbName, from: Folder, to: Folder) -> bool {
        let text = name.to_string();
        fs::rename(self.path(from, &text), self.path(to, &text)).is_ok()
    }

    /// Whether somebody holds the entry's flock: its claimant lives.
    pub fn is_held(&self, folder: Folder, name: &DbName) -> bool {
        let file = File::open(self.path(folder, &name.to_string()));
        file.is_ok_and(|file| file.try_lock_shared().is_err())
    }

    /// Moves the leased databases of dead claimants on, and names them.
    pub fn settle_abandoned(&self, to: Folder) -> Vec<DbName> {
        let mut abandoned = self.list(Folder::Leased);
        abandoned.retain(|name| {
            let file = File::open(self.path(Folder::Leased, &name.to_string()));
            // Held while it moves, so that no two look at it at once.
            file.is_ok_and(|file| file.try_lock().is_ok() && self.advance(name, Folder::Leased, to))
        });
        abandoned
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, folder: Folder, name: &DbName) {
        let _ = fs::remove_file(self.path(folder, &name.to_string()));
    }
}

impl RunDir {
    /// Its entries.
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(self.path())
    }

    fn entry(&self, folder: Folder, name: &str) -> PathBuf {
        self.entries().path(folder, name)
    }

    /// The databases in a folder, in no order.
    pub fn list(&self, folder: Folder) -> Vec<DbName> {
        self.entries().list(folder)
    }

    /// Offers a database to the tests. It must exist.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer(&self, name: &DbName) -> Result<(), RunDirError> {
        let path = self.entry(Folder::Ready, &name.to_string());
        open_lock(&path).map(drop)
    }

    /// Claims a ready database; `None` where none is ready. `start` spreads claimants that come at once. All that are ready are clones of
    /// the run's own template.
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
        let flock = open_existing(&from).ok()?;
        flock.try_lock().ok()?;
        *renames += 1;
        fs::rename(&from, self.entry(Folder::Leased, text)).ok()?;
        Some(Claim::new(name, *renames, flock))
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
        Ok(Claim::new(name.clone(), 0, file))
    }

    /// Moves a leased database on; `false` where the run or the entry is gone.
    pub fn leave(&self, claim: Claim, to: Folder) -> bool {
        self.move_leased(&claim.name, to)
    }

    /// [`Self::leave`] for a claim that another process holds; that process gives up the claim when it sees this.
    pub fn move_leased(&self, name: &DbName, to: Folder) -> bool {
        self.entries().advance(name, Folder::Leased, to)
    }

    /// Says that tests of the run use that template, besides the run's own: its keeper holds the lock of it from now on, and who
    /// collects templates on this host leaves it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn enter_template(&self, name: &DbName) -> Result<(), RunDirError> {
        open_lock(&self.templates_folder().join(name.to_string())).map(drop)
    }

    /// Where that is said.
    pub fn templates_folder(&self) -> PathBuf {
        self.path().join(TEMPLATES)
    }

    /// Those templates.
    pub fn templates(&self) -> Vec<DbName> {
        list_templates(self.path())
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, folder: Folder, name: &DbName) {
        self.entries().forget(folder, name);
    }

    /// Marks an existing database as given back, so that the keeper drops it.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer_for_drop(&self, name: &DbName) -> Result<(), RunDirError> {
        open_lock(&self.entry(Folder::Released, &name.to_string())).map(drop)
    }
}

/// The templates that tests of a run use besides the run's own.
pub(super) fn list_templates(run_dir: &Path) -> Vec<DbName> {
    list(&run_dir.join(TEMPLATES))
}

fn list(folder: &Path) -> Vec<DbName> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
