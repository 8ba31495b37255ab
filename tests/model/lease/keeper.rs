//! The steps of the keeper; each is one statement or system call. After its death, another process may take the same steps.

use super::{Database, Helper, Keeper, Leases, NAMES, Name, Safeguards, State, recycle};

/// Creates clone 0: database and entry, in two steps. Names are never reused, so this happens once.
pub(super) fn make(s: &mut State, g: &Safeguards) -> Option<()> {
    if s.keeper != Keeper::Idle || s.made {
        return None;
    }
    s.made = true;
    s.keeper = Keeper::Making;
    half_made(s, g.create_first);
    Some(())
}

fn half_made(s: &mut State, database: bool) {
    if database {
        s.names[0].database = Some(Database::default());
    } else {
        s.names[0].ready = Some(0);
    }
}

/// Treats a lease as abandoned. Only the probe of the `flock` distinguishes a dead claimant from a live one.
pub(super) fn reclaim(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    let inode = s.names[n].leased?;
    if s.keeper != Keeper::Idle || (g.keeper_probes && s.flocked(g, n, inode)) {
        return None;
    }
    s.keeper = Keeper::Reclaiming(n, inode);
    Some(())
}

/// Drops a released database, if there is one of that name.
pub(super) fn drop_released(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    s.names[n].released?;
    if s.keeper != Keeper::Idle || (s.connected(n, None) && !g.force_own) {
        return None;
    }
    s.drop_database(n);
    s.keeper = Keeper::Dropped(n);
    Some(())
}

/// Gives a failed test's database its kept name, which this model does not follow.
pub(super) fn preserve(s: &mut State, n: usize) -> Option<()> {
    s.names[n].failed?;
    if s.keeper != Keeper::Idle {
        return None;
    }
    s.names[n].failed = None;
    s.names[n].database = None;
    Some(())
}

pub(super) fn step(s: &mut State, g: &Safeguards) -> Option<()> {
    let next = match s.keeper {
        Keeper::Making => {
            half_made(s, !g.create_first);
            Keeper::Idle
        }
        Keeper::Reclaiming(n, _) => {
            let name = &mut s.names[n];
            if let Some(inode) = name.leased.take() {
                name.released = Some(inode);
            }
            Keeper::Idle
        }
        Keeper::Cleaning(n, cleaning) => match recycle::clean(s, g, n, cleaning, None)? {
            Some(next) => Keeper::Cleaning(n, next),
            None => Keeper::Idle,
        },
        Keeper::Compared(n, equal) => return recycle::rename(s, g, n, Some(equal)),
        Keeper::Renamed { old, new, equal } if equal => return recycle::offer(s, g, old, new),
        Keeper::Renamed { old, new, .. } => {
            s.drop_database(new);
            Keeper::Dropped(old)
        }
        Keeper::Dropped(old) | Keeper::Offered(old) => {
            recycle::forget(s, g, old);
            s.names[old].cleaned = None;
            Keeper::Idle
        }
        Keeper::Forgotten(new, inode) => {
            recycle::put(s, new, inode)?;
            Keeper::Idle
        }
        Keeper::Idle | Keeper::Dead => return None,
    };
    s.keeper = next;
    Some(())
}

pub(super) fn die(s: &mut State) -> Option<()> {
    if s.keeper == Keeper::Dead {
        return None;
    }
    s.keeper = Keeper::Dead;
    Some(())
}

/// A process without a keeper does the keeper's work.
pub(super) fn succeed(s: &mut State) -> Option<()> {
    if s.keeper != Keeper::Dead {
        return None;
    }
    s.left.successors = s.left.successors.checked_sub(1)?;
    s.keeper = Keeper::Idle;
    Some(())
}

/// If only the keeper is alive, runs it to its end and checks that no clone or entry is left that it cannot find or drop.
/// Orphaned backends do not end here, because they may run for hours. The run of a dead keeper is left to the sweep.
pub(super) fn can_reclaim_all(model: &Leases, s: &State) -> bool {
    let over = s.keeper == Keeper::Dead || s.left.successors < model.budget.successors;
    if over || s.helpers.iter().any(|h| *h != Helper::Dead) {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    let _ = recycle::keeper_gives_up(&mut s);
    while step(&mut s, g).is_some() {}
    for n in 0..NAMES {
        let _ = reclaim(&mut s, g, n);
        while step(&mut s, g).is_some() {}
        let _ = drop_released(&mut s, g, n);
        while step(&mut s, g).is_some() {}
        let _ = preserve(&mut s, n);
    }
    s.names.iter().all(|n| {
        let handed_out = n.leased.or(n.released).or(n.failed).is_some();
        !handed_out && n.database.is_some() == n.ready.is_some()
    })
}

/// When all processes are dead, the sweep removes the run's databases and then the directory.
pub(super) fn end_removes_all(model: &Leases, s: &State) -> bool {
    if s.keeper != Keeper::Dead || s.helpers.iter().any(|h| *h != Helper::Dead) {
        return true;
    }
    let has_entry = |n: &Name| n.ready.or(n.leased).or(n.released).or(n.failed).is_some();
    let is_found = |n: &Name| model.guards.end_by_name || has_entry(n);
    s.names.iter().all(|n| n.database.is_none() || is_found(n))
}
