//! The steps of builders, borrower, collector and sweep. Each step is one statement.

use super::{BUILDERS, Builder, Collector, Database, Holder, Safeguards, State, Templates};

pub(super) fn build(s: &mut State, g: &Safeguards, b: usize) -> Option<()> {
    s.builders[b] = match s.builders[b] {
        Builder::Start if g.lock_before_lookup && s.template_locked_exclusive(g) => return None,
        Builder::Start => Builder::Looking,
        Builder::Looking if sees_template(s, g) => Builder::Found,
        Builder::Looking => Builder::Missing,
        Builder::Missing => {
            take_build_lock(s, g, Holder::Builder(b))?;
            Builder::Building
        }
        Builder::Building => look_again(s, g, b),
        Builder::Clearing => {
            s.template = None;
            create(s, g, b)
        }
        Builder::Created => with_database(s, g, b, |d| d.migrated = true, Builder::Migrated),
        Builder::Migrated if g.seal_before_rename => {
            with_database(s, g, b, |d| d.sealed = true, Builder::Nearly)
        }
        Builder::Migrated => rename(s, g, b, Builder::Nearly),
        Builder::Nearly if g.seal_before_rename => {
            let published = rename(s, g, b, Builder::Found);
            free_build_lock(s, Holder::Builder(b));
            published
        }
        Builder::Nearly => {
            s.template = s.template.map(|t| Database { sealed: true, ..t });
            free_build_lock(s, Holder::Builder(b));
            Builder::Found
        }
        Builder::Found if s.template_locked_exclusive(g) => return None,
        Builder::Found if g.handover_overlaps => Builder::Using,
        Builder::Found => Builder::HandingOver,
        Builder::HandingOver if s.template_locked_exclusive(g) => return None,
        Builder::HandingOver => Builder::Using,
        Builder::Using => Builder::Done,
        Builder::Done | Builder::Dead => return None,
    };
    Some(())
}

fn sees_template(s: &State, g: &Safeguards) -> bool {
    s.template
        .is_some_and(|t| t.sealed || !g.lookup_wants_sealed)
}

fn take_build_lock(s: &mut State, g: &Safeguards, holder: Holder) -> Option<()> {
    if g.build_lock {
        if s.build_lock.is_some() {
            return None;
        }
        s.build_lock = Some(holder);
    }
    Some(())
}

fn free_build_lock(s: &mut State, holder: Holder) {
    if s.build_lock == Some(holder) {
        s.build_lock = None;
    }
}

fn look_again(s: &mut State, g: &Safeguards, b: usize) -> Builder {
    if g.second_look && sees_template(s, g) {
        free_build_lock(s, Holder::Builder(b));
        return Builder::Found;
    }
    if s.template.is_some_and(|t| !t.sealed) && g.clears_wrecks {
        return Builder::Clearing;
    }
    create(s, g, b)
}

fn create(s: &mut State, g: &Safeguards, b: usize) -> Builder {
    s.rebuilt |= s.template.is_some_and(|t| t.sealed);
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

/// A rename to an existing name fails; the second builder drops its database and gives up.
fn rename(s: &mut State, g: &Safeguards, b: usize, then: Builder) -> Builder {
    if !g.private_name {
        return then;
    }
    match (s.private[b].take(), s.template) {
        (None, _) => Builder::Dead,
        (Some(_), Some(_)) => {
            s.blocked = true;
            Builder::Dead
        }
        (built, None) => {
            s.template = built;
            then
        }
    }
}

/// The connection is lost, and with it every lock. Processes with other connections do not notice.
pub(super) fn cut(s: &mut State, g: &Safeguards, b: usize) -> Option<()> {
    if s.cut.contains(&true) || !s.builders[b].builds() {
        return None;
    }
    s.cut[b] = true;
    free_build_lock(s, Holder::Builder(b));
    if g.one_session {
        s.builders[b] = Builder::Dead;
    }
    Some(())
}

pub(super) fn builder_dies(s: &mut State, b: usize) -> Option<()> {
    if matches!(s.builders[b], Builder::Dead | Builder::Done) {
        return None;
    }
    free_build_lock(s, Holder::Builder(b));
    s.builders[b] = Builder::Dead;
    Some(())
}

/// A build of another template that starts from this one. It holds the build lock, but not the lock of this template.
pub(super) fn borrow(s: &mut State, g: &Safeguards) -> Option<()> {
    if s.borrowing {
        s.borrowing = false;
        s.borrows_left -= 1;
        free_build_lock(s, Holder::Borrower);
        return Some(());
    }
    if s.borrows_left == 0 || !s.template.is_some_and(|t| t.sealed) {
        return None;
    }
    take_build_lock(s, g, Holder::Borrower)?;
    s.borrowing = true;
    Some(())
}

pub(super) fn collect(s: &mut State, g: &Safeguards) -> Option<()> {
    s.collector = match s.collector {
        Collector::Idle if s.template.is_none() || s.collections_left == 0 => return None,
        Collector::Idle => {
            s.collections_left -= 1;
            Collector::Chosen
        }
        Collector::Chosen if g.collector_build_lock => {
            match take_build_lock(s, g, Holder::Collector) {
                Some(()) => Collector::Alone,
                None => Collector::Idle,
            }
        }
        Collector::Chosen => Collector::Alone,
        Collector::Alone if g.collector_locks && s.template_locked_shared(g) => {
            free_build_lock(s, Holder::Collector);
            Collector::Idle
        }
        Collector::Alone => Collector::Locked,
        // The database is gone, so the statement fails.
        Collector::Locked if s.template.is_none() => {
            free_build_lock(s, Holder::Collector);
            Collector::Idle
        }
        Collector::Locked => {
            let unsealed = |t| Database {
                sealed: false,
                condemned: true,
                ..t
            };
            s.template = s.template.map(unsealed);
            Collector::Condemned
        }
        Collector::Condemned => {
            s.template = None;
            free_build_lock(s, Holder::Collector);
            Collector::Idle
        }
    };
    Some(())
}

/// The process or session of the collector ends. Another collector may come later.
pub(super) fn collector_dies(s: &mut State) -> Option<()> {
    if s.collector == Collector::Idle {
        return None;
    }
    free_build_lock(s, Holder::Collector);
    s.collector = Collector::Idle;
    Some(())
}

/// The sweep of another run finds the private database of builder `b`.
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

/// If no process builds or collects, sweeps and one more collection must leave neither a private database nor a wreck.
pub(super) fn can_remove_all(model: &Templates, s: &State) -> bool {
    let over = |b: &Builder| matches!(b, Builder::Dead | Builder::Done);
    if !s.builders.iter().all(over) || s.collector != Collector::Idle || s.borrowing {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    for b in 0..BUILDERS {
        let _ = sweep(&mut s, g, b);
    }
    s.collections_left = 1;
    while collect(&mut s, g).is_some() {}
    s.private.iter().all(Option::is_none) && s.template.is_none()
}
