//! Flaws of the product, injected from outside: each is found by a comparison, or by the demand that ordinary programs' clones are used again. The
//! same steps without the flaw pass.

use futures_util::future::BoxFuture;
use kapsel_testdb_core::platform::{self, Signal};
use kapsel_testdb_core::protocol::{DbName, Reason, ResetMethod};
use kapsel_testdb_core::recycle::{TextRow, TextSession};
use sqlx::{Connection, Error as Sqlx, PgConnection};

use crate::lab::{Clone, Dropped, Lab, Place, execute, texts};
use crate::oracle::{Depth, Oracle};
use crate::random::{runtime, world};
use crate::support::Server;

/// A session between the product and the server that changes messages, lets another session visit the clone before one, or hides visitors.
struct Doctored {
    session: PgConnection,
    messages: usize,
    /// Text and its replacement.
    rewrite: &'static [(&'static str, &'static str)],
    visit: Option<Visit>,
    /// Reports this number of sessions.
    sessions: Option<i64>,
}

#[derive(Clone)]
struct Visit {
    before_message: usize,
    place: Place,
    name: DbName,
    sql: &'static str,
    /// Sessions that are there anyway.
    others: u32,
}

impl Visit {
    async fn pay(self) {
        let mut visitor = self.place.program(&self.name).await;
        execute(&mut visitor, self.sql).await;
        visitor.close().await.expect("the visitor leaves");
        let mut admin = self.place.connect("postgres").await;
        let sql = format!(
            "SELECT 'more than the cleaner' FROM pg_stat_activity WHERE datname = '{}' HAVING count(*) > {}",
            self.name, self.others
        );
        while !texts(&mut admin, &sql).await.is_empty() {
            tokio::task::yield_now().await;
        }
        admin.close().await.expect("closed");
    }
}

impl TextSession for Doctored {
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, Sqlx>> {
        Box::pin(async move {
            let visit = self
                .visit
                .take_if(|visit| visit.before_message == self.messages);
            if let Some(visit) = visit {
                visit.pay().await;
            }
            self.messages += 1;
            let rewrite = |sql: String, (from, to): &(&str, &str)| sql.replace(from, to);
            let sql = self.rewrite.iter().fold(sql.to_owned(), rewrite);
            let mut rows = self.session.texts(&sql).await?;
            for row in &mut rows {
                // What the server reports about the database begins with the number of sessions.
                if let (9, Some(sessions)) = (row.len(), self.sessions) {
                    row[0] = Some(sessions.to_string());
                }
            }
            Ok(rows)
        })
    }
}

struct World {
    lab: Lab,
    oracle: Oracle,
    _server: Server,
}

impl World {
    async fn new() -> Self {
        let (server, lab, oracle) = world().await;
        Self {
            lab,
            oracle,
            _server: server,
        }
    }

    async fn doctored(&self, clone: &Clone) -> Doctored {
        let session = self.lab.place.program(&clone.name).await;
        Doctored {
            session,
            messages: 0,
            rewrite: &[],
            visit: None,
            sessions: None,
        }
    }

    /// Cleans, closes and renames.
    async fn recycle(&mut self, clone: &mut Clone, mut session: Doctored) -> Result<(), Dropped> {
        let cleaned = self
            .lab
            .clean(clone, &mut session, ResetMethod::Delete)
            .await;
        session.session.close().await.expect("closed");
        self.lab.renew(clone, cleaned?).await
    }

    async fn differs(&self, clone: &Clone) -> bool {
        let differences = self.oracle.differences(&self.lab.place, clone, Depth::Use);
        differences.await.is_some()
    }
}

#[test]
fn a_stale_flush_is_found() {
    const STALE: &[(&str, &str)] = &[
        ("pg_catalog.pg_stat_force_next_flush()", "''"),
        ("pg_stat_force_next_flush()", "''"),
    ];
    runtime().block_on(async {
        let mut world = World::new().await;
        for (rewrite, flawed) in [(STALE, true), (&[], false)] {
            // The server flushes by itself what is older than a second, so the flaw shows only if the machine is not too busy.
            let mut found = false;
            for _ in 0..10 {
                let mut clone = world.lab.fresh().await;
                let mut session = world.doctored(&clone).await;
                session.rewrite = rewrite;
                execute(&mut session.session, "SELECT nextval('app.used_seq')").await;
                let recycled = world.recycle(&mut clone, session).await;
                found = recycled == Ok(()) && world.differs(&clone).await;
                world.lab.drop(&clone).await;
                if found {
                    break;
                }
            }
            assert_eq!(found, flawed);
        }
    });
}

/// Between the creation and the last baseline, no rows are left in a reference table, so the older transaction id removes the same rows. A younger one
/// than the baseline's leaves rows, and the verification notices.
#[test]
fn xmin_against_the_creation_is_redundant_but_a_late_one_is_found() {
    const ROWS: &str =
        "INSERT INTO app.ref_big (v) VALUES ('new'); INSERT INTO app.ref_small (v) VALUES ('new')";
    runtime().block_on(async {
        let mut world = World::new().await;
        let mut clone = world.lab.fresh().await;
        let created = clone.baseline.xid;
        for _ in 0..3 {
            clone.baseline.xid = created;
            let mut session = world.doctored(&clone).await;
            execute(&mut session.session, ROWS).await;
            assert_eq!(world.recycle(&mut clone, session).await, Ok(()));
        }
        assert!(!world.differs(&clone).await);
        world.lab.drop(&clone).await;
        let mut clone = world.lab.fresh().await;
        let mut session = world.doctored(&clone).await;
        execute(&mut session.session, ROWS).await;
        clone.baseline.xid += 100;
        let recycled = world.recycle(&mut clone, session).await;
        assert_eq!(recycled, Err(Dropped::Cleaning(Reason::Residue)));
    });
}

#[test]
fn counting_shared_catalogs_is_found() {
    // Shared catalogs have counters of their own, under the oid 0.
    const SHARED: &[(&str, &str)] = &[(
        "pg_stat_get_db_tuples_inserted(",
        "pg_stat_get_db_tuples_inserted(0) + pg_stat_get_db_tuples_inserted(",
    )];
    runtime().block_on(async {
        let mut world = World::new().await;
        let mut postgres = world.lab.place.connect("postgres").await;
        for (rewrite, expected) in [
            (SHARED, Err(Dropped::Cleaning(Reason::Catalog))),
            (&[], Ok(())),
        ] {
            let mut clone = world.lab.fresh().await;
            execute(
                &mut postgres,
                "CREATE ROLE passing; COMMENT ON ROLE passing IS 'x'; DROP ROLE passing",
            )
            .await;
            execute(&mut postgres, "SELECT pg_stat_force_next_flush()").await;
            let mut session = world.doctored(&clone).await;
            session.rewrite = rewrite;
            assert_eq!(world.recycle(&mut clone, session).await, expected);
        }
    });
}

/// A product that does not compare the rows written to all relations with those that it knows about, and so forgets catalogs.
#[test]
fn forgotten_catalogs_are_found_after_the_rename() {
    const NONE: &[(&str, &str)] = &[
        (
            "pg_stat_get_db_tuples_inserted(",
            "0 * pg_stat_get_db_tuples_inserted(",
        ),
        (
            "pg_stat_get_db_tuples_updated(",
            "0 * pg_stat_get_db_tuples_updated(",
        ),
        (
            "pg_stat_get_db_tuples_deleted(",
            "0 * pg_stat_get_db_tuples_deleted(",
        ),
    ];
    runtime().block_on(async {
        let mut world = World::new().await;
        for (rewrite, expected) in [
            (NONE, Dropped::Renamed(Reason::Sessions)),
            (&[], Dropped::Cleaning(Reason::Catalog)),
        ] {
            let mut clone = world.lab.fresh().await;
            let mut session = world.doctored(&clone).await;
            session.rewrite = rewrite;
            execute(
                &mut session.session,
                "CREATE FUNCTION app.extra() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            )
            .await;
            assert_eq!(world.recycle(&mut clone, session).await, Err(expected));
        }
    });
}

/// The row is in the log before the crash.
const LASTING: &str =
    "SET synchronous_commit = on; INSERT INTO app.ref_small (v) VALUES ('before the crash')";

#[test]
fn the_zeros_after_a_crash_are_found() {
    runtime().block_on(async {
        let mut world = World::new().await;
        let (mut clone, mut ignorant) = (world.lab.fresh().await, world.lab.fresh().await);
        for clone in [&clone, &ignorant] {
            let mut session = world.lab.place.program(&clone.name).await;
            execute(&mut session, LASTING).await;
            session.close().await.expect("closed");
        }
        let mut victim = world.lab.place.connect("postgres").await;
        let pid = texts(&mut victim, "SELECT pg_backend_pid()::text")
            .await
            .concat()
            .concat();
        let before = world
            .lab
            .last_reset()
            .await
            .expect("when counters were reset");
        platform::signal(pid.parse().expect("a pid"), Signal::KILL).expect("killed");
        world.lab = world.lab.after_crash(&before).await;
        let session = world.doctored(&clone).await;
        let recycled = world.recycle(&mut clone, session).await;
        assert_eq!(recycled, Err(Dropped::Cleaning(Reason::CountersReset)));
        // A product that does not look when the counters were reset.
        ignorant.baseline.seen.resets = world.lab.resets(&ignorant).await;
        let session = world.doctored(&ignorant).await;
        assert_eq!(world.recycle(&mut ignorant, session).await, Ok(()));
        assert!(world.differs(&ignorant).await);
    });
}

#[test]
fn a_write_between_evidence_and_baseline_is_found() {
    const WRITES: [&str; 2] = [
        "INSERT INTO app.ref_small (v) VALUES ('visitor'); SELECT nextval('app.used_seq')",
        "SELECT nextval('app.used_seq')",
    ];
    runtime().block_on(async {
        let mut world = World::new().await;
        let mut dropped = 0;
        for (sql, before_message) in WRITES
            .iter()
            .flat_map(|sql| (0..5).map(move |at| (*sql, at)))
        {
            let mut clone = world.lab.fresh().await;
            let mut session = world.doctored(&clone).await;
            execute(
                &mut session.session,
                "INSERT INTO app.ref_small (v) VALUES ('x'); INSERT INTO app.bare VALUES (1)",
            )
            .await;
            let (place, name) = (world.lab.place.clone(), clone.name.clone());
            session.visit = Some(Visit {
                before_message,
                place,
                name,
                sql,
                others: 1,
            });
            let recycled = world.recycle(&mut clone, session).await;
            // Before the counters are read first, a visit is part of what is undone.
            assert!(
                recycled.is_err() || before_message <= 1,
                "a visit before message {before_message}"
            );
            dropped += usize::from(recycled.is_err());
            assert!(recycled.is_err() || !world.differs(&clone).await);
            world.lab.drop(&clone).await;
        }
        assert!(dropped >= 2 * 3);
        visit_before_the_rename(&mut world).await;
        visit_that_is_hidden(&mut world).await;
    });
}

async fn visit_before_the_rename(world: &mut World) {
    let mut clone = world.lab.fresh().await;
    let mut session = world.doctored(&clone).await;
    let cleaned = world
        .lab
        .clean(&clone, &mut session, ResetMethod::Delete)
        .await;
    session.session.close().await.expect("closed");
    let (place, name, sql) = (
        world.lab.place.clone(),
        clone.name.clone(),
        "SELECT nextval('app.used_seq')",
    );
    Visit {
        before_message: 0,
        place,
        name,
        sql,
        others: 0,
    }
    .pay()
    .await;
    let renewed = world.lab.renew(&mut clone, cleaned.expect("cleaned")).await;
    assert_eq!(renewed, Err(Dropped::Renamed(Reason::Sessions)));
    world.lab.drop(&clone).await;
}

/// A product that does not count sessions.
async fn visit_that_is_hidden(world: &mut World) {
    let mut clone = world.lab.fresh().await;
    let mut session = world.doctored(&clone).await;
    execute(&mut session.session, "INSERT INTO app.bare VALUES (1)").await;
    let (place, name, sql) = (
        world.lab.place.clone(),
        clone.name.clone(),
        "SELECT nextval('app.used_seq')",
    );
    session.visit = Some(Visit {
        before_message: 2,
        place,
        name,
        sql,
        others: 1,
    });
    session.sessions = Some(2);
    assert_eq!(world.recycle(&mut clone, session).await, Ok(()));
    assert!(world.differs(&clone).await);
}
