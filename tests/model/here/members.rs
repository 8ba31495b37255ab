//! The run's own processes: `prepare`, the keeper, a test process.

use super::{DATABASES, KEEPER, Member, PREPARE, Safeguards, Stage, State, TEST};

/// The next system call of joining the run, or of the keeper's end.
pub(super) fn step(s: &mut State, g: &Safeguards, m: usize) -> Option<()> {
    let stage = s.members[m].stage;
    s.members[m].stage = match stage {
        Stage::Idle if m == PREPARE => make_directory(s)?,
        Stage::Idle if !s.spawned => return None,
        Stage::Idle => s.directory.map_or(Stage::Gone, Stage::Opened),
        Stage::Opened(i) | Stage::Unlocked(i) if s.flocked_exclusive(g, i) => return None,
        Stage::Opened(i) | Stage::Unlocked(i) => Stage::Flocked(i),
        Stage::Flocked(i) if s.directory == Some(i) || !g.join_checks_directory => Stage::Joined(i),
        Stage::Flocked(_) if m == PREPARE => make_directory(s)?,
        Stage::Flocked(_) => Stage::Gone,
        Stage::Ending(i) => end_run(s, i),
        Stage::Joined(_) | Stage::Gone | Stage::Dead => return None,
    };
    Some(())
}

/// At most twice: the sweep may have removed the first directory, taking it for one of a dead run.
fn make_directory(s: &mut State) -> Option<Stage> {
    if s.directory.is_some() || s.inodes == 2 {
        return None;
    }
    s.inodes += 1;
    s.directory = Some(s.inodes);
    Some(Stage::Opened(s.inodes))
}

fn end_run(s: &mut State, i: u8) -> Stage {
    if let Some(d) = (0..DATABASES).find(|&d| s.databases[d]) {
        s.drop_database(d);
        return Stage::Ending(i);
    }
    if s.directory.take().is_some() {
        return Stage::Ending(i);
    }
    s.members[KEEPER].lock = false;
    Stage::Dead
}

/// A test process with a clone from `ready/` holds only the `flock`.
pub(super) fn take_run_lock(s: &mut State, g: &Safeguards, m: usize) -> Option<()> {
    let joined = matches!(s.members[m].stage, Stage::Joined(_));
    if m == TEST || !joined || s.members[m].lock {
        return None;
    }
    if s.fence_held(g) {
        s.members[m].stage = Stage::Gone;
        return Some(());
    }
    s.members[m].lock = true;
    Some(())
}

pub(super) fn make(s: &mut State, d: usize) -> Option<()> {
    let maker = [PREPARE, KEEPER][d];
    let joined = matches!(s.members[maker].stage, Stage::Joined(_));
    if s.made[d] || !joined || !s.members[maker].lock {
        return None;
    }
    s.made[d] = true;
    s.databases[d] = true;
    Some(())
}

pub(super) fn spawn(s: &mut State, g: &Safeguards) -> Option<()> {
    let prepare = s.members[PREPARE];
    if s.spawned || !prepare.lock || !s.made[0] || !matches!(prepare.stage, Stage::Joined(_)) {
        return None;
    }
    s.spawned = true;
    if g.handover_overlaps {
        s.members[KEEPER].stage = prepare.stage;
    }
    Some(())
}

/// `prepare` does not wait until the keeper has a session. Until then, only the inherited `flock` shows that the run is alive.
pub(super) fn exit(s: &mut State) -> Option<()> {
    if !s.spawned || !matches!(s.members[PREPARE].stage, Stage::Joined(_)) {
        return None;
    }
    s.members[PREPARE] = DEAD;
    Some(())
}

const DEAD: Member = Member {
    stage: Stage::Dead,
    lock: false,
};

pub(super) fn die(s: &mut State, m: usize) -> Option<()> {
    let unborn = m != PREPARE && !s.spawned;
    if unborn || s.members[m].stage == Stage::Dead {
        return None;
    }
    s.members[m] = DEAD;
    Some(())
}

/// The server notices the death of a client only after the statement.
pub(super) fn die_creating(s: &mut State) -> Option<()> {
    let keeper = s.members[KEEPER];
    if s.made[1] || !keeper.lock || !matches!(keeper.stage, Stage::Joined(_)) {
        return None;
    }
    s.made[1] = true;
    s.orphan = true;
    die(s, KEEPER)
}

pub(super) fn orphan_finishes(s: &mut State) -> Option<()> {
    if !s.orphan {
        return None;
    }
    s.orphan = false;
    s.databases[1] = true;
    Some(())
}

/// nextest has ended: the keeper tries to upgrade its `flock`. If another process holds it shared, the keeper loses its own.
pub(super) fn end(s: &mut State, g: &Safeguards) -> Option<()> {
    let (Stage::Joined(i), true) = (s.members[KEEPER].stage, s.members[KEEPER].lock) else {
        return None;
    };
    let alone = !s.flocked_shared(Some(KEEPER), i);
    s.members[KEEPER].stage = if alone || !g.keeper_waits {
        Stage::Ending(i)
    } else {
        Stage::Unlocked(i)
    };
    Some(())
}
