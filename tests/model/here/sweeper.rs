//! The sweep of another process on the same host. Its death needs no step of its own: the sweep stops, and its locks are freed (`back_out`).

use super::{DATABASES, Here, Safeguards, Stage, State, Sweeper};

pub(super) fn step(s: &mut State, g: &Safeguards) -> Option<()> {
    s.sweeper = match s.sweeper {
        Sweeper::Idle => {
            let inode = s.directory?;
            s.list = s.databases;
            Sweeper::Opened(inode)
        }
        Sweeper::Opened(i) if g.sweep_flocks && flocked(s, g, i) => Sweeper::Idle,
        Sweeper::Opened(i) => Sweeper::Flocked(i),
        Sweeper::Flocked(_) if g.sweep_fences && s.members.iter().any(|m| m.lock) => Sweeper::Idle,
        // No process of the run is alive on this host, so a session that holds the lock is a leftover and is ended.
        Sweeper::Flocked(i) if g.sweep_fences && s.orphan && g.creators_hold_lock => {
            s.orphan = false;
            Sweeper::Flocked(i)
        }
        Sweeper::Flocked(i) => Sweeper::Fenced(i),
        Sweeper::Fenced(i) => {
            if g.lists_under_fence {
                s.list = s.databases;
            }
            if !g.directory_last {
                remove_directory(s, i);
            }
            Sweeper::Dropping(i)
        }
        Sweeper::Dropping(i) => drop_next(s, i),
    };
    Some(())
}

fn flocked(s: &State, g: &Safeguards, i: u8) -> bool {
    s.flocked_shared(None, i) || s.flocked_exclusive(g, i)
}

fn drop_next(s: &mut State, i: u8) -> Sweeper {
    match s.list.iter().position(|&listed| listed) {
        Some(d) => {
            s.list[d] = false;
            s.drop_database(d);
            Sweeper::Dropping(i)
        }
        None => {
            remove_directory(s, i);
            Sweeper::Idle
        }
    }
}

/// Removes only the directory that was opened. Another one at its path belongs to another process.
fn remove_directory(s: &mut State, i: u8) {
    if s.directory == Some(i) {
        s.directory = None;
    }
}

pub(super) fn back_out(s: &mut State) -> Option<()> {
    if s.sweeper == Sweeper::Idle {
        return None;
    }
    s.sweeper = Sweeper::Idle;
    Some(())
}

/// If all processes of the run are dead and no sweep is at work, runs a sweep to its end.
pub(super) fn removes_all(model: &Here, s: &State) -> bool {
    let over = |stage| matches!(stage, Stage::Dead | Stage::Gone);
    if s.orphan || s.sweeper != Sweeper::Idle || !s.members.iter().all(|m| over(m.stage)) {
        return true;
    }
    let mut s = s.clone();
    s.members.iter_mut().for_each(|m| m.lock = false);
    for _ in 0..5 + DATABASES {
        let _ = step(&mut s, &model.guards);
    }
    s.directory.is_none() && s.databases.iter().all(|d| !d)
}
