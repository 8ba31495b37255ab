//! Resets the tables and sequences of a plan. Triggers and foreign keys do not fire: `session_replication_role` is `replica`.

use std::collections::BTreeMap;

use sqlx::Error as Sqlx;

use super::decide::{Plan, TableReset};
use super::session::{TextSession, number};
use crate::protocol::Oid;

/// Runs the plan. `xid` is the transaction id of the baseline: rows of reference tables with this id or a younger one are removed. Returns how many
/// rows were deleted per table.
pub(super) async fn run(
    session: &mut dyn TextSession,
    plan: &Plan,
    xid: u64,
) -> Result<BTreeMap<Oid, i64>, Sqlx> {
    let mut deleted = BTreeMap::new();
    for row in session.texts(&statements(plan, xid)).await? {
        // A row per deleted one, with the table's oid.
        if row.len() == 1 {
            *deleted.entry(number(&row, 0)?).or_default() += 1;
        }
    }
    run_vacuum(session, plan).await?;
    Ok(deleted)
}

/// Runs the VACUUM of a plan.
pub(super) async fn run_vacuum(session: &mut dyn TextSession, plan: &Plan) -> Result<(), Sqlx> {
    if let Some(vacuum) = vacuum(plan) {
        session.texts(&vacuum).await?;
    }
    Ok(())
}

/// All statements that can run in one transaction, and the flush of the counters at its end.
fn statements(plan: &Plan, xid: u64) -> String {
    let mut sql = String::from("SET session_replication_role = replica; ");
    let truncated: Vec<&str> = plan
        .tables
        .iter()
        .filter(|t| t.truncate)
        .map(|t| t.name.as_str())
        .collect();
    if !truncated.is_empty() {
        sql.push_str(&format!("TRUNCATE ONLY {}; ", truncated.join(", ONLY ")));
    }
    for table in plan.tables.iter().filter(|t| !t.truncate) {
        sql.push_str(&delete(table, xid));
    }
    for (oid, state) in &plan.sequences {
        let (last, called) = (state.last, state.called);
        sql.push_str(&format!("SELECT setval({oid}, {last}, {called}), ''; "));
    }
    sql.push_str("SELECT pg_stat_force_next_flush(), ''");
    sql
}

fn delete(table: &TableReset, xid: u64) -> String {
    let (oid, name) = (table.oid, &table.name);
    // The system column has 32 bits; `age` compares them with the current transaction, modulo 2^32.
    let young = if table.reference {
        format!(" WHERE age(xmin) <= age('{}'::xid)", xid & 0xffff_ffff)
    } else {
        String::new()
    };
    format!("DELETE FROM ONLY {name}{young} RETURNING {oid}; ")
}

/// VACUUM returns the pages to the operating system, and makes `reltuples` what it was: after TRUNCATE it is -1, for which the planner assumes ten
/// pages, and a VACUUM that skips pages only estimates it. It must be alone in its message.
fn vacuum(plan: &Plan) -> Option<String> {
    (!plan.vacuum.is_empty()).then(|| {
        format!(
            "VACUUM (INDEX_CLEANUP ON, TRUNCATE ON, DISABLE_PAGE_SKIPPING ON, PARALLEL 0, PROCESS_TOAST OFF) {}",
            plan.vacuum.join(", ")
        )
    })
}
