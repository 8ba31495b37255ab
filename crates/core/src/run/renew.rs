//! Makes a used clone ready again, under a new name.
//!
//! The rename comes first: from then on no other process knows the clone's name. Then the server's counters, which show every visitor, are compared with
//! what the process that cleaned the clone recorded. The new entry comes next, and the old one goes last.
//!
//! | a crash after | leaves |
//! |---|---|
//! | the rename | a clone of the run without an entry, and a released entry without a database |
//! | the new entry | the released entry without a database |
//!
//! Both go with the run: databases by their names, entries with the directory. The next process that handles the released entry finds no database.

use super::clone::{self, Use};
use super::kept;
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::{RetryLimits, connect, quiet};
use crate::pg::session::close;
use crate::protocol::{
    Baseline, Cleaning, DbName, EntryState, Kind, Profile, Reason, ReuseEvent, RunDir, RunFile,
};
use crate::recycle;
use crate::sqlstate;

/// What [`settle`] may do.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Clean a clone on another session if its client has not cleaned it.
    pub connect: bool,
    /// Drop a clone that is not used again. On a durable server, that takes as long as a checkpoint.
    pub drop: bool,
}

impl Means {
    /// Everything.
    pub const ALL: Self = Self {
        connect: true,
        drop: true,
    };
}

/// What became of a released database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is ready under a new name, or dropped.
    Done,
    /// It is not used again; the caller may drop it later.
    Unfit,
}

/// Recycles or drops a released database of the run, and removes its entry. If its claimant is a retry, this also drops the databases of the test's
/// earlier attempts: the caller knows that the retry and these attempts have ended.
///
/// # Errors
/// A statement failed; the entry stays.
pub async fn settle(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
    means: Means,
) -> Result<Settled, PgError> {
    drop_earlier_attempts(admin, dir, file, name).await?;
    let outcome = match recycle(admin, dir, file, name, means.connect).await {
        Err(error) if error.is(sqlstate::INVALID_CATALOG_NAME) => Outcome::Gone,
        // A prepared transaction holds it.
        Err(error) if error.is(sqlstate::OBJECT_IN_USE) => {
            Outcome::Unfit(name.clone(), Some(Reason::Failed))
        }
        outcome => outcome?,
    };
    match outcome {
        Outcome::Gone => {}
        Outcome::Ready(new, baseline) => {
            // Only then is the old entry removed: a crash leaves no clone without a trace.
            let offered = dir.offer(&new, Some(&baseline));
            dir.note_reuse(
                match clone::drop_unless_recorded(admin, &new, offered).await {
                    Ok(()) => ReuseEvent::Recycled,
                    Err(error) => {
                        tracing::warn!("dropped a recycled database: {error}");
                        ReuseEvent::Dropped {
                            reason: Some(Reason::Failed),
                        }
                    }
                },
            );
        }
        Outcome::Unfit(present, reason) if present == *name => {
            if means.drop {
                drop_unfit(admin, dir, name).await?;
            }
            dir.note_reuse(ReuseEvent::Dropped { reason });
            return Ok(if means.drop {
                Settled::Done
            } else {
                Settled::Unfit
            });
        }
        // Under its new name it has no entry.
        Outcome::Unfit(present, reason) => {
            admin.drop_database(&present, false, true).await?;
            dir.note_reuse(ReuseEvent::Dropped { reason });
        }
    }
    dir.remove_entry(EntryState::Released, name);
    Ok(Settled::Done)
}

/// Drops a released database that is not used again, and removes its entry.
///
/// # Errors
/// The statement failed; the entry stays.
pub async fn drop_unfit(admin: &mut Admin, dir: &RunDir, name: &DbName) -> Result<(), PgError> {
    admin.drop_database(name, false, true).await?;
    dir.remove_entry(EntryState::Released, name);
    Ok(())
}

enum Outcome {
    Ready(DbName, Baseline),
    /// By its present name.
    Unfit(DbName, Option<Reason>),
    /// A test process has taken it over, or it was dropped.
    Gone,
}

async fn recycle(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
    may_connect: bool,
) -> Result<Outcome, PgError> {
    let unfit = |reason| Ok(Outcome::Unfit(name.clone(), reason));
    let is_of_template = name.fingerprint() == file.template.fingerprint();
    if file.recycle.is_none() || !is_of_template {
        return unfit(None);
    }
    let entries = dir.entries();
    let cleaning = match entries.cleaning(EntryState::Released, name) {
        Some(cleaning) => cleaning,
        None if !may_connect => Cleaning::Dirty(Reason::Busy),
        None => match entries.baseline(EntryState::Released, name) {
            Some(baseline) => {
                // As before a DROP: the test is over, and what is left of it must not write any more.
                admin.wait_for_sessions(name, true).await?;
                clean(file, name, &baseline, || dir.profile()).await?
            }
            None => Cleaning::Dirty(Reason::NoBaseline),
        },
    };
    match cleaning {
        Cleaning::Cleaned(baseline) => {
            let new = clone::new_name(file, Kind::Clone);
            renew(admin, name, new, baseline).await
        }
        Cleaning::Dirty(reason) => unfit(Some(reason)),
    }
}

/// Cleans a clone on a session of its own, for a client that did not. `profile` reads the profile of the run's template.
///
/// # Errors
/// The connection failed.
pub(super) async fn clean(
    file: &RunFile,
    name: &DbName,
    baseline: &Baseline,
    profile: impl FnOnce() -> Option<Profile>,
) -> Result<Cleaning, PgError> {
    let Some(method) = file.recycle else {
        return Ok(Cleaning::Dirty(Reason::NoBaseline));
    };
    let address = file.admin_address();
    let options =
        quiet(address.options(&name.to_string())).application_name("kapsel-testdb recycle");
    let mut connection = connect(address, &options, RetryLimits::RUNNING).await?;
    let cleaning = recycle::clean(&mut connection, baseline, profile, method).await;
    let context = || format!("close a session on `{name}`");
    let closed = close(connection, address, context).await;
    Ok(match cleaning {
        Ok(cleaning) => {
            closed?;
            cleaning
        }
        Err(error) => {
            tracing::info!("failed to clean `{name}`: {error}");
            Cleaning::Dirty(Reason::Failed)
        }
    })
}

/// Renames a cleaned clone, and checks that no session has visited it since.
async fn renew(
    admin: &mut Admin,
    name: &DbName,
    new: DbName,
    cleaned: Baseline,
) -> Result<Outcome, PgError> {
    // With a session on it, the server would refuse the rename, and wait for 5 s before.
    match clone::wait_until_unused(admin, name).await? {
        Use::Idle { marked: false } => {}
        Use::Idle { marked: true } => {
            return Ok(Outcome::Unfit(name.clone(), Some(Reason::Database)));
        }
        Use::Busy => return Ok(Outcome::Unfit(name.clone(), Some(Reason::Sessions))),
        Use::Gone => return Ok(Outcome::Gone),
    }
    Ok(match rename(admin, name, &new, &cleaned).await? {
        None => Outcome::Ready(new, cleaned),
        reason => Outcome::Unfit(new, reason),
    })
}

/// Takes over a clone that a test of the run has released and cleaned, under the name `new`. The keeper may be about to recycle the same clone: the server
/// lets one rename win, and the other process finds no database of that name. So a busy machine, on which the keeper comes too late, needs no more clones.
///
/// # Errors
/// A statement failed.
pub(super) async fn take_released(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    new: &DbName,
) -> Result<Option<Baseline>, PgError> {
    if file.recycle.is_none() {
        return Ok(None);
    }
    let entries = dir.entries();
    for (baseline, name) in entries.cleaned() {
        let claimant = entries.claimant(EntryState::Released, &name);
        // Before a clone of a retry is used again, the databases of the earlier attempts go.
        if claimant.is_some_and(|c| c.is_retry()) {
            continue;
        }
        // Other processes that look for a clone try the next one.
        let Some(_held) = entries.hold(EntryState::Released, &name) else {
            continue;
        };
        match renew(admin, &name, new.clone(), baseline).await {
            Ok(Outcome::Ready(_, baseline)) => {
                dir.remove_entry(EntryState::Released, &name);
                dir.note_reuse(ReuseEvent::Recycled);
                return Ok(Some(baseline));
            }
            Ok(Outcome::Unfit(present, reason)) if present == *new => {
                admin.drop_database(new, false, true).await?;
                dir.remove_entry(EntryState::Released, &name);
                dir.note_reuse(ReuseEvent::Dropped { reason });
            }
            // The keeper deals with it.
            Ok(Outcome::Unfit(..) | Outcome::Gone) => {}
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Another process has renamed the database, is renaming it, or is connected to it.
pub(super) fn is_taken(error: &PgError) -> bool {
    const CODES: [&str; 3] = [
        sqlstate::INVALID_CATALOG_NAME,
        sqlstate::OBJECT_IN_USE,
        sqlstate::INTERNAL_ERROR,
    ];
    CODES.iter().any(|code| error.is(code))
}

/// Renames a database that equaled its template when its baseline was recorded. Returns the reason if it no longer does.
///
/// # Errors
/// See [`Admin::rename_and_see`].
pub async fn rename(
    admin: &mut Admin,
    from: &DbName,
    to: &DbName,
    baseline: &Baseline,
) -> Result<Option<Reason>, PgError> {
    let row = admin.rename_and_see(from, to, None).await?;
    Ok(baseline.difference(&row.seen))
}

/// Drops the databases of a test's earlier attempts if a retry has released `name`.
async fn drop_earlier_attempts(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
) -> Result<(), PgError> {
    let entries = dir.entries();
    let claimant = entries.claimant(EntryState::Released, name);
    let Some(passed) = claimant.filter(|c| c.is_retry() && file.keep.failed) else {
        return Ok(());
    };
    for name in clone::release_earlier_attempts(entries, &passed) {
        admin.drop_database(&name, false, true).await?;
        dir.remove_entry(EntryState::Released, &name);
    }
    kept::drop_earlier_attempts(admin, entries, name, &passed).await
}
