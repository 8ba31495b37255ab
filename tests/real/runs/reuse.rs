//! A clone that a test has used is reset and given to the next test, or dropped with a reason.

use kapsel_testdb_core::platform::{self, Signal};
use kapsel_testdb_core::protocol::{EntryState, Reason, ReuseCounts, RunDir};

use crate::processes::child;
use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

/// A project of a superuser: other roles may not reset what a test changed.
pub fn project(server: &Server) -> Project {
    let mut project = Project::on(server);
    project.set("DATABASE_URL", &server.url_of("postgres"));
    project.migration(
        "0003_places",
        "CREATE TABLE places (id int PRIMARY KEY, name text NOT NULL); INSERT INTO places SELECT i, 'place ' || i FROM generate_series(1, 500) i; \
         CREATE TABLE visits (id bigserial PRIMARY KEY, place int REFERENCES places, note text);",
    );
    project
}

/// A test that runs this on a clone of its own.
#[track_caller]
pub fn test(project: &Project, nextest: &FakeNextest, sql: &str) -> Outcome {
    let child = child::command(project, &nextest.exported, "own-sql").env(child::SQL, sql);
    child.run()
}

/// Waits until so many clones were recycled or dropped.
#[track_caller]
pub fn settled(nextest: &FakeNextest, clones: usize) -> ReuseCounts {
    poll_until("used clones are recycled or dropped", PATIENCE, || {
        let counts = RunDir::reuse_counts(&nextest.dir);
        match counts.recycled + counts.dropped >= clones {
            true => Ok(counts),
            false => Err(format!("{counts}\n{}", nextest.keeper_log())),
        }
    })
}

/// What a test does, and whether its clone is recycled.
const TESTS: [(&str, Option<Reason>); 14] = [
    ("SELECT 1", None),
    (
        "INSERT INTO visits (place, note) SELECT 1, repeat('x', 5000) FROM generate_series(1, 40)",
        None,
    ),
    ("INSERT INTO places VALUES (1000, 'new')", None),
    (
        "BEGIN; INSERT INTO visits (place) VALUES (1); ROLLBACK",
        None,
    ),
    (
        "INSERT INTO visits (place) VALUES (1); UPDATE visits SET place = 2; DELETE FROM visits",
        None,
    ),
    ("SELECT setval('visits_id_seq', 77, false)", None),
    (
        "INSERT INTO visits (place) VALUES (1); TRUNCATE visits RESTART IDENTITY",
        None,
    ),
    (
        "INSERT INTO visits (place) SELECT 1 FROM generate_series(1, 2000)",
        None,
    ),
    (
        "UPDATE places SET name = 'other' WHERE id = 1",
        Some(Reason::ReferenceRows),
    ),
    ("CREATE TABLE other (id int)", Some(Reason::Catalog)),
    (
        "BEGIN; CREATE TABLE other (id int); ROLLBACK",
        Some(Reason::Catalog),
    ),
    (
        "SET track_counts = off; INSERT INTO visits (place) VALUES (1)",
        Some(Reason::NotCounted),
    ),
    (
        "SET track_counts = off; INSERT INTO visits (place) VALUES (1); SET track_counts = on",
        Some(Reason::HiddenWrite),
    ),
    (
        "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''mine''', current_database()); END $$",
        Some(Reason::Database),
    ),
];

#[test]
fn what_a_test_did_is_gone_or_its_clone_is() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    for (done, (sql, reason)) in TESTS.iter().enumerate() {
        let before = RunDir::reuse_counts(&nextest.dir);
        test(&project, &nextest, sql).code(0);
        let counts = settled(&nextest, 2 * done + 1);
        assert_eq!(
            counts.recycled - before.recycled,
            usize::from(reason.is_none()),
            "`{sql}`: {counts}"
        );
        if let Some(reason) = reason {
            let count = |counts: &ReuseCounts| counts.reasons.get(reason).copied().unwrap_or(0);
            assert_eq!(count(&counts) - count(&before), 1, "`{sql}`: {counts}");
        }
        let fresh = "DO $$ BEGIN ASSERT (SELECT count(*) FROM visits) = 0; ASSERT (SELECT count(*) FROM places) = 500; \
                     ASSERT (SELECT last_value FROM visits_id_seq) = 1; ASSERT NOT (SELECT is_called FROM visits_id_seq); \
                     ASSERT to_regclass('other') IS NULL; END $$";
        let leased = child::command(&project, &nextest.exported, "own-sql").env(child::SQL, fresh);
        leased.run().code(0);
        settled(&nextest, 2 * done + 2);
    }
    let status = project.run("status -v");
    status.code(0);
    assert!(
        status.stdout.contains("dropped (2 because the"),
        "{status:?}"
    );
    nextest.end();
}

#[test]
fn a_recycled_clone_has_a_new_name_and_the_old_one_leads_nowhere() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    let holder = child::Holder::start(&project, &nextest.exported);
    let name = holder.database.clone();
    holder.end();
    settled(&nextest, 1);
    assert!(
        !server.databases().contains(&name),
        "{:?}",
        server.databases()
    );
    nextest.end();
}

#[test]
fn a_session_that_outlives_its_test_is_ended_before_the_clone_is_recycled() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    let holder = child::Holder::start(&project, &nextest.exported);
    let mut straggler = server.session(&holder.database);
    straggler.execute("INSERT INTO visits (place) VALUES (1)");
    straggler.execute("BEGIN; INSERT INTO visits (place) VALUES (2)");
    holder.end();
    let counts = settled(&nextest, 1);
    assert_eq!((counts.recycled, counts.dropped), (1, 0), "{counts}");
    let empty = "DO $$ BEGIN ASSERT (SELECT count(*) FROM visits) = 0; END $$";
    test(&project, &nextest, empty).code(0);
    drop(straggler);
    nextest.end();
}

#[test]
fn recycling_can_be_turned_off() {
    let server = Server::start();
    let project = project(&server);
    project.config("[run]\nrecycle = \"off\"\n");
    let nextest = FakeNextest::start(&project, "r");
    test(&project, &nextest, "SELECT 1").code(0);
    let counts = settled(&nextest, 1);
    assert_eq!(
        (counts.recycled, counts.dropped, counts.reasons.len()),
        (0, 1, 0),
        "{counts}"
    );
    nextest.end();
    assert_eq!(server.databases_of("spare"), [""; 0]);
}

/// Such a role may not set `session_replication_role`.
#[test]
fn a_role_without_the_rights_recycles_only_what_no_test_changed() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    test(&project, &nextest, "SELECT 1").code(0);
    assert_eq!(settled(&nextest, 1).recycled, 1);
    test(&project, &nextest, "INSERT INTO users VALUES (1)").code(0);
    let counts = settled(&nextest, 2);
    assert_eq!(counts.reasons.get(&Reason::Rights), Some(&1), "{counts}");
    child::run(&project, &nextest.exported, "once").code(0);
    nextest.end();
}

#[test]
fn the_database_of_a_failed_test_is_kept_and_never_recycled() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "panic").code(101);
    nextest.end();
    let kept = server.databases_of("kept");
    assert_eq!(kept.len(), 1, "{:?}", server.databases());
    assert_eq!(
        server.column_in(&kept[0], "SELECT id::text FROM users"),
        ["42"]
    );
}

#[test]
fn many_leases_of_one_process_use_few_clones() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    // The sweep uses the session that cleans clones which their client has not cleaned.
    poll_until("the keeper has swept", PATIENCE, || {
        match nextest.keeper_log().contains("sweep: ") {
            false => Err("not yet".to_owned()),
            true => Ok(()),
        }
    });
    child::run(&project, &nextest.exported, "many").code(0);
    let counts = settled(&nextest, 8);
    assert_eq!(counts.recycled, 8, "{counts}\n{}", nextest.keeper_log());
    nextest.end();
}

/// A slot belongs to a database, but is in no catalog of it.
#[test]
fn a_replication_slot_is_not_left_to_the_next_test() {
    let server = Server::start_with(&["wal_level=logical"]);
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    let slot = "SELECT pg_create_logical_replication_slot('left', 'pgoutput')";
    test(&project, &nextest, slot).code(0);
    let counts = settled(&nextest, 1);
    assert_eq!(counts.reasons.get(&Reason::Database), Some(&1), "{counts}");
    nextest.end();
    let slots = "SELECT slot_name::text FROM pg_replication_slots";
    assert_eq!(server.column_in("postgres", slots), [""; 0]);
}

/// As on a machine that is so busy that the keeper comes too late.
#[test]
fn a_test_takes_over_what_the_keeper_has_not_got_to() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "r");
    let run = RunDir::join(&nextest.dir).expect("a run that lives");
    let keeper = nextest.keeper_pid();
    poll_until("a clone is ready", PATIENCE, || {
        match run.list(EntryState::Ready).len() {
            0 => Err(nextest.keeper_log()),
            _ => Ok(()),
        }
    });
    platform::signal(keeper, Signal::STOP).expect("a keeper to freeze");
    let mut holders = vec![child::Holder::start(&project, &nextest.exported)];
    while !run.list(EntryState::Ready).is_empty() {
        holders.push(child::Holder::start(&project, &nextest.exported));
    }
    let oid = |name: &str| {
        let sql = format!("SELECT oid::text FROM pg_database WHERE datname = '{name}'");
        server.column_in("postgres", &sql)
    };
    let first = holders.pop().expect("one has started");
    let (old, its_oid) = (first.database.clone(), oid(&first.database));
    first.end();
    let second = child::Holder::start(&project, &nextest.exported);
    assert_ne!(second.database, old);
    assert_eq!(oid(&second.database), its_oid, "the same database");
    assert_eq!(run.list(EntryState::Released), []);
    let counts = RunDir::reuse_counts(&nextest.dir);
    assert_eq!((counts.recycled, counts.dropped), (1, 0), "{counts}");
    platform::signal(keeper, Signal::CONT).expect("a frozen keeper");
    let clones = holders.len() + 2;
    second.end();
    for holder in holders {
        holder.end();
    }
    settled(&nextest, clones);
    drop(run);
    nextest.end();
}
