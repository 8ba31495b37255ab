//! Entries: one file per database of a run, in the subdirectory that is the database's state.
//!
//! A change of state is one rename; the loser of a race gets `ENOENT`. Names are never used twice, so a renamed entry is never mistaken for another
//! one. A crash of a claimant frees the `flock` of its entry; the keeper and the sweep recognize it by that.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::last_words::LastWords;
use super::{IoContext, is_locked, lock_file, open_to_append};
use crate::protocol::{
    Baseline, Claimant, Cleaning, DbName, FailureCause, RunDir, RunDirError, open_lock,
};

/// The state of a database of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Ready for a test to claim.
    Ready,
    /// Claimed by a test.
    Leased,
    /// Released by a test, to be dropped.
    Released,
    /// Of a failed test, to be kept.
    Failed,
}

impl EntryState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Leased, Self::Released, Self::Failed];

    /// The name of the subdirectory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Released => "released",
            Self::Failed => "failed",
        }
    }
}

/// The subdirectory of the templates that tests of the run use besides the run's own.
pub(super) const TEMPLATES: &str = "templates";

/// A claimed entry. Its `flock` shows that the claimant lives; closing the descriptor frees it.
#[derive(Debug)]
pub struct Claim {
    /// The database.
    pub name: DbName,
    /// Number of renames that the claim took, failed ones included.
    pub renames: usize,
    /// Above the descriptor, because it must be dropped first.
    last_words: Option<LastWords>,
    flock: File,
    claimant: Option<Claimant>,
}

impl Claim {
    fn new(name: DbName, renames: usize, flock: File) -> Self {
        Self {
            name,
            renames,
            last_words: None,
            flock,
            claimant: None,
        }
    }

    /// The descriptor that holds the `flock`.
    pub fn file(&self) -> &File {
        &self.flock
    }

    /// Writes the claimant into the entry. A signal that ends this process is written into it, too.
    #[must_use]
    pub fn with_claimant(mut self, claimant: Option<Claimant>) -> Self {
        if let Some(claimant) = &claimant {
            // The lease works without it; only a kept database would lack the test's name.
            self.append(&claimant.line());
        }
        self.last_words = Some(LastWords::into(&self.flock));
        self.claimant = claimant;
        self
    }

    /// Records what a new clone is like.
    pub fn note_baseline(&self, baseline: &Baseline) {
        self.append(&baseline_line(baseline));
    }

    /// Records the result of a cleaning. Without it, the clone is cleaned again or dropped.
    pub fn note_cleaning(&self, cleaning: &Cleaning) {
        self.append(&line(cleaning));
    }

    /// Records why the test failed.
    pub fn note_cause(&self, cause: &FailureCause) {
        self.append(&line(cause));
    }

    /// What the clone was like when it was last known to equal its template.
    pub fn baseline(&self) -> Option<Baseline> {
        let mut text = String::new();
        let mut file = &self.flock;
        file.rewind().ok()?;
        file.read_to_string(&mut text).ok()?;
        parse_baseline(&text)
    }

    fn append(&self, line: &str) {
        if let Err(error) = (&self.flock).write_all(line.as_bytes()) {
            tracing::debug!("failed to write into the entry of `{}`: {error}", self.name);
        }
    }

    /// Removes the claimant from the entry, because no test has used the database.
    #[must_use]
    pub fn without_claimant(mut self) -> Self {
        self.last_words = None;
        let _ = self.flock.set_len(0);
        self.claimant = None;
        self
    }

    /// The claimant, if it is known.
    pub fn claimant(&self) -> Option<&Claimant> {
        self.claimant.as_ref()
    }
}

/// A line of an entry that says what a clone was like when it was known to equal its template.
#[derive(Serialize, Deserialize)]
struct BaselineLine<T> {
    baseline: T,
}

fn line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

pub(super) fn baseline_line(baseline: &Baseline) -> String {
    line(&BaselineLine { baseline })
}

pub(super) fn parse_baseline(text: &str) -> Option<Baseline> {
    let parse = |line| serde_json::from_str::<BaselineLine<Baseline>>(line).ok();
    Some(text.lines().find_map(parse)?.baseline)
}

/// When the death of a claimant is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// By a process that watches the entries.
    AtOnce,
    /// At any time after it.
    Later,
}

/// The entries of a run directory, dead or alive.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    run_dir: &'a Path,
}

impl<'a> Entries<'a> {
    /// The entries of this run directory.
    pub fn of(run_dir: &'a Path) -> Self {
        Self { run_dir }
    }

    fn path(&self, state: EntryState, name: &str) -> PathBuf {
        self.run_dir.join(state.as_str()).join(name)
    }

    /// The databases in a state, in no order.
    pub fn list(&self, state: EntryState) -> Vec<DbName> {
        list(&self.run_dir.join(state.as_str()))
    }

    /// The claimant of a database, if there is one and it is known.
    pub fn claimant(&self, state: EntryState, name: &DbName) -> Option<Claimant> {
        self.text(state, name).lines().find_map(Claimant::parse)
    }

    /// What a clone was like when it was last known to equal its template.
    pub fn baseline(&self, state: EntryState, name: &DbName) -> Option<Baseline> {
        parse_baseline(&self.text(state, name))
    }

    /// The result of the cleaning of a clone; `None` if it was not cleaned.
    pub fn cleaning(&self, state: EntryState, name: &DbName) -> Option<Cleaning> {
        let text = self.text(state, name);
        text.lines()
            .find_map(|line| serde_json::from_str(line).ok())
    }

    /// Why the test failed, if it is known. What the test itself recorded comes first.
    pub fn cause(&self, state: EntryState, name: &DbName) -> Option<FailureCause> {
        self.text(state, name).lines().find_map(FailureCause::parse)
    }

    /// The released clones that their clients have cleaned, and that no process has renamed yet.
    pub fn cleaned(self) -> impl Iterator<Item = (Baseline, DbName)> {
        let released = self.list(EntryState::Released).into_iter();
        released.filter_map(
            move |name| match self.cleaning(EntryState::Released, &name)? {
                Cleaning::Cleaned(baseline) => Some((baseline, name)),
                Cleaning::Dirty(_) => None,
            },
        )
    }

    /// Takes the `flock` of an entry, until the file is dropped; `None` if the entry is gone, or another process holds it.
    pub fn hold(&self, state: EntryState, name: &DbName) -> Option<File> {
        let file = File::open(self.path(state, &name.to_string())).ok()?;
        file.try_lock().ok()?;
        Some(file)
    }

    fn text(&self, state: EntryState, name: &DbName) -> String {
        fs::read_to_string(self.path(state, &name.to_string())).unwrap_or_default()
    }

    /// Changes the state of a database; `false` if the entry is gone.
    pub fn move_entry(&self, name: &DbName, from: EntryState, to: EntryState) -> bool {
        let text = name.to_string();
        fs::rename(self.path(from, &text), self.path(to, &text)).is_ok()
    }

    /// Whether a process holds the entry's `flock`, so that its claimant lives.
    pub fn is_held(&self, state: EntryState, name: &DbName) -> bool {
        is_locked(&self.path(state, &name.to_string()))
    }

    /// Changes the state of the leased databases of dead claimants, records their deaths in the entries, and returns the names.
    pub fn move_abandoned(&self, to: EntryState, noticed: Noticed) -> Vec<DbName> {
        let mut abandoned = self.list(EntryState::Leased);
        abandoned.retain(|name| {
            // Of several processes that do this, one wins the rename.
            !self.is_held(EntryState::Leased, name) && self.move_entry(name, EntryState::Leased, to)
        });
        for name in &abandoned {
            self.note_death(to, name, noticed);
        }
        abandoned
    }

    fn note_death(&self, state: EntryState, name: &DbName, noticed: Noticed) {
        if self.cause(state, name).is_some() {
            return;
        }
        // The claimant's line is the last one.
        let claimed = || self.age(state, name).filter(|_| noticed == Noticed::AtOnce);
        let after_secs = self
            .claimant(state, name)
            .and_then(|_| Some(claimed()?.as_secs()));
        let cause = line(&FailureCause::Died {
            after_secs,
            signal: None,
        });
        let file = open_to_append(&self.path(state, &name.to_string()));
        if let Err(error) = file.and_then(|mut file| file.write_all(cause.as_bytes())) {
            tracing::debug!("failed to write into the entry of `{name}`: {error}");
        }
    }

    /// How long ago the entry was written to.
    fn age(&self, state: EntryState, name: &DbName) -> Option<Duration> {
        let metadata = fs::metadata(self.path(state, &name.to_string())).ok()?;
        metadata.modified().ok()?.elapsed().ok()
    }

    /// Whether a database is in this state.
    pub fn has(&self, state: EntryState, name: &DbName) -> bool {
        fs::symlink_metadata(self.path(state, &name.to_string())).is_ok()
    }

    /// Removes the entry of a database that is gone.
    pub fn remove_entry(&self, state: EntryState, name: &DbName) {
        let _ = fs::remove_file(self.path(state, &name.to_string()));
    }
}

impl RunDir {
    /// Its entries.
    pub fn entries(&self) -> Entries<'_> {
        Entries::of(self.path())
    }

    fn entry(&self, state: EntryState, name: &str) -> PathBuf {
        self.entries().path(state, name)
    }

    /// The databases in a state, in no order.
    pub fn list(&self, state: EntryState) -> Vec<DbName> {
        self.entries().list(state)
    }

    /// Creates the entry of a ready database, with what it is like. The database must exist.
    pub fn offer(&self, name: &DbName, baseline: Option<&Baseline>) -> Result<(), RunDirError> {
        self.create_entry(EntryState::Ready, name, baseline)
    }

    /// Claims the ready database that was offered last, because the server has most of it in memory; `None` if none is ready. All ready databases are
    /// clones of the run's own template.
    pub fn claim(&self) -> Option<Claim> {
        let entries = fs::read_dir(self.path().join(EntryState::Ready.as_str())).ok()?;
        let mut ready: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.file_name())))
            .collect();
        ready.sort_unstable_by(|a, b| b.cmp(a));
        let mut renames = 0;
        let mut names = ready.iter().filter_map(|(_, name)| name.to_str());
        names.find_map(|text| self.claim_entry(text, &mut renames))
    }

    fn claim_entry(&self, text: &str, renames: &mut usize) -> Option<Claim> {
        let name = text.parse().ok()?;
        let from = self.entry(EntryState::Ready, text);
        // Gone, or another claimant holds it: the next one.
        let flock = open_to_append(&from).ok()?;
        flock.try_lock().ok()?;
        *renames += 1;
        fs::rename(&from, self.entry(EntryState::Leased, text)).ok()?;
        Some(Claim::new(name, *renames, flock))
    }

    /// Creates the leased entry of a database that is about to be created. The entry is locked before it is visible, so that no process takes it for
    /// abandoned.
    pub fn create_leased(&self, name: &DbName) -> Result<Claim, RunDirError> {
        let text = name.to_string();
        let hidden = self.path().join(format!("{text}.new"));
        drop(open_lock(&hidden)?);
        let file = open_to_append(&hidden).at("open", &hidden)?;
        lock_file(&file, &hidden)?;
        fs::rename(&hidden, self.entry(EntryState::Leased, &text)).at("rename", &hidden)?;
        Ok(Claim::new(name.clone(), 0, file))
    }

    /// Changes the state of a leased database; `false` if the run or the entry is gone.
    pub fn end_lease(&self, claim: Claim, to: EntryState) -> bool {
        self.move_leased(&claim.name, to)
    }

    /// [`Self::end_lease`] for a claim that another process holds; that process gives up the claim when it notices.
    pub fn move_leased(&self, name: &DbName, to: EntryState) -> bool {
        self.entries().move_entry(name, EntryState::Leased, to)
    }

    /// Registers a template that tests of the run use besides the run's own. The keeper holds its lock from now on, and collectors on this host
    /// leave it alone.
    pub fn register_template(&self, name: &DbName) -> Result<(), RunDirError> {
        open_lock(&self.templates_dir().join(name.to_string())).map(drop)
    }

    /// The directory of these registrations, to be watched.
    pub fn templates_dir(&self) -> PathBuf {
        self.path().join(TEMPLATES)
    }

    /// The templates that tests of the run use besides the run's own.
    pub fn templates(&self) -> Vec<DbName> {
        list_templates(self.path())
    }

    /// Removes the entry of a database that is gone.
    pub fn remove_entry(&self, state: EntryState, name: &DbName) {
        self.entries().remove_entry(state, name);
    }

    /// Creates a released entry for an existing database, so that the keeper recycles or drops it.
    pub fn mark_released(
        &self,
        name: &DbName,
        baseline: Option<&Baseline>,
    ) -> Result<(), RunDirError> {
        self.create_entry(EntryState::Released, name, baseline)
    }

    fn create_entry(
        &self,
        state: EntryState,
        name: &DbName,
        baseline: Option<&Baseline>,
    ) -> Result<(), RunDirError> {
        let path = self.entry(state, &name.to_string());
        match baseline {
            None => open_lock(&path).map(drop),
            // Complete before it is visible.
            Some(baseline) => {
                let hidden = self.path().join(format!("{name}.new"));
                let written = fs::write(&hidden, baseline_line(baseline))
                    .at("write", &hidden)
                    .and_then(|()| fs::rename(&hidden, &path).at("rename", &hidden));
                if written.is_err() {
                    let _ = fs::remove_file(&hidden);
                }
                written
            }
        }
    }
}

/// The templates that tests of a run use besides the run's own.
pub fn list_templates(run_dir: &Path) -> Vec<DbName> {
    list(&run_dir.join(TEMPLATES))
}

fn list(dir: &Path) -> Vec<DbName> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
