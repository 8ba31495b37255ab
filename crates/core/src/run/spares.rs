//! Spares: clones that equal their template, belong to no run, and wait for the next one.
//!
//! A run's end renames ready clones to spares, under the fence; their comments carry what they were like. A run that needs a clone renames a spare:
//! the server lets one of several runs win. Whether the spare still equals its template is checked in the same transaction. A spare that does not is
//! dropped. Nobody needs a lock for a spare: a DROP by name finds nothing if a run was faster.
//!
//! | a crash after | leaves | who removes it |
//! |---|---|---|
//! | the rename of an adoption | a clone of the run without an entry | the run's end or the sweep |
//! | the rename to a spare | a spare | nobody: it is used, or dropped once it is too old |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clone;
use super::renew::{clean_with, difference};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::seen::SeenDatabase;
use crate::protocol::{
    Baseline, Cleaning, DbName, DeadRunDir, EntryState, Kind, ReuseEvent, RunDir, RunFile,
    SpareNote,
};
use crate::sqlstate;

/// How long a spare waits for a run.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

/// What the last runs used, according to the spares that they left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Spares that can be adopted.
    pub spares: usize,
    /// Clones that the last run used at the same time.
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
    for spare in usable(admin, file).await?.0 {
        if let Some(baseline) = rename(admin, &spare, name).await? {
            return Ok(Some(baseline));
        }
    }
    Ok(None)
}

/// Adopts spares for a run that begins or goes on: makes up to `clones` of them ready, but not more than the last run used, unless that is `all`.
/// Before that, it adopts a shared clone if the last run used one and `shared` is set. Returns what was found.
///
/// # Errors
/// A statement failed, or the run directory is gone.
pub async fn adopt_ready(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    clones: usize,
    all: bool,
    shared: bool,
) -> Result<(Demand, usize), super::RunError> {
    if file.recycle.is_none() {
        return Ok((Demand::default(), 0));
    }
    let (spares, demand) = usable(admin, file).await?;
    let mut spares = spares.into_iter();
    if shared && demand.shared && dir.shared().is_none() {
        adopt_shared(admin, dir, file, &mut spares).await?;
    }
    let wanted = if all {
        clones
    } else {
        // A second `prepare` of the run finds clones that are ready.
        let ready = dir.list(EntryState::Ready).len();
        clones.min(demand.clones.max(1)).saturating_sub(ready)
    };
    let mut adopted = 0;
    while adopted < wanted {
        let Some(spare) = spares.next() else { break };
        let name = clone::new_name(file, Kind::Clone);
        if let Some(baseline) = rename(admin, &spare, &name).await? {
            dir.offer(&name, Some(&baseline))?;
            dir.note_reuse(ReuseEvent::Adopted);
            adopted += 1;
        }
    }
    Ok((demand, adopted))
}

async fn adopt_shared(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    spares: &mut impl Iterator<Item = SeenDatabase>,
) -> Result<(), super::RunError> {
    // A process that already makes one is not waited for.
    let Some(_lock) = dir.try_lock_shared_clone()? else {
        return Ok(());
    };
    for spare in spares {
        let name = clone::new_name(file, Kind::Shared);
        if let Some(baseline) = rename(admin, &spare, &name).await? {
            dir.set_shared(Some((&name, Some(&baseline))))?;
            dir.note_reuse(ReuseEvent::Adopted);
            break;
        }
    }
    Ok(())
}

/// The spares of the run's template that still equal it, youngest first.
async fn usable(admin: &mut Admin, file: &RunFile) -> Result<(Vec<SeenDatabase>, Demand), PgError> {
    let rows = admin
        .spares(&file.namespace, file.template.fingerprint())
        .await?;
    let mut spares: Vec<(SpareNote, SeenDatabase)> = rows
        .into_iter()
        .filter_map(|row| Some((note_of(&row)?, row)))
        .collect();
    spares.sort_by_key(|(note, _)| std::cmp::Reverse(note.since));
    let last = spares.first().map(|(note, _)| note);
    let demand = Demand {
        spares: spares.len(),
        clones: last.map_or(0, |note| note.demand),
        shared: last.is_some_and(|note| note.shared),
    };
    Ok((spares.into_iter().map(|(_, row)| row).collect(), demand))
}

/// The note of a spare that still equals its template.
fn note_of(row: &SeenDatabase) -> Option<SpareNote> {
    let note = SpareNote::parse(row.comment.as_deref())?;
    let fits = row.backends == 0 && difference(&note.baseline, &row.seen).is_none();
    fits.then_some(note)
}

/// Renames a spare to a database of the run; `None` if another run was faster, or somebody has visited the spare, which is then dropped.
async fn rename(
    admin: &mut Admin,
    spare: &SeenDatabase,
    to: &DbName,
) -> Result<Option<Baseline>, PgError> {
    let Some(note) = SpareNote::parse(spare.comment.as_deref()) else {
        return Ok(None);
    };
    let row = match admin.rename_and_see(&spare.name, to, None).await {
        Ok(row) => row,
        Err(error) if is_taken(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if difference(&note.baseline, &row.seen).is_some() {
        admin.drop_database(to, false, true).await?;
        return Ok(None);
    }
    Ok(Some(note.baseline))
}

/// Another run has renamed the spare, is renaming it, or somebody is connected to it.
pub(super) fn is_taken(error: &PgError) -> bool {
    const CODES: [&str; 3] = [
        sqlstate::INVALID_CATALOG_NAME,
        sqlstate::OBJECT_IN_USE,
        sqlstate::INTERNAL_ERROR,
    ];
    CODES.iter().any(|code| error.is(code))
}

/// Renames the unused clones of a run to spares, and its shared clone, if that can be cleaned. The caller holds the fence. What does not become a
/// spare is left for the caller to drop. Returns the number of spares.
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
    let mut room = legacy.limit.saturating_sub(existing);
    let mut left = 0;
    let entries = dead.entries();
    let note = |baseline| SpareNote {
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        run: file.run.clone(),
        template: file.template.clone(),
        since: now(),
        demand: legacy.clones,
        shared: dead.shared().is_some(),
        limit: legacy.limit,
        baseline,
    };
    if let Some((name, baseline)) = shared(dead).filter(|_| room > 0) {
        admin.wait_for_sessions(&name, force).await?;
        let cleaning = clean_with(file, &name, &baseline, || dead.profile()).await;
        if let Ok(Cleaning::Cleaned(baseline)) = cleaning
            && become_spare(admin, &name, note(baseline)).await?
        {
            (room, left) = (room - 1, left + 1);
        } else {
            // Our own session may still be ending, and a dead run's database is dropped only without sessions.
            admin.wait_for_sessions(&name, force).await?;
        }
    }
    for name in entries.list(EntryState::Ready) {
        if room == 0 {
            break;
        }
        let Some(mut baseline) = entries.baseline(EntryState::Ready, &name) else {
            continue;
        };
        baseline.seen.sessions += i64::from(legacy.visited == Some(&name));
        if become_spare(admin, &name, note(baseline)).await? {
            (room, left) = (room - 1, left + 1);
        }
    }
    Ok(left)
}

/// Drops spares that no longer equal the template, because somebody visited them or the server crashed. Returns how many are left.
async fn drop_unfit(admin: &mut Admin, file: &RunFile) -> Result<usize, PgError> {
    let fingerprint = file.template.fingerprint();
    let mut left = 0;
    for row in admin.spares(&file.namespace, fingerprint).await? {
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

/// Renames a clone to a spare, unless somebody has visited it. A crash leaves a clone of the run or a spare; a spare that was visited is noticed when
/// it is adopted.
async fn become_spare(admin: &mut Admin, name: &DbName, note: SpareNote) -> Result<bool, PgError> {
    let Some(row) = clone::quiet(admin, name).await? else {
        return Ok(false);
    };
    if difference(&note.baseline, &row.seen).is_some() || row.comment.is_some() {
        return Ok(false);
    }
    let comment = serde_json::to_string(&note).unwrap_or_default();
    let spare = name.with_kind(Kind::Spare);
    match admin.rename_and_see(name, &spare, Some(&comment)).await {
        Ok(_) => Ok(true),
        Err(error) if is_taken(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
