//! Spares: clones that equal their template, belong to no run, and wait for the next one.
//!
//! A run's end renames ready clones to spares, under the fence; their comments carry what they were like. A run that needs a clone renames a spare:
//! the server lets one of several runs win. Whether the spare still equals its template is checked in the same transaction. A spare that does not is
//! dropped. Spares need no locks: a DROP by name finds nothing if a run was faster.
//!
//! | a crash after | leaves | who removes it |
//! |---|---|---|
//! | the rename of an adoption | a clone of the run without an entry | the run's end or the sweep |
//! | the rename to a spare | a spare | a run adopts it, or the sweep drops it once it is too old |

use std::time::Duration;

use super::{RunError, clone, renew};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::seen::SeenDatabase;
use crate::protocol::{
    Baseline, Cleaning, DbName, DeadRunDir, EntryState, Kind, ReuseEvent, RunDir, RunFile,
    SpareNote, unix_now,
};

/// How long a spare waits for a run.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

/// What the last run used, according to the spares that it left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastRun {
    /// Clones that it used at the same time.
    pub clones: usize,
    /// Whether it used a shared clone.
    pub shared: bool,
}

/// What a run leaves for the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Legacy<'a> {
    /// Clones that it used at the same time.
    pub clones: usize,
    /// The most spares that it may leave.
    pub limit: usize,
    /// An unused clone that this process has visited once, without writing to it.
    pub visited: Option<&'a DbName>,
}

impl Legacy<'_> {
    /// Of a run whose use of clones was not observed.
    pub fn of(file: &RunFile) -> Self {
        Self {
            clones: 1,
            limit: file.spares,
            visited: None,
        }
    }
}

/// The outcome of an attempt to take a database over under another name.
#[derive(Debug)]
pub(super) enum TakeOver {
    /// It equals its template.
    Taken(Baseline),
    /// It no longer equals its template, and was dropped.
    Unfit,
    /// It has a session, or another process renames or has renamed it.
    InUse,
}

impl TakeOver {
    pub fn baseline(self) -> Option<Baseline> {
        match self {
            Self::Taken(baseline) => Some(baseline),
            Self::Unfit | Self::InUse => None,
        }
    }
}

/// Adopts a spare under this name; `None` if there is none.
///
/// # Errors
/// A statement failed.
pub async fn adopt(
    admin: &mut Admin,
    file: &RunFile,
    name: &DbName,
) -> Result<Option<Baseline>, PgError> {
    if file.recycle.is_none() {
        return Ok(None);
    }
    let (spares, _) = usable(admin, file).await?;
    let adopted = adopt_one(admin, &mut spares.into_iter(), || name.clone()).await?;
    Ok(adopted.map(|(_, baseline)| baseline))
}

/// Adopts spares for a run that begins, so that they are ready before the first test asks: up to `most` clones, but not more than the last run used; and
/// a shared clone, if the last run used one.
///
/// # Errors
/// A statement failed, or the run directory is gone.
pub async fn adopt_first(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    most: usize,
) -> Result<LastRun, RunError> {
    if file.recycle.is_none() {
        return Ok(LastRun::default());
    }
    let (spares, last_run) = usable(admin, file).await?;
    let mut spares = spares.into_iter();
    if last_run.shared && dir.shared().is_none() {
        adopt_shared(admin, dir, file, &mut spares).await?;
    }
    // A second `prepare` of the run finds clones that are ready.
    let ready = dir.list(EntryState::Ready).len();
    let count = most.min(last_run.clones.max(1)).saturating_sub(ready);
    make_ready(admin, dir, file, spares, count).await?;
    Ok(last_run)
}

/// Adopts up to `count` spares and makes them ready. Returns how many those are.
///
/// # Errors
/// A statement failed, or the run directory is gone.
pub async fn adopt_more(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    count: usize,
) -> Result<usize, RunError> {
    if file.recycle.is_none() {
        return Ok(0);
    }
    let (spares, _) = usable(admin, file).await?;
    make_ready(admin, dir, file, spares.into_iter(), count).await
}

async fn make_ready(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    mut spares: impl Iterator<Item = Spare>,
    count: usize,
) -> Result<usize, RunError> {
    for adopted in 0..count {
        let new_name = || clone::new_name(file, Kind::Clone);
        let Some((name, baseline)) = adopt_one(admin, &mut spares, new_name).await? else {
            return Ok(adopted);
        };
        let offered = dir.offer(&name, Some(&baseline));
        clone::drop_unless_recorded(admin, &name, offered).await?;
        dir.note_reuse(ReuseEvent::Adopted);
    }
    Ok(count)
}

async fn adopt_shared(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    spares: &mut impl Iterator<Item = Spare>,
) -> Result<(), RunError> {
    // If another process already makes one, this process does not wait for it.
    let lock = dir.shared_clone_lock()?;
    if !dir.try_lock_shared_clone(&lock)? {
        return Ok(());
    }
    let new_name = || clone::new_name(file, Kind::Shared);
    if let Some((name, baseline)) = adopt_one(admin, spares, new_name).await? {
        let recorded = dir.set_shared(Some((&name, Some(&baseline))));
        clone::drop_unless_recorded(admin, &name, recorded).await?;
        dir.note_reuse(ReuseEvent::Adopted);
    }
    Ok(())
}

/// A spare that equaled its template when it was listed.
struct Spare {
    name: DbName,
    note: SpareNote,
}

/// The spares of the run's template that still equal it, youngest first.
async fn usable(admin: &mut Admin, file: &RunFile) -> Result<(Vec<Spare>, LastRun), PgError> {
    let rows = admin.spares(&file.template).await?;
    let spare = |row: SeenDatabase| {
        let note = note_of(&row)?;
        Some(Spare {
            name: row.name,
            note,
        })
    };
    let mut spares: Vec<Spare> = rows.into_iter().filter_map(spare).collect();
    spares.sort_by_key(|spare| std::cmp::Reverse(spare.note.since));
    let last_run = spares.first().map(|spare| LastRun {
        clones: spare.note.demand,
        shared: spare.note.shared,
    });
    Ok((spares, last_run.unwrap_or_default()))
}

/// The note of a spare that still equals its template.
fn note_of(row: &SeenDatabase) -> Option<SpareNote> {
    let note = SpareNote::parse(row.comment.as_deref())?;
    let fits = row.backends == 0 && note.baseline.difference(&row.seen).is_none();
    fits.then_some(note)
}

/// Takes over the first of these spares that can be had. `new_name` names it at each attempt.
async fn adopt_one(
    admin: &mut Admin,
    spares: &mut impl Iterator<Item = Spare>,
    new_name: impl Fn() -> DbName,
) -> Result<Option<(DbName, Baseline)>, PgError> {
    for spare in spares {
        let name = new_name();
        let taken = take_over(admin, &spare.name, &name, spare.note.baseline).await?;
        if let Some(baseline) = taken.baseline() {
            return Ok(Some((name, baseline)));
        }
    }
    Ok(None)
}

/// Renames a database that equaled its template, and drops it if it no longer does.
///
/// # Errors
/// A statement failed.
pub(super) async fn take_over(
    admin: &mut Admin,
    from: &DbName,
    to: &DbName,
    baseline: Baseline,
) -> Result<TakeOver, PgError> {
    match renew::rename(admin, from, to, &baseline).await {
        Ok(None) => Ok(TakeOver::Taken(baseline)),
        Ok(Some(_)) => {
            admin.drop_database(to, false, true).await?;
            Ok(TakeOver::Unfit)
        }
        Err(error) if renew::is_taken(&error) => Ok(TakeOver::InUse),
        Err(error) => Err(error),
    }
}

/// Renames the unused and the cleaned clones of a run to spares, and its shared clone, if that can be cleaned. The caller holds the fence. What does not
/// become a spare is left for the caller to drop. Returns the number of spares.
///
/// # Errors
/// A statement failed.
pub async fn leave(
    admin: &mut Admin,
    dead: &DeadRunDir,
    file: &RunFile,
    legacy: Legacy<'_>,
    force: bool,
) -> Result<usize, PgError> {
    if file.recycle.is_none() {
        return Ok(0);
    }
    let existing = drop_unfit(admin, file).await?;
    let limit = legacy.limit.saturating_sub(existing);
    let mut left = 0;
    let entries = dead.entries();
    let note = |baseline| SpareNote {
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        run: file.run.clone(),
        template: file.template.clone(),
        since: unix_now(),
        demand: legacy.clones,
        shared: dead.shared().is_some(),
        limit: legacy.limit,
        baseline,
    };
    if let Some((name, baseline)) = shared(dead).filter(|_| limit > 0) {
        admin.wait_for_sessions(&name, force).await?;
        let cleaning = renew::clean(file, &name, &baseline, || dead.profile()).await;
        if let Ok(Cleaning::Cleaned(baseline)) = cleaning
            && become_spare(admin, &name, note(baseline)).await?
        {
            left += 1;
        } else {
            // Our own session may still be ending, and a dead run's database is dropped only without sessions.
            admin.wait_for_sessions(&name, force).await?;
        }
    }
    let ready = entries.list(EntryState::Ready).into_iter();
    let ready = ready.filter_map(|name| Some((entries.baseline(EntryState::Ready, &name)?, name)));
    for (mut baseline, name) in ready.chain(entries.cleaned()) {
        if left == limit {
            break;
        }
        baseline.seen.sessions += i64::from(legacy.visited == Some(&name));
        if become_spare(admin, &name, note(baseline)).await? {
            left += 1;
        }
    }
    Ok(left)
}

/// Drops spares that no longer equal the template, because a session visited them or the server crashed. Returns how many are left.
async fn drop_unfit(admin: &mut Admin, file: &RunFile) -> Result<usize, PgError> {
    let mut left = 0;
    for row in admin.spares(&file.template).await? {
        if row.backends > 0 || note_of(&row).is_some() {
            left += 1;
            continue;
        }
        match admin.drop_database(&row.name, false, false).await {
            Err(error) if error.code().is_some() => left += 1,
            result => result?,
        }
    }
    Ok(left)
}

fn shared(dead: &DeadRunDir) -> Option<(DbName, Baseline)> {
    Some((dead.shared()?, dead.shared_baseline()?))
}

/// Renames a clone to a spare, unless a session has visited it. A crash leaves a clone of the run or a spare; a spare that was visited is noticed when
/// it is adopted.
async fn become_spare(admin: &mut Admin, name: &DbName, note: SpareNote) -> Result<bool, PgError> {
    let Some(row) = clone::quiet(admin, name).await? else {
        return Ok(false);
    };
    if note.baseline.difference(&row.seen).is_some() || row.comment.is_some() {
        return Ok(false);
    }
    let comment = serde_json::to_string(&note).unwrap_or_default();
    let spare = name.with_kind(Kind::Spare);
    match admin.rename_and_see(name, &spare, Some(&comment)).await {
        Ok(_) => Ok(true),
        Err(error) if renew::is_taken(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
