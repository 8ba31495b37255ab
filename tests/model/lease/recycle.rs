//! Recycling: cleaning, which a test process does on its own session or the keeper on a new one, and the renewal of a clone under another name.

use super::{Inode, Keeper, RENEWED, Safeguards, Seen, State};

/// How far a process is in cleaning a clone. The number is that of the sessions, read at the beginning.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(crate) enum Cleaning {
    Counted(u8),
    /// No other session was there. The evidence is next.
    Alone(u8),
}

impl Cleaning {
    pub(super) fn begin(s: &State, n: usize) -> Option<Self> {
        let database = s.names[n].database.as_ref()?;
        Some(Self::Counted(database.seen.sessions))
    }
}

/// The next step of cleaning: `Some(None)` after the last one, `None` if the process has to wait.
pub(super) fn clean(
    s: &mut State,
    g: &Safeguards,
    n: usize,
    cleaning: Cleaning,
    cleaner: Option<usize>,
) -> Option<Option<Cleaning>> {
    match cleaning {
        Cleaning::Counted(_) if g.quiet && s.connected(n, cleaner) => None,
        Cleaning::Counted(sessions) => Some(Some(Cleaning::Alone(sessions))),
        Cleaning::Alone(sessions) => reset(s, g, n, sessions).map(|()| None),
    }
}

/// Evidence, reset, verification and the `cleaned` line, in one step: a write between them is one after the evidence. Nothing is reset that the evidence
/// did not show.
fn reset(s: &mut State, g: &Safeguards, n: usize, counted: u8) -> Option<()> {
    let database = s.names[n].database.as_mut()?;
    database.written = false;
    let sessions = if g.count_first {
        counted
    } else {
        database.seen.sessions
    };
    // The row is not read here: it must be that of the last baseline.
    s.names[n].cleaned = Some(Seen {
        sessions,
        tuples: database.seen.tuples,
        row: 0,
    });
    Some(())
}

/// Where the entry of a clone is that may be recycled.
fn source<'a>(s: &'a mut State, g: &Safeguards, n: usize) -> Option<&'a mut Option<Inode>> {
    let name = &mut s.names[n];
    if name.released.is_some() {
        return Some(&mut name.released);
    }
    (!g.failed_apart && name.failed.is_some()).then_some(&mut name.failed)
}

/// The keeper cleans a clone that was released without a `cleaned` line.
pub(super) fn keeper_cleans(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    source(s, g, n)?;
    if s.keeper != Keeper::Idle || s.names[n].cleaned.is_some() || s.left.renewals == 0 {
        return None;
    }
    s.keeper = Keeper::Cleaning(n, Cleaning::begin(s, n)?);
    Some(())
}

/// The clone does not become quiet; it is dropped.
pub(super) fn keeper_gives_up(s: &mut State) -> Option<()> {
    let (Keeper::Cleaning(n, _) | Keeper::Compared(n, _)) = s.keeper else {
        return None;
    };
    s.names[n].cleaned = None;
    s.keeper = Keeper::Idle;
    Some(())
}

/// Renames a clone that was cleaned and then compares it, in one transaction (with the safeguard).
pub(super) fn renew(s: &mut State, g: &Safeguards, n: usize) -> Option<()> {
    source(s, g, n)?;
    let cleaned = s.names[n].cleaned;
    if s.keeper != Keeper::Idle || (g.needs_line && cleaned.is_none()) {
        return None;
    }
    s.left.renewals = s.left.renewals.checked_sub(1)?;
    if g.rename_first {
        return rename(s, g, n, None);
    }
    s.keeper = Keeper::Compared(n, equals(s, g, n, cleaned)?);
    Some(())
}

pub(super) fn rename(
    s: &mut State,
    g: &Safeguards,
    old: usize,
    compared: Option<bool>,
) -> Option<()> {
    let new = if g.new_name { RENEWED } else { old };
    let equal = move_database(s, g, old, new, compared)?;
    s.keeper = Keeper::Renamed { old, new, equal };
    Some(())
}

/// The rename and the comparison. Returns whether the clone equals its template.
pub(super) fn move_database(
    s: &mut State,
    g: &Safeguards,
    old: usize,
    new: usize,
    compared: Option<bool>,
) -> Option<bool> {
    if g.rename_alone && s.connected(old, None) {
        return None;
    }
    let cleaned = s.names[old].cleaned.take();
    let database = s.names[old].database.take()?;
    s.names[new].database = Some(database);
    match compared {
        Some(equal) => Some(equal),
        None => equals(s, g, new, cleaned),
    }
}

/// Whether the server shows of database `n` what the `cleaned` line says.
fn equals(s: &State, g: &Safeguards, n: usize, cleaned: Option<Seen>) -> Option<bool> {
    let seen = s.names[n].database.as_ref()?.seen;
    Some(cleaned.is_none_or(|line| {
        (!g.sessions_compared || seen.sessions == line.sessions)
            && (!g.tuples_compared || seen.tuples == line.tuples)
            && (!g.row_compared || seen.row == line.row)
    }))
}

/// Offers the clone under its new name; the old entry goes last.
pub(super) fn offer(s: &mut State, g: &Safeguards, old: usize, new: usize) -> Option<()> {
    let inode = if new == old { 1 } else { 0 };
    if g.old_entry_last {
        put(s, new, inode)?;
        s.keeper = Keeper::Offered(old);
    } else {
        forget(s, g, old);
        s.keeper = Keeper::Forgotten(new, inode);
    }
    Some(())
}

pub(super) fn put(s: &mut State, new: usize, inode: Inode) -> Option<()> {
    let name = &mut s.names[new];
    name.ready = Some(inode);
    name.database.as_mut()?.leases = 0;
    Some(())
}

pub(super) fn forget(s: &mut State, g: &Safeguards, old: usize) {
    if let Some(entry) = source(s, g, old) {
        *entry = None;
    }
}
