//! What is compared, decided and verified, and when tables are vacuumed again. `tests/recycle` proves the whole on real servers.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use sqlx::Error as Sqlx;

use super::evidence::PG_CLASS;
use super::*;
use crate::protocol::{Filled, Oid, Relation, Seen, SequenceState, Tuples};

const PG_PROC: Oid = 1255;
/// Tables: empty, empty and referenced by the first, one with rows, one with rules that fire always; a materialized view; a sequence.
const EMPTY: Oid = 16384;
const PARENT: Oid = 16390;
const FILLED: Oid = 16400;
const ALWAYS: Oid = 16410;
const VIEW: Oid = 16420;
const SEQUENCE: Oid = 16430;
/// The TOAST relation of [`EMPTY`].
const TOAST: Oid = 16385;

fn profile() -> Profile {
    let relation = |name: &str| Relation {
        name: name.to_owned(),
        ..Relation::default()
    };
    let filled = Filled {
        rows: 10,
        heap: 16_384,
        toast: 8_192,
        indexes: 32_768,
    };
    let relations = [
        (
            EMPTY,
            Relation {
                toast: Some(TOAST),
                ..relation("empty")
            },
        ),
        (
            PARENT,
            Relation {
                referenced_by: [EMPTY].into(),
                ..relation("parent")
            },
        ),
        (
            FILLED,
            Relation {
                filled: Some(filled),
                ..relation("filled")
            },
        ),
        (
            ALWAYS,
            Relation {
                always_fires: true,
                ..relation("always")
            },
        ),
        (
            VIEW,
            Relation {
                view: true,
                ..relation("view")
            },
        ),
    ];
    Profile {
        template: 5,
        class: "hash".to_owned(),
        unfit: None,
        relations: relations.into(),
        sequences: [(SEQUENCE, STATE)].into(),
    }
}

const STATE: SequenceState = SequenceState {
    last: 7,
    called: true,
};

fn toast_name(table: Oid) -> String {
    format!("pg_toast.pg_toast_{table}")
}

fn baseline() -> Baseline {
    Baseline {
        counters: [(EMPTY, [5, 1, 5]), (PG_CLASS, [0, 3, 0])].into(),
        sequences: [(SEQUENCE, 4)].into(),
        seen: Seen {
            sessions: 3,
            resets: "1".to_owned(),
            tuples: [70, 30, 20],
            ..Seen::default()
        },
        ..Baseline::default()
    }
}

fn evidence() -> Evidence {
    Evidence {
        counters: baseline().counters,
        sequences: baseline().sequences,
        nonempty: [FILLED].into(),
        backends: 1,
        sessions: 4,
        tuples: baseline().seen.tuples,
        resets: "1".to_owned(),
        ..Evidence::default()
    }
}

/// Writes rows to a relation. The evidence has no counters of catalogs other than `pg_class`, but their rows are in the sum.
fn write(evidence: &mut Evidence, oid: Oid, change: Tuples) {
    let mut counted = vec![&mut evidence.tuples];
    if oid != PG_PROC {
        counted.push(evidence.counters.entry(oid).or_default());
    }
    for counts in counted {
        for (count, change) in counts.iter_mut().zip(change) {
            *count += change;
        }
    }
}

/// The evidence after these rows were inserted, updated and deleted.
fn with(changes: &[(Oid, Tuples)]) -> Evidence {
    let mut now = evidence();
    for (oid, change) in changes {
        write(&mut now, *oid, *change);
    }
    now
}

fn class() -> ClassState {
    ClassState {
        hash: "hash".to_owned(),
        filled: [(FILLED, [16_384, 8_192])].into(),
        truncated: [].into(),
    }
}

fn decided(changes: &[(Oid, Tuples)], method: ResetMethod) -> Result<Plan, Reason> {
    let moved = moved(&baseline(), &with(changes))?;
    let class = class();
    decide(
        &moved,
        Some(&class).filter(|_| moved.class),
        &profile(),
        method,
    )
}

#[test]
fn the_same_evidence_is_untouched() {
    assert_eq!(moved(&baseline(), &evidence()), Ok(Moved::default()));
    let unvisited = Evidence {
        sessions: baseline().seen.sessions,
        ..evidence()
    };
    assert_eq!(moved(&baseline(), &unvisited), Ok(Moved::default()));
}

#[test]
fn doubts_about_the_counters_are_reasons() {
    type Doubt = fn(&mut Evidence);
    let doubts: [(Reason, Doubt); 8] = [
        (Reason::Sessions, |now| now.backends = 2),
        (Reason::Sessions, |now| now.backends = 0),
        (Reason::NotCounted, |now| now.in_transaction = true),
        (Reason::CountersReset, |now| now.resets.push('2')),
        (Reason::CountersReset, |now| now.sessions = 2),
        (Reason::CountersReset, |now| {
            now.counters.remove(&EMPTY);
        }),
        (Reason::CountersReset, |now| {
            now.sequences.remove(&SEQUENCE);
        }),
        (Reason::CountersReset, |now| {
            now.sequences.insert(SEQUENCE, 3);
        }),
    ];
    for (at, (reason, doubt)) in doubts.into_iter().enumerate() {
        let mut now = evidence();
        doubt(&mut now);
        assert_eq!(moved(&baseline(), &now), Err(reason), "{at}");
    }
}

#[test]
fn any_catalog_but_updates_of_pg_class_is_a_reason() {
    for change in [[1, 0, 0], [0, 1, 0], [0, 0, 1]] {
        assert_eq!(
            moved(&baseline(), &with(&[(PG_PROC, change)])),
            Err(Reason::Catalog)
        );
        // The sum tells both from a table that was written to at the same time.
        let both = [(EMPTY, [1, 1, 1]), (PG_PROC, change)];
        assert_eq!(moved(&baseline(), &with(&both)), Err(Reason::Catalog));
    }
    let class = |change| moved(&baseline(), &with(&[(PG_CLASS, change)]));
    assert_eq!(class([1, 0, 0]), Err(Reason::Catalog));
    assert_eq!(class([0, 0, 1]), Err(Reason::Catalog));
    let moved = class([0, 1, 0]).expect("TRUNCATE does that");
    assert!(moved.class && moved.relations.is_empty());
}

#[test]
fn what_moved_is_exactly_the_growth() {
    let mut now = with(&[(EMPTY, [2, 3, 4]), (FILLED, [1, 0, 0])]);
    now.sequences.insert(SEQUENCE, 5);
    let moved = moved(&baseline(), &now).expect("movement");
    assert_eq!(
        moved.relations,
        [(EMPTY, [2, 3, 4]), (FILLED, [1, 0, 0])].into()
    );
    assert_eq!(moved.sequences, [SEQUENCE].into());
    assert!(!moved.class);
}

#[test]
fn contents_without_a_counter_are_a_reason() {
    let mut now = evidence();
    assert_eq!(check_contents(&Moved::default(), &now, &profile()), Ok(()));
    now.nonempty.insert(EMPTY);
    assert_eq!(
        check_contents(&Moved::default(), &now, &profile()),
        Err(Reason::HiddenWrite)
    );
    let moved = moved(&baseline(), &with(&[(EMPTY, [1, 0, 0])])).expect("movement");
    assert_eq!(check_contents(&moved, &now, &profile()), Ok(()));
}

#[test]
fn tables_are_deleted_from_and_sequences_set_to_the_template() {
    let mut now = with(&[
        (EMPTY, [1, 0, 0]),
        (TOAST, [2, 0, 0]),
        (FILLED, [1000, 0, 0]),
    ]);
    now.sequences.insert(SEQUENCE, 5);
    let moved = moved(&baseline(), &now).expect("movement");
    let plan = decide(&moved, None, &profile(), ResetMethod::Delete).expect("a plan");
    let table = |oid, name: &str, reference| TableReset {
        oid,
        name: name.to_owned(),
        reference,
        truncate: false,
    };
    assert_eq!(
        plan.tables,
        [table(EMPTY, "empty", false), table(FILLED, "filled", true)]
    );
    assert_eq!(plan.toast, [TOAST].into());
    assert_eq!(plan.sequences, [(SEQUENCE, STATE)]);
    assert_eq!(plan.vacuum, ["empty", &toast_name(EMPTY), "filled"]);
}

#[test]
fn toast_relations_are_vacuumed_only_if_they_moved_or_were_truncated() {
    let vacuumed =
        |changes: &[(Oid, Tuples)], method| decided(changes, method).expect("a plan").vacuum;
    let insert: &[(Oid, Tuples)] = &[(EMPTY, [1, 0, 0])];
    assert_eq!(vacuumed(insert, ResetMethod::Delete), ["empty"]);
    assert_eq!(
        vacuumed(insert, ResetMethod::Truncate),
        ["empty", &toast_name(EMPTY)]
    );
    let both: &[(Oid, Tuples)] = &[(EMPTY, [1, 0, 0]), (TOAST, [0, 0, 1])];
    assert_eq!(
        vacuumed(both, ResetMethod::Delete),
        ["empty", &toast_name(EMPTY)]
    );
}

#[test]
fn what_cannot_be_reset_is_a_reason() {
    let cases: [(Reason, &[(Oid, Tuples)]); 11] = [
        (Reason::ReferenceRows, &[(FILLED, [0, 1, 0])]),
        (Reason::ReferenceRows, &[(FILLED, [0, 0, 1])]),
        (Reason::ManyRows, &[(FILLED, [1001, 0, 0])]),
        (Reason::ManyRows, &[(EMPTY, [50_001, 0, 0])]),
        (Reason::ManyRows, &[(EMPTY, [25_000, 25_001, 0])]),
        // Its rows are too many to delete, and it cannot be truncated: another table references it.
        (Reason::ManyRows, &[(PARENT, [1001, 0, 0])]),
        (Reason::AlwaysFires, &[(ALWAYS, [1, 0, 0])]),
        (Reason::Catalog, &[(VIEW, [1, 0, 0])]),
        (Reason::Catalog, &[(16_999, [1, 0, 0])]),
        (Reason::Catalog, &[(TOAST, [1, 0, 0])]),
        (
            Reason::ReferenceRows,
            &[(PG_CLASS, [0, 1, 0]), (FILLED, [1001, 0, 0])],
        ),
    ];
    for (reason, changes) in cases {
        assert_eq!(
            decided(changes, ResetMethod::Delete),
            Err(reason),
            "{changes:?}"
        );
    }
    let moved = moved(&baseline(), &with(&[(EMPTY, [1, 0, 0])])).expect("movement");
    let unfit = Profile {
        unfit: Some(Reason::NotCounted),
        ..profile()
    };
    assert_eq!(
        decide(&moved, None, &unfit, ResetMethod::Delete),
        Err(Reason::NotCounted)
    );
    let unknown = Moved {
        sequences: [1].into(),
        ..Moved::default()
    };
    assert_eq!(
        decide(&unknown, None, &profile(), ResetMethod::Delete),
        Err(Reason::Catalog)
    );
}

#[test]
fn many_rows_are_truncated_unless_a_table_that_stays_references_them() {
    let truncates = |changes: &[(Oid, Tuples)], method| -> Vec<(Oid, bool)> {
        let plan = decided(changes, method).expect("a plan");
        plan.tables
            .iter()
            .map(|table| (table.oid, table.truncate))
            .collect()
    };
    let delete = ResetMethod::Delete;
    assert_eq!(
        truncates(&[(EMPTY, [1000, 0, 0])], delete),
        [(EMPTY, false)]
    );
    assert_eq!(truncates(&[(EMPTY, [1000, 1, 0])], delete), [(EMPTY, true)]);
    assert_eq!(
        truncates(&[(EMPTY, [50_000, 0, 0])], delete),
        [(EMPTY, true)]
    );
    let both: &[(Oid, Tuples)] = &[(EMPTY, [1001, 0, 0]), (PARENT, [1001, 0, 0])];
    assert_eq!(truncates(both, delete), [(EMPTY, true), (PARENT, true)]);
    let truncate = ResetMethod::Truncate;
    assert_eq!(truncates(&[(EMPTY, [1, 0, 0])], truncate), [(EMPTY, true)]);
    assert_eq!(
        truncates(&[(PARENT, [1000, 0, 0])], truncate),
        [(PARENT, false)]
    );
    assert_eq!(
        truncates(&[(FILLED, [1, 0, 0])], truncate),
        [(FILLED, false)]
    );
}

#[test]
fn a_truncated_table_must_have_been_empty_and_the_schema_the_same() {
    let moved = moved(&baseline(), &with(&[(PG_CLASS, [0, 2, 0])])).expect("movement");
    let decide =
        |class: Option<&ClassState>| decide(&moved, class, &profile(), ResetMethod::Delete);
    let truncated = ClassState {
        truncated: [EMPTY].into(),
        ..class()
    };
    assert_eq!(
        decide(Some(&truncated)).expect("a plan").vacuum,
        ["empty", &toast_name(EMPTY)]
    );
    let with_toast = with(&[(PG_CLASS, [0, 2, 0]), (TOAST, [1, 0, 0])]);
    let with_toast = super::decide::moved(&baseline(), &with_toast).expect("movement");
    let plan = super::decide::decide(
        &with_toast,
        Some(&truncated),
        &profile(),
        ResetMethod::Delete,
    );
    assert_eq!(plan.expect("a plan").toast, [TOAST].into());
    // It was rolled back: `reltuples` shows nothing.
    let plan = super::decide::decide(&with_toast, Some(&class()), &profile(), ResetMethod::Delete);
    let plan = plan.expect("a plan");
    assert_eq!(plan.toast, [TOAST].into());
    assert_eq!(plan.vacuum, ["empty", &toast_name(EMPTY)]);
    assert_eq!(decide(None), Err(Reason::Catalog));
    let other = ClassState {
        hash: "other".to_owned(),
        ..class()
    };
    assert_eq!(decide(Some(&other)), Err(Reason::Catalog));
    for sizes in [[0, 8_192], [16_384, 0], [24_576, 8_192], [16_384, 16_384]] {
        let emptied = ClassState {
            filled: [(FILLED, sizes)].into(),
            ..class()
        };
        assert_eq!(
            decide(Some(&emptied)),
            Err(Reason::ReferenceRows),
            "{sizes:?}"
        );
    }
    let gone = ClassState {
        filled: BTreeMap::new(),
        ..class()
    };
    assert_eq!(decide(Some(&gone)), Err(Reason::ReferenceRows));
    // Rows that were inserted on top may have made it larger.
    let changes: &[(Oid, Tuples)] = &[(PG_CLASS, [0, 2, 0]), (FILLED, [5, 0, 0])];
    let moved = super::moved(&baseline(), &with(changes)).expect("movement");
    let decide = |sizes| {
        let class = ClassState {
            filled: [(FILLED, sizes)].into(),
            ..class()
        };
        super::decide(&moved, Some(&class), &profile(), ResetMethod::Delete)
    };
    for larger in [[24_576, 8_192], [16_384, 16_384]] {
        assert!(decide(larger).is_ok(), "{larger:?}");
    }
    let most: &[(Oid, Tuples)] = &[(PG_CLASS, [0, 2, 0]), (FILLED, [1000, 0, 0])];
    assert!(decided(most, ResetMethod::Delete).is_ok());
    for smaller in [[8_192, 8_192], [16_384, 0], [24_576, 0]] {
        assert_eq!(decide(smaller), Err(Reason::ReferenceRows), "{smaller:?}");
    }
}

/// A plan for all kinds of tables, the evidence before and after it, and the deleted rows.
fn reset() -> (Plan, Evidence, Evidence, BTreeMap<Oid, i64>, Sizes) {
    let changes: &[(Oid, Tuples)] = &[
        (EMPTY, [3, 0, 0]),
        (TOAST, [2, 0, 0]),
        (PARENT, [2000, 0, 0]),
        (FILLED, [1, 0, 0]),
    ];
    let before = with(changes);
    let mut plan = decided(&changes[..2], ResetMethod::Delete).expect("a plan");
    plan.tables.push(TableReset {
        oid: PARENT,
        name: "parent".to_owned(),
        reference: false,
        truncate: true,
    });
    plan.tables.push(TableReset {
        oid: FILLED,
        name: "filled".to_owned(),
        reference: true,
        truncate: false,
    });
    let mut after = before.clone();
    for (oid, change) in [
        (EMPTY, [0, 0, 3]),
        (TOAST, [0, 0, 2]),
        (FILLED, [0, 0, 1]),
        (PG_CLASS, [0, 4, 0]),
    ] {
        write(&mut after, oid, change);
    }
    let sizes = Sizes {
        emptied: 0,
        reference: [(FILLED, [16_384, 8_192, 40_960, 10])].into(),
    };
    (plan, before, after, [(EMPTY, 3), (FILLED, 1)].into(), sizes)
}

#[test]
fn a_complete_reset_is_verified() {
    let (plan, before, after, deleted, sizes) = reset();
    assert_eq!(
        verify(&plan, &before, &after, &deleted, &sizes, &profile()),
        Ok(())
    );
}

#[test]
fn anything_that_the_reset_does_not_explain_is_noticed() {
    type Spoil = fn(&mut Evidence, &mut BTreeMap<Oid, i64>, &mut Sizes);
    let spoils: [(Reason, Spoil); 21] = [
        (Reason::Sessions, |after, _, _| after.backends = 2),
        (Reason::Sessions, |after, _, _| after.sessions += 1),
        (Reason::CountersReset, |after, _, _| after.resets.push('2')),
        (Reason::Sessions, |after, _, _| {
            write(after, PG_PROC, [1, 0, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, PG_PROC, [0, 1, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, PG_PROC, [0, 0, 1])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, EMPTY, [1, 0, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, EMPTY, [0, 1, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, EMPTY, [0, 0, 1])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, PARENT, [0, 0, 1])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, TOAST, [1, 0, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, TOAST, [0, 1, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, TOAST, [0, 0, -3])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, PG_CLASS, [1, 0, 0])
        }),
        (Reason::Sessions, |after, _, _| {
            write(after, PG_CLASS, [0, 0, 1])
        }),
        (Reason::Sessions, |_, deleted, _| {
            deleted.remove(&EMPTY);
        }),
        (Reason::Sessions, |after, deleted, _| {
            // It was truncated, so nothing was deleted from it.
            deleted.insert(PARENT, 1);
            write(after, PARENT, [0, 0, 1]);
        }),
        (Reason::Residue, |_, _, sizes| sizes.emptied = 8192),
        (Reason::Residue, |_, _, sizes| sizes.reference.clear()),
        (Reason::Residue, |_, _, sizes| {
            sizes.reference.entry(FILLED).or_default()[0] -= 8192
        }),
        (Reason::Residue, |_, _, sizes| {
            sizes.reference.entry(FILLED).or_default()[1] += 8192
        }),
    ];
    for (at, (reason, spoil)) in spoils.into_iter().enumerate() {
        let (plan, before, mut after, mut deleted, mut sizes) = reset();
        spoil(&mut after, &mut deleted, &mut sizes);
        let verified = verify(&plan, &before, &after, &deleted, &sizes, &profile());
        assert_eq!(verified, Err(reason), "{at}");
    }
}

#[test]
fn indexes_may_grow_by_one_page_and_the_rows_are_the_templates() {
    let verified = |indexes, rows| {
        let (plan, before, after, deleted, mut sizes) = reset();
        sizes
            .reference
            .insert(FILLED, [16_384, 8_192, indexes, rows]);
        verify(&plan, &before, &after, &deleted, &sizes, &profile())
    };
    assert_eq!(verified(32_768, 10), Ok(()));
    assert_eq!(verified(32_768 + 8192, 10), Ok(()));
    assert_eq!(verified(32_768 + 8193, 10), Err(Reason::Residue));
    assert_eq!(verified(32_768, 9), Err(Reason::Residue));
    assert_eq!(verified(32_768, 11), Err(Reason::Residue));
}

#[test]
fn without_a_truncation_pg_class_must_not_move() {
    let (mut plan, before, after, deleted, sizes) = reset();
    plan.tables.retain(|table| table.oid != PARENT);
    let verified = verify(&plan, &before, &after, &deleted, &sizes, &profile());
    assert_eq!(verified, Err(Reason::Sessions));
}

proptest! {
    /// A plan resets exactly the relations that moved, and nothing else.
    #[test]
    fn a_plan_covers_what_moved(
        changes in prop::collection::vec((prop::sample::select(vec![EMPTY, PARENT, FILLED, ALWAYS, VIEW, TOAST, PG_CLASS, PG_PROC]), [0..60_000i64, 0..3, 0..3]), 0..5),
        truncate: bool,
    ) {
        let method = if truncate { ResetMethod::Truncate } else { ResetMethod::Delete };
        let now = with(&changes);
        let Ok(moved) = moved(&baseline(), &now) else { return Ok(()) };
        let Ok(plan) = decide(&moved, Some(&class()).filter(|_| moved.class), &profile(), method) else { return Ok(()) };
        let mut covered: Vec<Oid> = plan.tables.iter().map(|table| table.oid).chain(plan.toast.iter().copied()).collect();
        covered.sort_unstable();
        prop_assert_eq!(covered, moved.relations.keys().copied().collect::<Vec<_>>());
        for table in &plan.tables {
            let [inserted, updated, deleted] = moved.relations[&table.oid];
            prop_assert!(!table.reference || (updated == 0 && deleted == 0 && inserted <= 1000 && !table.truncate));
            prop_assert!(table.truncate || inserted + updated <= 1000);
        }
    }
}

/// A session on a clone with three new rows in [`EMPTY`]. Another process has pinned its page during the first VACUUMs.
struct Pinned {
    times: usize,
    vacuums: usize,
    is_reset: bool,
}

impl TextSession for Pinned {
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, Sqlx>> {
        let row = |columns: &[&str]| -> TextRow {
            let columns = columns.iter();
            columns
                .map(|column| (!column.is_empty()).then(|| (*column).to_owned()))
                .collect()
        };
        let rows = if sql.contains("session_replication_role") {
            self.is_reset = true;
            vec![row(&["16384"]); 3]
        } else if sql.starts_with("VACUUM") {
            self.vacuums += 1;
            Vec::new()
        } else if sql.contains("pg_stat_get_db_sessions") {
            let deleted = if self.is_reset { "3" } else { "0" };
            let size = if self.vacuums > self.times {
                "0"
            } else {
                "8192"
            };
            let mut rows = vec![
                row(&["4", "1", "3", "0", deleted, "9", "", "1", "f"]),
                row(&["16384", "3", "0", deleted]),
            ];
            if self.is_reset {
                rows.push(row(&[size, "0", "0", "0", "0", "0", "0", "0", "0", "0"]));
            }
            rows
        } else {
            vec![row(&["on", ""]), row(&["on", "on", ""])]
        };
        Box::pin(async { Ok(rows) })
    }
}

#[tokio::test]
async fn a_vacuum_that_skips_a_pinned_page_is_repeated_some_times() {
    let baseline = Baseline {
        seen: Seen {
            sessions: 3,
            resets: "1".to_owned(),
            template: 5,
            ..Seen::default()
        },
        ..Baseline::default()
    };
    for (times, cleaned) in [(0, true), (1, true), (5, true), (6, false)] {
        let mut session = Pinned {
            times,
            vacuums: 0,
            is_reset: false,
        };
        let profile = || {
            let mut profile = profile();
            profile.relations.retain(|oid, _| *oid == EMPTY);
            Some(profile)
        };
        let cleaning = clean(&mut session, &baseline, profile, ResetMethod::Delete).await;
        match cleaning.expect("no error") {
            Cleaning::Cleaned(_) => assert!(cleaned, "{times}"),
            Cleaning::Dirty(reason) => assert_eq!((reason, cleaned), (Reason::Residue, false)),
        }
        assert_eq!(session.vacuums, (times + 1).min(6));
    }
}

#[test]
fn pages_beyond_those_of_the_template_may_be_returned_by_another_vacuum() {
    for (emptied, heap, expected) in [
        (0, 16_384, false),
        (0, 8_192, false),
        (0, 24_576, true),
        (8_192, 16_384, true),
    ] {
        let sizes = Sizes {
            emptied,
            reference: [(FILLED, [heap, 8_192, 32_768, 10])].into(),
        };
        assert_eq!(sizes.are_too_large(&profile()), expected, "{sizes:?}");
    }
}

#[test]
fn the_next_baseline_has_the_new_evidence_and_what_only_other_databases_see() {
    let last = Baseline {
        database: 7,
        uses: 3,
        ..baseline()
    };
    let now = Evidence {
        xid: 99,
        ..with(&[(EMPTY, [3, 0, 3])])
    };
    let next = now.clone().baseline(&last);
    assert_eq!((next.database, next.uses, next.xid), (7, 4, 99));
    assert_eq!(
        (&next.counters, &next.sequences),
        (&now.counters, &now.sequences)
    );
    let seen = Seen {
        sessions: now.sessions,
        tuples: now.tuples,
        resets: now.resets,
        ..last.seen
    };
    assert_eq!(next.seen, seen);
}
