//! The sweep of another host. Its death needs no step of its own: the sweep stops, and its locks are freed (`end`).

use super::{Afar, CLONES, Keeper, Restart, Safeguards, Sighting, State, Sweeper, Test, Watch};

pub(super) fn look(s: &mut State, g: &Safeguards) -> Option<()> {
    if s.sweeper != Sweeper::Idle || s.run_lock_held() || in_use(s, g) {
        return None;
    }
    let seen = Sighting {
        start: s.start,
        counts: counts(s),
        slept: matches!(s.keeper, Keeper::Suspended { .. }),
    };
    s.sweeper = if g.waits {
        Sweeper::Seen(seen)
    } else {
        Sweeper::Waited(seen)
    };
    Some(())
}

fn in_use(s: &State, g: &Safeguards) -> bool {
    g.looks_for_sessions && (0..CLONES).any(|d| s.session_on(d))
}

fn counts(s: &State) -> [Option<u8>; CLONES] {
    let count = |d: usize| s.clones[d].exists.then_some(s.clones[d].sessions);
    [count(0), count(1)]
}

/// No session, no counter that moved, no new database. A database that is gone is no sign of life.
fn still_quiet(s: &State, g: &Safeguards, seen: &Sighting) -> bool {
    let mut pairs = counts(s).into_iter().zip(seen.counts);
    !in_use(s, g) && (!g.session_counts || pairs.all(|(now, then)| now.is_none() || now == then))
}

/// The 30 s of checks: no process that is not suspended is without a session for that long.
pub(super) fn wait(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Seen(seen) = s.sweeper else {
        return None;
    };
    let keeper_late = s.keeper == Keeper::Cut && g.reverify;
    let watched = match g.lease_watched {
        Watch::Nobody => false,
        Watch::WithoutKeeper => matches!(s.keeper, Keeper::Dead | Keeper::FencedOff),
        Watch::Always => true,
    };
    let test_late = matches!(s.test, Test::Cut(_)) && watched;
    if keeper_late || test_late {
        return None;
    }
    let quiet = still_quiet(s, g, &seen) && !s.run_lock_held();
    s.sweeper = if quiet || !g.keeps_looking {
        Sweeper::Waited(seen)
    } else {
        Sweeper::Idle
    };
    Some(())
}

/// Takes the run lock exclusive, or gives up the sweep of the run.
pub(super) fn fence(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Waited(seen) = s.sweeper else {
        return None;
    };
    let one_server = g.restart != Restart::StartTime || seen.start == s.start;
    s.sweeper = if one_server && !s.run_lock_held() {
        Sweeper::Dropping {
            seen,
            list: seen.counts.map(|count| count.is_some()),
            next: None,
            fence: g.fence,
        }
    } else {
        Sweeper::Idle
    };
    Some(())
}

/// Checks all databases of the run once more, right before each drop.
pub(super) fn last_look(s: &mut State, g: &Safeguards, d: usize) -> Option<()> {
    let Sweeper::Dropping {
        seen, list, next, ..
    } = s.sweeper
    else {
        return None;
    };
    if next.is_some() || !list[d] {
        return None;
    }
    if !still_quiet(s, g, &seen) {
        s.sweeper = Sweeper::Idle;
        return Some(());
    }
    if let Sweeper::Dropping { list, next, .. } = &mut s.sweeper {
        list[d] = false;
        *next = Some(d);
    }
    Some(())
}

pub(super) fn drop_next(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Dropping { next, seen, .. } = &mut s.sweeper else {
        return None;
    };
    let (d, slept) = (next.take()?, seen.slept);
    if g.plain_drop && s.session_on(d) {
        return Some(());
    }
    s.clones[d].exists = false;
    s.clones[d].orphan = false;
    s.live_dropped |= s.test == Test::Leased(d) || s.test == Test::Cut(d);
    s.awake_lost |= s.keeper == Keeper::Holding || (s.keeper == Keeper::Cut && !slept);
    Some(())
}

/// The sweep has finished or died; both free the fence.
pub(super) fn end(s: &mut State) -> Option<()> {
    if s.sweeper == Sweeper::Idle {
        return None;
    }
    s.sweeper = Sweeper::Idle;
    Some(())
}

/// The sweep ends with its session. Checks or drops on other sessions continue.
pub(super) fn interrupted(s: &mut State, g: &Safeguards) {
    let one_session = g.restart == Restart::SameSession;
    match &mut s.sweeper {
        Sweeper::Dropping { fence, .. } => {
            *fence = false;
            if g.fence && g.drop_inside_fence {
                s.sweeper = Sweeper::Idle;
            }
        }
        _ if one_session => s.sweeper = Sweeper::Idle,
        _ => {}
    }
}

/// If all processes of the run are dead and the last backend has ended, runs one undisturbed sweep to its end.
pub(super) fn removes_all(model: &Afar, s: &State) -> bool {
    if s.keeper != Keeper::Dead || s.test != Test::Dead {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    s.clones.iter_mut().for_each(|c| c.orphan = false);
    s.sweeper = Sweeper::Idle;
    let _ = look(&mut s, g);
    let _ = wait(&mut s, g);
    let _ = fence(&mut s, g);
    for d in 0..CLONES {
        let _ = last_look(&mut s, g, d);
        let _ = drop_next(&mut s, g);
    }
    s.clones.iter().all(|c| !c.exists)
}
