//! The steps of a test process. Each function is one system call or statement; `None` if it is not possible now.

use super::recycle::{self, Cleaning};
use super::{Database, Helper, NAMES, Safeguards, State};

pub(super) fn open(s: &mut State, h: usize, n: usize) -> Option<()> {
    let inode = s.names[n].ready?;
    if s.helpers[h] != Helper::Idle || s.left.claims[h] == 0 {
        return None;
    }
    s.helpers[h] = Helper::Opened(n, inode);
    Some(())
}

pub(super) fn step(s: &mut State, g: &Safeguards, h: usize) -> Option<()> {
    match s.helpers[h] {
        Helper::Opened(n, i) if g.flock_first => try_flock(s, g, h, n, i),
        Helper::Opened(n, i) => s.helpers[h] = after_rename(s, g, n, Helper::Renamed(n, i)),
        Helper::Renamed(n, i) => lease(s, h, n, i),
        Helper::Locked(n, i) => match after_rename(s, g, n, Helper::Leased(n, i)) {
            Helper::Leased(n, i) => lease(s, h, n, i),
            lost => s.helpers[h] = lost,
        },
        // A blocking flock waits while the keeper probes, then gets the inode, linked or not.
        Helper::Written(n) if s.flocked(g, n, 0) => return None,
        Helper::Written(n) => s.helpers[h] = Helper::Announced(n),
        Helper::Announced(n) => {
            s.names[n].database = Some(Database::default());
            lease(s, h, n, 0);
        }
        Helper::TookOver { old, new, equal } => {
            s.names[old].released = None;
            s.names[old].cleaned = None;
            if equal {
                lease(s, h, new, 0);
            } else {
                s.names[new].database = None;
                s.helpers[h] = Helper::Announced(new);
            }
        }
        Helper::Created(n) => {
            s.names[n].leased = Some(0);
            lease(s, h, n, 0);
        }
        Helper::Cleaning(n, i, cleaning) => {
            s.helpers[h] = match recycle::clean(s, g, n, cleaning, Some(h))? {
                Some(next) => Helper::Cleaning(n, i, next),
                None => Helper::Cleaned(n, i),
            };
        }
        Helper::Releasing(..) => s.helpers[h] = Helper::Idle,
        Helper::Idle | Helper::Leased(..) | Helper::Cleaned(..) | Helper::Dead => return None,
    }
    Some(())
}

fn try_flock(s: &mut State, g: &Safeguards, h: usize, n: usize, i: u8) {
    s.helpers[h] = if g.flock && s.flocked(g, n, i) {
        Helper::Idle
    } else {
        Helper::Locked(n, i)
    };
}

/// Renames the entry, whichever inode has its name now. Returns `won` unless the entry is gone.
fn after_rename(s: &mut State, g: &Safeguards, n: usize, won: Helper) -> Helper {
    let name = &mut s.names[n];
    match name.ready {
        Some(inode) => {
            name.leased = Some(inode);
            if g.claim_renames {
                name.ready = None;
            }
            won
        }
        None if g.rename_decides => Helper::Idle,
        None => won,
    }
}

/// The test connects and writes.
fn lease(s: &mut State, h: usize, n: usize, i: u8) {
    s.left.claims[h] -= 1;
    s.leased_nothing |= s.names[n].database.is_none() && !s.live_dropped;
    s.names[n].known = true;
    if let Some(database) = &mut s.names[n].database {
        database.leases += 1;
        s.leased_written |= database.written;
        database.written = true;
    }
    s.helpers[h] = Helper::Leased(n, i);
}

/// If nothing is ready, the helper creates a clone itself (one per helper, to bound the model).
pub(super) fn fallback(s: &mut State, g: &Safeguards, h: usize) -> Option<()> {
    let n = 1 + h;
    let nothing_ready = (0..NAMES).all(|m| s.names[m].ready.is_none());
    if s.helpers[h] != Helper::Idle || s.left.claims[h] == 0 || !nothing_ready {
        return None;
    }
    s.left.fallbacks[h] = s.left.fallbacks[h].checked_sub(1)?;
    if !g.entry_first {
        s.names[n].database = Some(Database::default());
        s.helpers[h] = Helper::Created(n);
        return Some(());
    }
    s.names[n].leased = Some(0);
    s.helpers[h] = if g.born_locked {
        Helper::Announced(n)
    } else {
        Helper::Written(n)
    };
    Some(())
}

/// Instead of creating a clone: renames one that was released and cleaned, and compares it, in one transaction.
pub(super) fn take_over(s: &mut State, g: &Safeguards, h: usize, old: usize) -> Option<()> {
    let Helper::Announced(new) = s.helpers[h] else {
        return None;
    };
    s.names[old].released?;
    if g.needs_line && s.names[old].cleaned.is_none() {
        return None;
    }
    s.left.renewals = s.left.renewals.checked_sub(1)?;
    let equal = recycle::move_database(s, g, old, new, None)?;
    s.names[new].database.as_mut()?.leases = 0;
    s.helpers[h] = Helper::TookOver { old, new, equal };
    Some(())
}

/// The test has passed. Its process counts the sessions, and cleans the clone on the session that it has.
pub(super) fn clean(s: &mut State, h: usize) -> Option<()> {
    let Helper::Leased(n, i) = s.helpers[h] else {
        return None;
    };
    if s.left.renewals == 0 {
        return None;
    }
    let cleaning = Cleaning::begin(s, n)?;
    s.helpers[h] = Helper::Cleaning(n, i, cleaning);
    Some(())
}

/// Closes the session and moves the entry; without a `cleaned` line if the client cannot clean, or gives up.
pub(super) fn release(s: &mut State, h: usize) -> Option<()> {
    let (n, i) = match s.helpers[h] {
        Helper::Leased(n, i) | Helper::Cleaning(n, i, _) | Helper::Cleaned(n, i) => (n, i),
        _ => return None,
    };
    let name = &mut s.names[n];
    if let Some(inode) = name.leased.take() {
        name.released = Some(inode);
    }
    s.helpers[h] = Helper::Releasing(n, i);
    Some(())
}

/// The test has failed: its database is evidence.
pub(super) fn fail(s: &mut State, h: usize) -> Option<()> {
    let Helper::Leased(n, i) = s.helpers[h] else {
        return None;
    };
    let name = &mut s.names[n];
    if let Some(inode) = name.leased.take() {
        name.failed = Some(inode);
    }
    if let Some(database) = &mut name.database {
        database.failed = database.written;
    }
    s.helpers[h] = Helper::Releasing(n, i);
    Some(())
}

/// SIGKILL closes the descriptors and frees the `flock`s. A backend that is at work may not have noticed; an idle one ends at once.
pub(super) fn die(s: &mut State, h: usize) -> Option<()> {
    let orphaned = match s.helpers[h] {
        Helper::Dead => return None,
        Helper::Leased(n, _) | Helper::Cleaning(n, ..) => s.names[n].database.as_mut(),
        _ => None,
    };
    if let Some(database) = orphaned {
        database.orphan = true;
    }
    s.helpers[h] = Helper::Dead;
    s.left.claims[h] = 0;
    s.left.fallbacks[h] = 0;
    Some(())
}
