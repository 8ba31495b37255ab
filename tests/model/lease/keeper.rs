//! The steps of the keeper; each is one statement or system call.

use super::{CLONES, Helper, Keeper, Leases, Safeguards, State};

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
        s.clones[0].exists = true;
    } else {
        s.clones[0].ready = Some(0);
    }
}

/// Treats a lease as abandoned. Only the probe of the `flock` distinguishes a dead claimant from a live one.
pub(super) fn reclaim(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    let inode = s.clones[n].leased?;
    if s.keeper != Keeper::Idle || (g.keeper_probes && s.flocked(g, n, inode)) {
        return None;
    }
    s.keeper = Keeper::Reclaiming(n, inode);
    Some(())
}

/// Makes a released clone ready again (cleaning is not modeled). Once, to bound the model.
pub(super) fn recycle(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    let inode = s.clones[n].released?;
    if s.keeper != Keeper::Idle || s.recycled || !s.clones[n].exists {
        return None;
    }
    s.recycled = true;
    let clone = &mut s.clones[n];
    clone.leases = 0;
    clone.released = None;
    clone.ready = Some(if g.same_inode { inode } else { inode + 1 });
    Some(())
}

pub(super) fn drop_released(s: &mut State, n: usize) -> Option<()> {
    s.clones[n].released?;
    if s.keeper != Keeper::Idle {
        return None;
    }
    s.drop_database(n);
    s.keeper = Keeper::Dropped(n);
    Some(())
}

pub(super) fn step(s: &mut State, g: &Safeguards) -> Option<()> {
    match s.keeper {
        Keeper::Making => {
            half_made(s, !g.create_first);
            s.keeper = Keeper::Idle;
        }
        Keeper::Reclaiming(n, _) if s.clones[n].orphan && !g.force_own => s.keeper = Keeper::Idle,
        Keeper::Reclaiming(n, _) => {
            s.drop_database(n);
            s.keeper = Keeper::Dropped(n);
        }
        Keeper::Dropped(n) => {
            s.clones[n].leased = None;
            s.clones[n].released = None;
            s.keeper = Keeper::Idle;
        }
        Keeper::Idle | Keeper::Dead => return None,
    }
    Some(())
}

pub(super) fn die(s: &mut State) -> Option<()> {
    if s.keeper == Keeper::Dead {
        return None;
    }
    s.keeper = Keeper::Dead;
    Some(())
}

/// If only the keeper is alive, runs it to its end and checks that no clone or entry is left that it cannot find or drop.
/// Orphaned backends do not end here, because they may run for hours. The run of a dead keeper is left to the sweep.
pub(super) fn can_reclaim_all(model: &Leases, s: &State) -> bool {
    if s.keeper == Keeper::Dead || s.helpers.iter().any(|h| *h != Helper::Dead) {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    while step(&mut s, g).is_some() {}
    for n in 0..CLONES {
        let _ = drop_released(&mut s, n);
        while step(&mut s, g).is_some() {}
        let _ = reclaim(&mut s, g, n);
        while step(&mut s, g).is_some() {}
    }
    s.clones.iter().all(|c| {
        let handed_out = c.leased.is_some() || c.released.is_some();
        !handed_out && c.exists == c.ready.is_some()
    })
}
