//! The sweep of another process, which needs no lock for spares, and the collector of templates.

use super::{
    DATABASES, Database, Kind, Owner, RUNS, Safeguards, Spares, Stage, State, Sweeper, run,
};

/// Removes a dead run under its fence: with the run lock exclusive, no session of the run is at work.
pub(super) fn sweep_run(s: &mut State, g: &Safeguards, r: usize) -> Option<()> {
    if s.runs[r].stage != Stage::Dead {
        return None;
    }
    if g.adopters_hold_lock {
        s.runs[r].orphan = None;
    }
    for d in 0..DATABASES {
        // Without FORCE: a session makes the sweep leave the rest to a later one.
        if run::is_of_run(s, g, r, d) {
            if s.connected(d) {
                return None;
            }
            drop_database(s, d);
        }
    }
    s.runs[r].stage = Stage::Swept;
    Some(())
}

/// Removes what carries the id of a run that has been over for long.
pub(super) fn sweep_former(s: &mut State) -> Option<()> {
    let former = |b: &Database| b.kind == Kind::Clone(Owner::Former);
    let d = (0..DATABASES).find(|d| s.databases[*d].is_some_and(|b| former(&b)))?;
    if s.connected(d) {
        return None;
    }
    drop_database(s, d);
    Some(())
}

fn drop_database(s: &mut State, d: usize) {
    s.lost |= s.is_held(d);
    s.databases[d] = None;
}

/// Any spare may be too old, or one too many.
pub(super) fn choose(s: &mut State, d: usize) -> Option<()> {
    let spare = s.databases[d].filter(|b| b.kind == Kind::Spare)?;
    if s.sweeper != Sweeper::Idle {
        return None;
    }
    s.sweeper = Sweeper::Chosen(d, spare.serial);
    Some(())
}

/// `DROP DATABASE`: does nothing if no database has the name, and fails if a session is connected.
pub(super) fn drop_chosen(s: &mut State, g: &Safeguards) -> Option<()> {
    let Sweeper::Chosen(d, serial) = s.sweeper else {
        return None;
    };
    s.sweeper = Sweeper::Idle;
    let found = s.named(d, serial).is_some() || (!g.drop_by_name && s.databases[d].is_some());
    if found && !(g.plain_drop && s.connected(d)) {
        s.thrown_out |= s.databases[d].is_some_and(|b| b.visitor);
        drop_database(s, d);
    }
    Some(())
}

/// The server or the sweep is killed in the middle of DROP: the database is invalid, which its row shows.
pub(super) fn die_dropping(s: &mut State) -> Option<()> {
    let Sweeper::Chosen(d, serial) = s.sweeper else {
        return None;
    };
    if s.connected(d) {
        return None;
    }
    s.left.visits = s.left.visits.checked_sub(1)?;
    let spare = s.named(d, serial)?;
    spare.pristine = false;
    spare.seen.row += 1;
    s.sweeper = Sweeper::Idle;
    Some(())
}

/// Drops the template under its lock, exclusive.
pub(super) fn collect(s: &mut State, g: &Safeguards) -> Option<()> {
    let used = s.runs.iter().any(|r| r.stage.is_live());
    if g.template_lock && used {
        return None;
    }
    s.left.collections = s.left.collections.checked_sub(1)?;
    s.template.take().map(|_| ())
}

/// If no process is at work, a sweep removes dead runs, and spares without a template. If there is a template, the next run drops spares that are unfit.
pub(super) fn can_remove_all(model: &Spares, s: &State) -> bool {
    let at_work = s
        .runs
        .iter()
        .any(|r| r.stage.is_live() || r.orphan.is_some());
    let visited = s.databases.iter().flatten().any(|b| b.visitor);
    if at_work || visited || s.sweeper != Sweeper::Idle {
        return true;
    }
    let (mut s, g) = (s.clone(), &model.guards);
    for r in 0..RUNS {
        let _ = sweep_run(&mut s, g, r);
    }
    while sweep_former(&mut s).is_some() {}
    let mut databases = s.databases.iter().flatten();
    databases.all(|b| b.kind == Kind::Spare && (run::equals(&s, g, b) || is_removable(&s, g)))
}

/// Whether a spare is dropped that no run can adopt.
fn is_removable(s: &State, g: &Safeguards) -> bool {
    if s.template.is_some() {
        g.drops_unfit
    } else {
        g.sweeps_orphans
    }
}
