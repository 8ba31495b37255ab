//! What the server's counters say: which tables of a shared clone tests wrote to, whether it stayed or not.

use std::time::{Duration, Instant, SystemTime};

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::suspects::Clock;
use crate::compare::{Scope, Session, Suspects};
use crate::name::DbName;
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::counters::Counters;
use crate::run_dir::{RunFile, UseEvent};

/// How long the last sessions may take to go by themselves. What is left is a pooler's, or a killed client's.
const LAST_SESSIONS: Duration = Duration::from_millis(500);
/// How long ended ones may take.
const ENDED_SESSIONS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Tables that were written to, catalogs included. Not those of the cluster, which is not this database alone, and not statistics,
/// which autovacuum writes.
const WRITTEN: &str = "SELECT s.schemaname::text AS schema, s.relname::text AS name, \
     format('%I.%I', s.schemaname, s.relname) AS quoted \
   FROM pg_stat_all_tables s JOIN pg_class c ON c.oid = s.relid \
   WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND NOT c.relisshared \
     AND s.schemaname NOT LIKE 'pg\\_toast%' AND s.schemaname NOT LIKE 'pg\\_temp%' \
     AND s.relname NOT IN ('pg_statistic', 'pg_statistic_ext_data')";

/// Why a comparison is worth its while, and what it needs.
pub(super) struct Evidence {
    /// What may differ.
    pub scope: Scope,
    /// A session on the shared clone.
    pub session: Session,
    /// How the server's clock and ours differ.
    pub clock: Clock,
}

/// Looks whether anything can have been committed. `None`: nothing.
///
/// # Errors
/// The server cannot be used.
pub(super) async fn evidence(
    admin: &mut Admin,
    file: &RunFile,
    shared: &DbName,
    used: bool,
) -> Result<Option<Evidence>, PgError> {
    settle(admin, shared).await?;
    let (begun, asked) = (Instant::now(), UseEvent::now());
    let counters = admin.counters(shared).await?;
    let clock = Clock::new(asked, counters.now, begun.elapsed());
    let settings = admin.database_settings(shared).await?;
    let reliable = counters.counts && !began_anew(&counters, file);
    let same_settings = same_lines(&settings, &file.settings);
    let idle = if reliable {
        counters.written == 0 && same_settings
    } else {
        counters.transactions == 0 && !used
    };
    if idle {
        return Ok(None);
    }
    let address = file.admin_address();
    let mut session = Session::open(address, shared).await?;
    let scope = if reliable {
        let mut suspects = suspects(&mut session).await?;
        suspects.schema |= !same_settings;
        if suspects == Suspects::default() {
            session.close().await;
            return Ok(None);
        }
        Scope::Suspects(suspects)
    } else {
        Scope::Everything
    };
    Ok(Some(Evidence {
        scope,
        session,
        clock,
    }))
}

/// Waits until the sessions on the database are gone: a session's counters are complete then.
async fn settle(admin: &mut Admin, shared: &DbName) -> Result<(), PgError> {
    let begun = Instant::now();
    let mut ended = false;
    while admin.sessions_on(shared).await? > 0 {
        if begun.elapsed() > LAST_SESSIONS && !ended {
            admin.end_sessions(shared).await?;
            ended = true;
        }
        if begun.elapsed() > ENDED_SESSIONS {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    admin.wait_for_counters().await
}

/// Whether the server lost its counters during the run: it crashed.
fn began_anew(counters: &Counters, file: &RunFile) -> bool {
    let run = SystemTime::now().duration_since(file.run.created_at());
    // A run's id knows its beginning to the second.
    let run = run.unwrap_or_default().as_secs_f64() - 1.0;
    counters.counting_for.is_some_and(|time| time < run)
}

fn same_lines(one: &[String], other: &[String]) -> bool {
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    sorted(one) == sorted(other)
}

async fn suspects(session: &mut Session) -> Result<Suspects, PgError> {
    let read = |row: &PgRow| {
        let text = |column| row.try_get::<String, _>(column);
        Ok((text("schema")?, text("name")?, text("quoted")?))
    };
    let written = session.rows(WRITTEN, &"the counters", read).await?;
    let mut suspects = Suspects::default();
    for (schema, name, quoted) in written {
        match (schema.as_str(), name.as_str()) {
            ("pg_catalog", "pg_largeobject" | "pg_largeobject_metadata") => {
                suspects.large_objects = true;
            }
            ("pg_catalog", _) => suspects.schema = true,
            _ => drop(suspects.tables.insert(quoted)),
        }
    }
    Ok(suspects)
}
