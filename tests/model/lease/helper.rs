//! The steps of a test process. Each function is one system call or statement; `None` if it is not possible now.

use super::{CLONES, Helper, Safeguards, State};

pub(super) fn open(s: &mut State, h: usize, n: usize) -> Option<()> {
    let inode = s.clones[n].ready?;
    if s.helpers[h] != Helper::Idle || s.claims_left[h] == 0 {
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
            s.clones[n].exists = true;
            lease(s, h, n, 0);
        }
        Helper::Created(n) => {
            s.clones[n].leased = Some(0);
            lease(s, h, n, 0);
        }
        Helper::Releasing(..) => s.helpers[h] = Helper::Idle,
        Helper::Idle | Helper::Leased(..) | Helper::Dead => return None,
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
    let clone = &mut s.clones[n];
    match clone.ready {
        Some(inode) => {
            clone.leased = Some(inode);
            if g.claim_renames {
                clone.ready = None;
            }
            won
        }
        None if g.rename_decides => Helper::Idle,
        None => won,
    }
}

fn lease(s: &mut State, h: usize, n: usize, i: u8) {
    s.claims_left[h] -= 1;
    s.leased_nothing |= !s.clones[n].exists && !s.live_dropped;
    s.clones[n].leases += 1;
    s.helpers[h] = Helper::Leased(n, i);
}

/// If nothing is ready, the helper creates a clone itself (one per helper, to bound the model).
pub(super) fn fallback(s: &mut State, g: &Safeguards, h: usize) -> Option<()> {
    let n = 1 + h;
    let nothing_ready = (0..CLONES).all(|m| s.clones[m].ready.is_none());
    if s.helpers[h] != Helper::Idle || s.claims_left[h] == 0 || !nothing_ready || s.fell_back[h] {
        return None;
    }
    s.fell_back[h] = true;
    if !g.entry_first {
        s.clones[n].exists = true;
        s.helpers[h] = Helper::Created(n);
        return Some(());
    }
    s.clones[n].leased = Some(0);
    s.helpers[h] = if g.born_locked {
        Helper::Announced(n)
    } else {
        Helper::Written(n)
    };
    Some(())
}

pub(super) fn release(s: &mut State, h: usize) -> Option<()> {
    let Helper::Leased(n, i) = s.helpers[h] else {
        return None;
    };
    let clone = &mut s.clones[n];
    if let Some(inode) = clone.leased.take() {
        clone.released = Some(inode);
    }
    s.helpers[h] = Helper::Releasing(n, i);
    Some(())
}

/// SIGKILL closes the descriptors and frees the `flock`s. The backend may not have noticed.
pub(super) fn die(s: &mut State, h: usize) -> Option<()> {
    match s.helpers[h] {
        Helper::Dead => return None,
        Helper::Leased(n, _) if s.clones[n].exists => s.clones[n].orphan = true,
        _ => {}
    }
    s.helpers[h] = Helper::Dead;
    s.claims_left[h] = 0;
    Some(())
}
