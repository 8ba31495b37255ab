//! The server's counters: which tables of a shared clone tests wrote to, committed or not.

use std::time::{Duration, Instant, SystemTime};

use sqlx::Row;
use sqlx::postgres::PgRow;

use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::counters::Counters;
use kapsel_testdb_core::protocol::{DbName, RunFile, UseEvent};

use crate::compare::{ComparisonSession, Scope, Suspects};
use crate::pollution::suspects::Clock;

/// How long to wait for the last sessions to end by themselves. Later ones belong to a pooler or a killed client.
const SESSION_GRACE: Duration = Duration::from_millis(500);
/// How long to wait in total, including terminated sessions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Tables that were written to, including catalogs. Excluded: shared catalogs, which other databases also write, and statistics, which
/// autovacuum writes.
const WRITTEN: &str = "SELECT s.schemaname::text AS schema, s.relname::text AS name, \
     format('%I.%I', s.schemaname, s.relname) AS quoted \
   FROM pg_stat_all_tables s JOIN pg_class c ON c.oid = s.relid \
   WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND NOT c.relisshared \
     AND s.schemaname NOT LIKE 'pg\\_toast%' AND s.schemaname NOT LIKE 'pg\\_temp%' \
     AND s.relname NOT IN ('pg_statistic', 'pg_statistic_ext_data')";

/// The inputs of a comparison that is worth making.
pub(super) struct Evidence {
    /// What may differ.
    pub scope: Scope,
    /// A session on the shared clone.
    pub session: ComparisonSession,
    /// The offset between the server's clock and ours.
    pub clock: Clock,
}

/// Checks whether anything may have been committed. `None`: nothing was.
///
/// # Errors
/// The server cannot be used.
pub(super) async fn collect(
    admin: &mut Admin,
    file: &RunFile,
    shared: &DbName,
    used: bool,
) -> Result<Option<Evidence>, PgError> {
    let complete = wait_for_sessions(admin, shared).await?;
    let (begun, asked) = (Instant::now(), UseEvent::now());
    let counters = admin.counters(shared).await?;
    let clock = Clock::new(asked, counters.now, begun.elapsed());
    let settings = admin.database_settings(shared).await?;
    let reliable = complete && counters.counts && !were_reset(&counters, file);
    let same_settings = is_same_set(&settings, &file.settings);
    let idle = if reliable {
        counters.written == 0 && same_settings
    } else {
        complete && counters.transactions == 0 && !used
    };
    if idle {
        return Ok(None);
    }
    let address = file.admin_address();
    let mut session = ComparisonSession::open(address, shared).await?;
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

/// Waits until the sessions on the database have ended, because only then the counters are complete. False if some do not end.
async fn wait_for_sessions(admin: &mut Admin, shared: &DbName) -> Result<bool, PgError> {
    let begun = Instant::now();
    let mut ended = false;
    let complete = loop {
        if admin.count_sessions(shared).await? == 0 {
            break true;
        }
        if begun.elapsed() > SESSION_GRACE && !ended {
            admin.end_sessions(shared).await?;
            ended = true;
        }
        if begun.elapsed() > SESSION_TIMEOUT {
            break false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    admin.wait_for_counters().await?;
    Ok(complete)
}

/// Whether the server lost its counters during the run, as a crash does.
fn were_reset(counters: &Counters, file: &RunFile) -> bool {
    let run = SystemTime::now().duration_since(file.run.created_at());
    // A run's id contains its start time in whole seconds.
    let run = run.unwrap_or_default().as_secs_f64() - 1.0;
    counters.counting_for.is_some_and(|time| time < run)
}

fn is_same_set(one: &[String], other: &[String]) -> bool {
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    sorted(one) == sorted(other)
}

async fn suspects(session: &mut ComparisonSession) -> Result<Suspects, PgError> {
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
