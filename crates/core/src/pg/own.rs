//! The sessions with which this process prepares a run. If a signal ends the process, it first ends them on the server: while a statement runs,
//! the server does not notice that its client is gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::{PgConnection, Row};

use crate::address::Address;
use crate::pg::admin::Admin;
use crate::pg::connect::RetryLimits;
use crate::pg::error::{Context, PgError};
use crate::pg::session::{STATEMENT_LIMIT, within};
use crate::sqlx_compat::internal;

static SESSIONS: Mutex<Vec<(Address, i32)>> = Mutex::new(Vec::new());

fn sessions() -> MutexGuard<'static, Vec<(Address, i32)>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a session while it is open.
#[derive(Debug)]
pub struct OwnSession {
    backend: i32,
}

impl OwnSession {
    /// Registers the session of a server process.
    pub(super) fn new(address: &Address, backend: i32) -> Self {
        sessions().push((address.clone(), backend));
        Self { backend }
    }

    /// Registers the session of a connection.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn of(connection: &mut PgConnection, address: &Address) -> Result<Self, PgError> {
        let context = || "identify a session".to_owned();
        let identify = async {
            let rows = internal::rows(connection, "SELECT pg_backend_pid() AS backend").await?;
            notice_dead_clients(connection).await;
            Ok(rows)
        };
        let identified = async { identify.await.context(context) };
        let rows = within(STATEMENT_LIMIT, address, context, identified).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound);
        let backend = row.and_then(|row| row.try_get("backend"));
        Ok(Self::new(address, backend.context(context)?))
    }
}

/// If the process dies otherwise, the server notices that within a second. Before version 14, and on some systems, it cannot.
pub async fn notice_dead_clients(connection: &mut PgConnection) {
    let _ = internal::execute(connection, "SET client_connection_check_interval = '1s'").await;
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        sessions().retain(|(_, backend)| *backend != self.backend);
    }
}

/// Ends the registered sessions, and with them their statements.
///
/// # Errors
/// A connection or a statement failed.
pub async fn end_own_sessions(maintenance_database: &str) -> Result<(), PgError> {
    let open = sessions().clone();
    // A process prepares its run on one server.
    let Some((address, _)) = open.first() else {
        return Ok(());
    };
    let backends: Vec<String> = open
        .iter()
        .map(|(_, backend)| backend.to_string())
        .collect();
    let limits = RetryLimits::ONCE;
    let mut admin = Admin::connect(address, maintenance_database, "interrupt", limits).await?;
    // Only sessions that are still ours: a number may be that of a later one.
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ({}) AND usename = current_user",
        backends.join(",")
    );
    admin
        .run(sql, || "end the interrupted sessions".to_owned())
        .await?;
    admin.close().await;
    Ok(())
}
