//! The steps of builders, collector and sweep; one statement each.

use super::{BUILDERS, Builder, Collector, Database, Safeguards, State, Templates};

pub(super) fn build(s: &mut State, g: &Safeguards, b: usize) -> Option<()> {
    s.builders[b] = match s.builders[b] {
        Builder::Start if g.lock_before_lookup && s.template_locked_exclusive(g) => return None,
        Builder::Start => Builder::Looking,
        Builder::Looking if sees_template(s, g) => Builder::Found,
        Builder::Looking => Builder::Missing,
        Builder::Missing => take_build_lock(s, g, b)?,
        Builder::Building => create(s, g, b),
        Builder::Created => with_database(s, g, b, |d| d.migrated = true, Builder::Migrated),
        Builder::Migrated if g.seal_before_rename => {
            with_database(s, g, b, |d| d.sealed = true, Builder::Nearly)
        }
        Builder::Migrated => rename(s, g, b, Builder::Nearly),
        Builder::Nearly if g.seal_before_rename => {
            let published = rename(s, g, b, Builder::Found);
            free_build_lock(s, b);
            published
        }
        Builder::Nearly => {
            s.template = s.template.map(|t| Database { sealed: true, ..t });
            free_build_lock(s, b);
            Builder::Found
        }
        Builder::Found if s.template_locked_exclusive(g) => return None,
        Builder::Found => Builder::Using,
        Builder::Using => Builder::Done,
        Builder::Done | Builder::Dead => return None,
    };
    Some(())
}

fn sees_template(s: &State, g: &Safeguards) -> bool {
    s.template
        .is_some_and(|t| t.sealed || !g.lookup_wants_sealed)
}

fn take_build_lock(s: &mut State, g: &Safeguards, b: usize) -> Option<Builder> {
    if g.build_lock {
        if s.build_lock.is_some() {
            return None;
        }
        s.build_lock = Some(b);
    }
    Some(Builder::Building)
}

fn free_build_lock(s: &mut State, b: usize) {
    if s.build_lock == Some(b) {
        s.build_lock = None;
    }
}

fn create(s: &mut State, g: &Safeguards, b: usize) -> Builder {
    if g.second_look && sees_template(s, g) {
        free_build_lock(s, b);
        return Builder::Found;
    }
    s.rebuilt |= s.template.is_some();
    if g.private_name {
        s.private[b] = Some(Database::default());
    } else if s.template.is_none() {
        s.template = Some(Database::default());
    }
    Builder::Created
}

fn with_database(
    s: &mut State,
    g: &Safeguards,
    b: usize,
    change: impl FnOnce(&mut Database),
    then: Builder,
) -> Builder {
    let database = if g.private_name {
        &mut s.private[b]
    } else {
        &mut s.template
    };
    database
        .as_mut()
        .map(change)
        .map_or(Builder::Dead, |()| then)
}

/// A rename to a name that exists fails: who came second uses what is there and drops its own.
fn rename(s: &mut State, g: &Safeguards, b: usize, then: Builder) -> Builder {
    if !g.private_name {
        return then;
    }
    match (s.private[b].take(), s.template) {
        (None, _) => Builder::Dead,
        (Some(_), Some(_)) => Builder::Found,
        (built, None) => {
            s.template = built;
            then
        }
    }
}

pub(super) fn lose_build_lock(s: &mut State) -> Option<()> {
    s.build_lock.take()?;
    if std::mem::replace(&mut s.lock_lost, true) {
        return None;
    }
    Some(())
}

pub(super) fn builder_dies(s: &mut State, b: usize) -> Option<()> {
    if matches!(s.builders[b], Builder::Dead | Builder::Done) {
        return None;
    }
    free_build_lock(s, b);
    s.builders[b] = Builder::Dead;
    Some(())
}

pub(super) fn collect(s: &mut State, g: &Safeguards) -> Option<()> {
    s.collector = match s.collector {
        Collector::Idle if s.template.is_none() || s.collections_left == 0 => return None,
        Collector::Idle => {
            s.collections_left -= 1;
            Collector::Chosen
        }
        Collector::Chosen if g.collector_locks && s.template_locked_shared(g) => Collector::Idle,
        Collector::Chosen => Collector::Locked,
        Collector::Locked if g.collector_renames => {
            s.condemned = s.template.take();
            Collector::Condemned
        }
        Collector::Locked => {
            s.template = s.template.map(|t| Database { sealed: false, ..t });
            Collector::Condemned
        }
        Collector::Condemned => {
            if g.collector_renames {
                s.condemned = None;
            } else {
                s.template = None;
            }
            Collector::Idle
        }
        Collector::Dead => return None,
    };
    Some(())
}

pub(super) fn collector_dies(s: &mut State) -> Option<()> {
    if s.collector == Collector::Dead {
        return None;
    }
    s.collector = Collector::Dead;
    Some(())
}

/// Another run's sweep finds builder `b`'s private database.
pub(super) fn sweep(s: &mut State, g: &Safeguards, b: usize) -> Option<()> {
    let seems_dead = s.builders[b] == Builder::Dead || !g.run_lock_first;
    let removable = s.private[b].is_some_and(|d| g.sweep_unseals || !d.sealed);
    if !g.named_by_run || !seems_dead || !removable {
        return None;
    }
    s.disturbed |= s.builders[b] != Builder::Dead;
    s.private[b] = None;
    Some(())
}

pub(super) fn sweep_condemned(s: &mut State, g: &Safeguards) -> Option<()> {
    let removable = s.condemned.is_some_and(|d| g.sweep_unseals || !d.sealed);
    if s.collector != Collector::Dead || !removable {
        return None;
    }
    s.condemned = None;
    Some(())
}

/// Once nobody builds or collects, sweeps run to the end must leave no private database.
pub(super) fn can_remove_all(model: &Templates, s: &State) -> bool {
    let over = |b: &Builder| matches!(b, Builder::Dead | Builder::Done);
    if !s.builders.iter().all(over) || s.collector != Collector::Dead {
        return true;
    }
    let mut s = s.clone();
    for b in 0..BUILDERS {
        let _ = sweep(&mut s, &model.guards, b);
    }
    let _ = sweep_condemned(&mut s, &model.guards);
    s.private.iter().all(Option::is_none) && s.condemned.is_none()
}
