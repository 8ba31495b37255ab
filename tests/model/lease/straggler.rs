//! What outlives a test: sessions of its processes and tasks, backends of killed clients, and work of the server itself. Stragglers know the names of the
//! databases that tests have had, no others.

use super::{Database, Name, State};

fn known(s: &mut State, n: usize) -> Option<&mut Database> {
    let Name {
        database, known, ..
    } = &mut s.names[n];
    database.as_mut().filter(|_| *known)
}

fn spend_visit(s: &mut State) -> Option<()> {
    s.left.visits = s.left.visits.checked_sub(1)?;
    Some(())
}

pub(super) fn connect(s: &mut State, n: usize) -> Option<()> {
    spend_visit(s)?;
    let database = known(s, n).filter(|d| d.straggler.is_none())?;
    database.straggler = Some(false);
    Some(())
}

/// The server's counter of sessions moves some time after the session begins, at the latest when it ends.
pub(super) fn is_counted(s: &mut State, n: usize) -> Option<()> {
    let database = s.names[n].database.as_mut()?;
    if database.straggler? {
        return None;
    }
    database.straggler = Some(true);
    database.seen.sessions += 1;
    Some(())
}

pub(super) fn write_and_leave(s: &mut State, n: usize) -> Option<()> {
    let database = s.names[n].database.as_mut()?;
    if !database.straggler.take()? {
        database.seen.sessions += 1;
    }
    database.written = true;
    Some(())
}

/// `ALTER DATABASE … SET`, `COMMENT`, `GRANT`: from a session on another database.
pub(super) fn alter(s: &mut State, n: usize) -> Option<()> {
    spend_visit(s)?;
    let database = known(s, n)?;
    database.written = true;
    database.seen.row += 1;
    Some(())
}

/// Autovacuum, or a worker of an extension. (On ready clones it is not modeled: nothing notices it there.)
pub(super) fn worker_writes(s: &mut State, n: usize) -> Option<()> {
    spend_visit(s)?;
    let ready = s.names[n].ready.is_some();
    let database = known(s, n).filter(|_| !ready)?;
    database.written = true;
    database.seen.tuples += 1;
    Some(())
}

/// The statement of a killed client commits.
pub(super) fn backend_ends(s: &mut State, n: usize) -> Option<()> {
    let database = s.names[n].database.as_mut()?;
    if !std::mem::take(&mut database.orphan) {
        return None;
    }
    database.written = true;
    Some(())
}
