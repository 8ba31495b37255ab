//! The run's own processes: the keeper and one test process.

use super::{CLONES, Keeper, Safeguards, State, Sweeper, Test};

pub(super) fn cut_keeper(s: &mut State) -> bool {
    let after = match s.keeper {
        Keeper::Holding => Keeper::Cut,
        Keeper::Suspended { holding: true } => Keeper::Suspended { holding: false },
        _ => return false,
    };
    s.keeper = after;
    true
}

pub(super) fn cut_test(s: &mut State) -> bool {
    let after = match s.test {
        Test::Leased(d) => Test::Cut(d),
        Test::Making => Test::Idle,
        _ => return false,
    };
    s.test = after;
    true
}

pub(super) fn suspend(s: &mut State) -> Option<()> {
    s.left.suspensions = s.left.suspensions.checked_sub(1)?;
    let holding = match s.keeper {
        Keeper::Holding => true,
        Keeper::Cut => false,
        _ => return None,
    };
    s.keeper = Keeper::Suspended { holding };
    if let Sweeper::Seen(seen) | Sweeper::Waited(seen) | Sweeper::Dropping { seen, .. } =
        &mut s.sweeper
    {
        seen.slept = true;
    }
    Some(())
}

pub(super) fn wake(s: &mut State) -> Option<()> {
    let Keeper::Suspended { holding } = s.keeper else {
        return None;
    };
    s.keeper = if holding {
        Keeper::Holding
    } else {
        Keeper::Cut
    };
    Some(())
}

pub(super) fn reverify(s: &mut State, g: &Safeguards) -> Option<()> {
    if s.keeper != Keeper::Cut || !g.reverify {
        return None;
    }
    if s.fence_held() {
        s.keeper = Keeper::FencedOff;
        return Some(());
    }
    s.keeper = Keeper::Holding;
    if g.relist {
        s.clones.iter_mut().for_each(|c| c.ready &= c.exists);
    }
    Some(())
}

/// CREATE DATABASE runs on the session that holds the run lock. If the session is lost, the statement is too.
pub(super) fn keeper_makes(s: &mut State, g: &Safeguards) -> Option<()> {
    let acts = s.keeper == Keeper::Holding || (s.keeper == Keeper::Cut && !g.reverify);
    if !acts || s.made {
        return None;
    }
    make(s);
    s.clones[1].ready = true;
    Some(())
}

fn make(s: &mut State) {
    s.made = true;
    s.clones[1].exists = true;
}

pub(super) fn keeper_dies(s: &mut State) -> Option<()> {
    if matches!(s.keeper, Keeper::Dead | Keeper::FencedOff) {
        return None;
    }
    s.keeper = Keeper::Dead;
    Some(())
}

/// Claiming an entry needs neither the keeper nor the server.
pub(super) fn claim(s: &mut State, d: usize) -> Option<()> {
    if s.test != Test::Idle || s.leases_left == 0 || !s.clones[d].ready {
        return None;
    }
    s.clones[d].ready = false;
    s.test = Test::Claimed(d);
    Some(())
}

pub(super) fn test_steps(s: &mut State) -> Option<()> {
    match s.test {
        Test::Claimed(d) if s.clones[d].exists => {
            s.leases_left -= 1;
            connect(s, d);
        }
        Test::Claimed(d) | Test::Cut(d) => connect(s, d),
        Test::Making => {
            make(s);
            s.test = Test::Claimed(1);
        }
        Test::Idle | Test::Leased(_) | Test::Dead => return None,
    }
    Some(())
}

/// After 3D000 on the first connection, the helper claims or clones again.
fn connect(s: &mut State, d: usize) {
    s.test = if s.clones[d].exists {
        s.clones[d].sessions += 1;
        Test::Leased(d)
    } else {
        Test::Idle
    };
}

/// Waits while the fence is held; then creates the clone on the session that holds the run lock.
pub(super) fn fall_back(s: &mut State) -> Option<()> {
    let nothing_ready = (0..CLONES).all(|d| !s.clones[d].ready);
    let may = s.test == Test::Idle && s.leases_left > 0 && nothing_ready && !s.made;
    if !may || s.fence_held() {
        return None;
    }
    s.test = Test::Making;
    Some(())
}

pub(super) fn release(s: &mut State) -> Option<()> {
    let Test::Leased(_) = s.test else {
        return None;
    };
    s.test = Test::Idle;
    Some(())
}

pub(super) fn test_dies(s: &mut State) -> Option<()> {
    match s.test {
        Test::Dead => return None,
        Test::Leased(d) => s.clones[d].orphan = true,
        _ => {}
    }
    s.test = Test::Dead;
    Some(())
}
