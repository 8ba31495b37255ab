//! What changes a clone without its run: sessions of people and programs that go through all databases, work of the server, and its crash.

use super::{Database, Entry, Kind, State};

fn spend_visit(s: &mut State) -> Option<()> {
    s.left.visits = s.left.visits.checked_sub(1)?;
    Some(())
}

/// A spare, or a clone that is ready, which the end of its run may convert.
fn unused(s: &mut State, d: usize) -> Option<&mut Database> {
    let database = s.databases[d].as_mut()?;
    let leased = database.entries.contains(&Entry::Leased);
    let renamed = database.entries.contains(&Entry::Adopted);
    (!leased && !renamed).then_some(database)
}

pub(super) fn connect(s: &mut State, d: usize) -> Option<()> {
    spend_visit(s)?;
    let database = unused(s, d).filter(|b| !b.visitor)?;
    database.visitor = true;
    database.seen.sessions += 1;
    Some(())
}

pub(super) fn write_and_leave(s: &mut State, d: usize) -> Option<()> {
    let database = s.databases[d].as_mut()?;
    if !std::mem::take(&mut database.visitor) {
        return None;
    }
    database.pristine = false;
    Some(())
}

/// Autovacuum, or a worker of an extension: the server does not count it as a session.
pub(super) fn worker_writes(s: &mut State, d: usize) -> Option<()> {
    spend_visit(s)?;
    let spare = unused(s, d).filter(|b| b.kind == Kind::Spare)?;
    spare.pristine = false;
    spare.seen.tuples += 1;
    Some(())
}

/// `ALTER DATABASE … SET`, `GRANT` and the like, from a session on another database.
pub(super) fn alter(s: &mut State, d: usize) -> Option<()> {
    spend_visit(s)?;
    let spare = unused(s, d).filter(|b| b.kind == Kind::Spare)?;
    spare.pristine = false;
    spare.seen.row += 1;
    Some(())
}

/// Crash recovery empties unlogged tables and resets all counters. Sessions end; processes connect again.
pub(super) fn crash(s: &mut State) -> Option<()> {
    s.left.crashes = s.left.crashes.checked_sub(1)?;
    s.crashes += 1;
    for database in s.databases.iter_mut().flatten() {
        database.pristine = false;
        database.visitor = false;
        database.seen.sessions = 0;
        database.seen.tuples = 0;
        database.seen.resets = s.crashes;
    }
    for run in &mut s.runs {
        run.orphan = None;
    }
    s.sweeper = super::Sweeper::Idle;
    Some(())
}
