//! Decides which spares no run should adopt any more. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::protocol::{Fingerprint, Kind, SpareNote};
use kapsel_testdb_core::run::spares::MAX_AGE;

/// The spares among our databases.
pub fn of_spares(rows: &[DatabaseRow]) -> impl Iterator<Item = &DatabaseRow> {
    rows.iter()
        .filter(|row| row.name.kind() == Kind::Spare && row.owned)
}

/// The spares to drop: those without a readable note, those whose template is gone, those that waited too long, and the oldest of those that are too
/// many. `max` is the most per template; if it is not configured, the runs that left the spares decided.
pub fn surplus_spares(
    rows: &[DatabaseRow],
    max: Option<usize>,
    now: SystemTime,
) -> Vec<DatabaseRow> {
    let usable = rows.iter().filter(|row| row.is_usable_template());
    let templates: BTreeSet<&Fingerprint> = usable.map(|row| row.name.fingerprint()).collect();
    let mut by_template: BTreeMap<&Fingerprint, Vec<(SpareNote, &DatabaseRow)>> = BTreeMap::new();
    let mut surplus = Vec::new();
    for row in of_spares(rows) {
        let fingerprint = row.name.fingerprint();
        let note = SpareNote::parse(row.comment.as_deref());
        match note.filter(|note| templates.contains(fingerprint) && !is_old(note, now)) {
            Some(note) => by_template
                .entry(fingerprint)
                .or_default()
                .push((note, row)),
            None => surplus.push(row.clone()),
        }
    }
    for spares in by_template.values_mut() {
        spares.sort_by_key(|(note, _)| std::cmp::Reverse(note.since));
        let left = spares.iter().map(|(note, _)| note.limit).max();
        let max = max.or(left).unwrap_or(0);
        surplus.extend(spares.iter().skip(max).map(|(_, row)| (*row).clone()));
    }
    surplus
}

fn is_old(note: &SpareNote, now: SystemTime) -> bool {
    let since = UNIX_EPOCH + Duration::from_secs(note.since);
    now.duration_since(since).is_ok_and(|age| age > MAX_AGE)
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::protocol::{Baseline, DbName, Namespace, RunId, RunKey};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn template(of: u8) -> DatabaseRow {
        let namespace = Namespace::new("app").expect("valid");
        let name = DbName::template(&namespace, &Fingerprint::from_hash(&[of; 32]));
        DatabaseRow {
            is_template: true,
            allow_connections: false,
            ..DatabaseRow::unused(name)
        }
    }

    fn spare(of: u8, age: u64, limit: usize) -> DatabaseRow {
        let template = template(of).name;
        let run = RunId::new(UNIX_EPOCH, &RunKey::new(&["x"]));
        let name = DbName::for_run(
            template.namespace(),
            Kind::Spare,
            template.fingerprint(),
            &run,
        );
        let note = SpareNote {
            tool: "1".to_owned(),
            run,
            template,
            since: NOW - age,
            demand: 1,
            shared: false,
            limit,
            baseline: Baseline::default(),
        };
        DatabaseRow {
            comment: serde_json::to_string(&note).ok(),
            ..DatabaseRow::unused(name)
        }
    }

    fn dropped(rows: &[DatabaseRow], max: Option<usize>) -> Vec<DatabaseRow> {
        surplus_spares(rows, max, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn the_runs_that_left_spares_decide_how_many_stay_and_the_oldest_go() {
        let rows = [
            template(1),
            spare(1, 30, 1),
            spare(1, 10, 2),
            spare(1, 20, 2),
        ];
        assert_eq!(dropped(&rows, None), [rows[1].clone()]);
        assert_eq!(dropped(&rows, Some(3)), []);
        assert_eq!(dropped(&rows, Some(0)).len(), 3);
    }

    #[test]
    fn spares_without_template_or_note_and_old_ones_go() {
        let unreadable = DatabaseRow {
            comment: None,
            ..spare(1, 0, 9)
        };
        let old = spare(1, MAX_AGE.as_secs() + 1, 9);
        let fresh = spare(1, MAX_AGE.as_secs(), 9);
        let rows = [
            template(1),
            unreadable.clone(),
            old.clone(),
            fresh,
            spare(2, 0, 9),
        ];
        assert_eq!(dropped(&rows, None), [unreadable, old, rows[4].clone()]);
    }

    #[test]
    fn spares_of_other_roles_are_left_alone() {
        let foreign = DatabaseRow {
            owned: false,
            ..spare(1, 0, 9)
        };
        assert_eq!(dropped(&[template(1), foreign], Some(0)), []);
    }
}
