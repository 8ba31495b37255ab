//! The sweep from another host. Its own death needs no step: it only stops, and its locks go (`end`).

use super::{Afar, CLONES, Keeper, Restart, Safeguards, Sighting, State, Sweeper, Test};

pub(super) fn look(s: &mut State, g: &Safeguards) -> Option<()> {
    if s.sweeper != Sweeper::Idle || !looks_dead(s, g) {
        return None;
    }
    let seen = Sighting {
        start: s.start,
        session: s.session,
        counts: counts(s),
        slept: matches!(s.keeper, Keeper::Suspended { .. }),
    };
    s.sweeper = if g.two_sightings {
        Sweeper::Seen(seen)
    } else {
        dropping(s, g, seen)
    };
    Some(())
}

fn looks_dead(s: &State, g: &Safeguards) -> bool {
    let used = g.looks_for_sessions && (0..CLONES).any(|d| s.session_on(d));
    !used && !s.run_lock_held()
}

fn counts(s: &State) -> [u8; CLONES] {
    [s.clones[0].sessions, s.clones[1].sessions]
}

/// Under the fence from here on: what exists now is the list.
fn dropping(s: &State, g: &Safeguards, seen: Sighting) -> Sweeper {
    Sweeper::Dropping {
        seen,
        list: [s.clones[0].exists, s.clones[1].exists],
        next: None,
        fence: g.fence,
    }
}

/// 30 s: nobody who is awake is without a session for that long.
pub(super) fn wait(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Seen(seen) = s.sweeper else {
        return None;
    };
    let keeper_late = s.keeper == Keeper::Cut && g.reverify;
    let test_late = matches!(s.test, Test::Cut(_)) && g.lease_watched;
    if keeper_late || test_late {
        return None;
    }
    s.sweeper = if looks_dead(s, g) || !g.keeps_looking {
        Sweeper::Waited(seen)
    } else {
        Sweeper::Idle
    };
    Some(())
}

pub(super) fn look_again(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Waited(seen) = s.sweeper else {
        return None;
    };
    let one_server = match g.restart {
        Restart::Unchecked => true,
        Restart::StartTime => seen.start == s.start,
        Restart::SameSession => seen.session == s.session,
    };
    let still = !g.session_counts || seen.counts == counts(s);
    s.sweeper = if looks_dead(s, g) && one_server && still {
        dropping(s, g, seen)
    } else {
        Sweeper::Idle
    };
    Some(())
}

pub(super) fn last_look(s: &mut State, g: &Safeguards, d: usize) -> Option<()> {
    let sessions = s.clones[d].sessions;
    let Sweeper::Dropping {
        seen, list, next, ..
    } = &mut s.sweeper
    else {
        return None;
    };
    if next.is_some() || !std::mem::take(&mut list[d]) {
        return None;
    }
    if !g.session_counts || seen.counts[d] == sessions {
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

/// Done, or dead: either way the fence is free.
pub(super) fn end(s: &mut State) -> Option<()> {
    if s.sweeper == Sweeper::Idle {
        return None;
    }
    s.sweeper = Sweeper::Idle;
    Some(())
}

/// The fence is gone with its session. Where drops run elsewhere, they go on.
pub(super) fn interrupted(s: &mut State, g: &Safeguards) {
    if let Sweeper::Dropping { fence, .. } = &mut s.sweeper {
        *fence = false;
        if g.fence && g.drop_inside_fence {
            s.sweeper = Sweeper::Idle;
        }
    }
}

/// Lets one undisturbed sweep run to its end once nobody is left and the last backend has gone.
pub(super) fn removes_all(model: &Afar, s: &State) -> bool {
    if s.keeper != Keeper::Dead || s.test != Test::Dead {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    s.clones.iter_mut().for_each(|c| c.orphan = false);
    s.sweeper = Sweeper::Idle;
    let _ = look(&mut s, g);
    let _ = wait(&mut s, g);
    let _ = look_again(&mut s, g);
    for d in 0..CLONES {
        let _ = last_look(&mut s, g, d);
        let _ = drop_next(&mut s, g);
    }
    s.clones.iter().all(|c| !c.exists)
}
