//! The steps of a run: its keeper (or another process that adopts) and one test process. Each step is one statement or system call.

use super::{DATABASES, Database, Entry, Kind, Owner, Safeguards, Seen, Stage, State, Test};

/// Takes the locks; builds the template if it is missing.
pub(super) fn begin(s: &mut State, r: usize) -> Option<()> {
    if s.runs[r].stage != Stage::New {
        return None;
    }
    s.runs[r].template = *s.template.get_or_insert(1);
    s.runs[r].stage = Stage::Live;
    Some(())
}

/// Run 0 creates database 1, if that was not done yet. (The steps of a creation are in the model of leases.)
pub(super) fn create(s: &mut State, r: usize) -> Option<()> {
    let template = s.template?;
    if r != 0 || s.runs[r].stage != Stage::Live {
        return None;
    }
    s.left.creations = s.left.creations.checked_sub(1)?;
    let seen = Seen {
        sessions: 1,
        tuples: 0,
        row: 0,
        resets: s.crashes,
    };
    s.databases[1] = Some(Database {
        kind: Kind::Clone(Owner::Run(r)),
        template,
        seen,
        baseline: seen,
        entries: [Entry::Ready, Entry::Missing],
        ..Database::spare()
    });
    Some(())
}

pub(super) fn choose(s: &mut State, g: &Safeguards, r: usize, d: usize) -> Option<()> {
    let spare = s.databases[d].filter(|b| b.kind == Kind::Spare)?;
    let skipped = !g.drops_unfit && !equals(s, g, &spare);
    if s.runs[r].stage != Stage::Live || skipped {
        return None;
    }
    s.left.adoptions[r] = s.left.adoptions[r].checked_sub(1)?;
    s.runs[r].stage = Stage::Chosen(d, spare.serial);
    Some(())
}

pub(super) fn step(s: &mut State, g: &Safeguards, r: usize) -> Option<()> {
    s.runs[r].stage = match s.runs[r].stage {
        Stage::Chosen(d, serial) if g.rename_first || !g.rename_adopts => {
            adopt(s, g, r, (d, serial), None)
        }
        Stage::Chosen(d, serial) => match s.named(d, serial).copied() {
            Some(spare) => Stage::Compared(d, serial, equals(s, g, &spare)),
            None => Stage::Live,
        },
        Stage::Compared(d, serial, equal) => adopt(s, g, r, (d, serial), Some(equal)),
        Stage::Adopted(d, true) => {
            set_entry(s, r, d, Entry::Ready);
            Stage::Live
        }
        Stage::Adopted(d, false) => {
            set_entry(s, r, d, Entry::Missing);
            drop_own(s, d);
            Stage::Live
        }
        Stage::Ending(list) => end_step(s, g, r, list),
        Stage::New | Stage::Live | Stage::Over | Stage::Dead | Stage::Swept => return None,
    };
    Some(())
}

/// Renames the spare and compares it, in one transaction (with the safeguard). If the rename fails, another run or a visitor was faster.
fn adopt(
    s: &mut State,
    g: &Safeguards,
    r: usize,
    (d, serial): (usize, u8),
    compared: Option<bool>,
) -> Stage {
    if !rename(s, g, r, d, serial) {
        return Stage::Live;
    }
    set_entry(s, r, d, Entry::Adopted);
    let Some(database) = s.databases[d] else {
        return Stage::Live;
    };
    let equal = compared.unwrap_or_else(|| equals(s, g, &database));
    s.adopted_dirty |= equal && !database.pristine;
    s.adopted_foreign |= equal && s.runs[r].template != database.template;
    Stage::Adopted(d, equal)
}

/// Renames a spare to a clone of the run; `false` if it is gone, has another name, or has sessions.
fn rename(s: &mut State, g: &Safeguards, r: usize, d: usize, serial: u8) -> bool {
    if !g.rename_adopts {
        return s.databases[d].is_some();
    }
    let Some(spare) = s.named(d, serial).filter(|b| !b.visitor) else {
        return false;
    };
    let owner = if g.own_name {
        Owner::Run(r)
    } else {
        Owner::Former
    };
    spare.kind = Kind::Clone(owner);
    spare.serial += 1;
    true
}

/// Whether the server shows of a database what its baseline says.
pub(super) fn equals(s: &State, g: &Safeguards, database: &Database) -> bool {
    let (seen, baseline) = (database.seen, database.baseline);
    (!g.sessions_compared || seen.sessions == baseline.sessions)
        && (!g.tuples_compared || seen.tuples == baseline.tuples)
        && (!g.row_compared || seen.row == baseline.row)
        && (!g.resets_compared || seen.resets == baseline.resets)
        && (!g.template_compared || s.template == Some(database.template))
}

fn set_entry(s: &mut State, r: usize, d: usize, entry: Entry) {
    if let Some(database) = &mut s.databases[d] {
        database.entries[r] = entry;
    }
}

/// The run drops a database of its own, with FORCE.
fn drop_own(s: &mut State, d: usize) {
    s.lost |= s.is_held(d);
    s.databases[d] = None;
}

pub(super) fn claim(s: &mut State, r: usize, d: usize) -> Option<()> {
    let alive = s.runs[r].stage.is_live();
    let ready = s.databases[d].is_some_and(|b| b.entries[r] == Entry::Ready);
    if !alive || !ready || s.runs[r].test != Test::Waiting {
        return None;
    }
    set_entry(s, r, d, Entry::Leased);
    s.runs[r].test = Test::Claimed(d);
    Some(())
}

/// The test connects and writes.
pub(super) fn connect(s: &mut State, r: usize) -> Option<()> {
    let Test::Claimed(d) = s.runs[r].test else {
        return None;
    };
    let database = s.databases[d].as_mut()?;
    database.pristine = false;
    database.seen.sessions += 1;
    s.runs[r].test = Test::Using(d);
    Some(())
}

/// The clone is dropped. (Recycling is in the model of leases.)
pub(super) fn release(s: &mut State, r: usize) -> Option<()> {
    let Test::Using(d) = s.runs[r].test else {
        return None;
    };
    s.runs[r].test = Test::Done;
    set_entry(s, r, d, Entry::Missing);
    drop_own(s, d);
    Some(())
}

/// Takes the fence, which a live test process prevents, and lists what is ready.
pub(super) fn end(s: &mut State, g: &Safeguards, r: usize) -> Option<()> {
    let run = s.runs[r];
    let alive = matches!(run.test, Test::Claimed(_) | Test::Using(_));
    if run.stage != Stage::Live || (g.fence && alive) {
        return None;
    }
    if g.fence {
        s.runs[r].test = Test::Done;
    }
    let ready = |d: usize| s.databases[d].is_some_and(|b| b.entries[r] == Entry::Ready);
    s.runs[r].stage = Stage::Ending([ready(0), ready(1)]);
    Some(())
}

/// Converts the listed clones, then drops the others.
fn end_step(s: &mut State, g: &Safeguards, r: usize, mut list: [bool; DATABASES]) -> Stage {
    if let Some(d) = list.iter().position(|listed| *listed) {
        list[d] = false;
        convert(s, g, r, d);
        return Stage::Ending(list);
    }
    match (0..DATABASES).find(|d| is_of_run(s, g, r, *d)) {
        Some(d) => {
            set_entry(s, r, d, Entry::Missing);
            drop_own(s, d);
            Stage::Ending(list)
        }
        None => Stage::Over,
    }
}

/// Whether the remover of a run finds this database.
pub(super) fn is_of_run(s: &State, g: &Safeguards, r: usize, d: usize) -> bool {
    s.databases[d].is_some_and(|b| {
        let has_entry = matches!(b.entries[r], Entry::Ready | Entry::Leased);
        b.kind == Kind::Clone(Owner::Run(r)) && (g.end_by_name || has_entry)
    })
}

/// Renames a clone to a spare and gives it its comment, in one transaction.
fn convert(s: &mut State, g: &Safeguards, r: usize, d: usize) {
    let Some(mut database) = s.databases[d] else {
        return;
    };
    let usable = !g.conversion_compares || database.seen == database.baseline;
    if s.connected(d) || !usable {
        return;
    }
    s.lost |= s.runs[r].test == Test::Claimed(d);
    database.kind = Kind::Spare;
    database.serial += 1;
    database.entries[r] = Entry::Missing;
    if !g.baseline_kept {
        database.baseline = database.seen;
    }
    s.databases[d] = Some(database);
}

/// All processes of the run are killed.
pub(super) fn die(s: &mut State, r: usize) -> Option<()> {
    if !s.runs[r].stage.is_live() {
        return None;
    }
    s.runs[r].stage = Stage::Dead;
    s.runs[r].test = Test::Done;
    Some(())
}

/// The server finishes the statement of a killed client.
pub(super) fn die_renaming(s: &mut State, r: usize) -> Option<()> {
    let Stage::Chosen(d, serial) = s.runs[r].stage else {
        return None;
    };
    die(s, r)?;
    s.runs[r].orphan = Some((d, serial));
    Some(())
}

pub(super) fn orphan_finishes(s: &mut State, g: &Safeguards, r: usize) -> Option<()> {
    let (d, serial) = s.runs[r].orphan.take()?;
    rename(s, g, r, d, serial);
    Some(())
}
