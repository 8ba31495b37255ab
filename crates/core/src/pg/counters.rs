//! Statistics counters of a database, which show whether anything was written to it.

use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::sql::literal;
use crate::protocol::DbName;

/// Statistics counters of a database, read without a connection to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counters {
    /// Rows written to its tables, including catalogs and transactions that were rolled back.
    pub written: i64,
    /// Number of transactions.
    pub transactions: i64,
    /// Whether the server counts written rows (`track_counts`).
    pub counts: bool,
    /// Seconds since the counters were reset; a crash resets them.
    pub counting_for: Option<f64>,
    /// The server's clock, in seconds since 1970.
    pub now: f64,
}

impl Admin {
    /// Waits until complete counters can be read: before PostgreSQL 15 they come from a file that may be 0.5 s old.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn wait_for_counters(&mut self) -> Result<(), PgError> {
        let sql = "SELECT pg_sleep(0.6) WHERE current_setting('server_version_num')::int4 < 150000";
        self.run(sql.to_owned(), || "wait for the counters".to_owned())
            .await
    }

    /// Reads a database's counters.
    ///
    /// # Errors
    /// The statement failed, or there is no such database.
    pub async fn counters(&mut self, name: &DbName) -> Result<Counters, PgError> {
        let context = "read the counters of a database";
        let sql = format!(
            "SELECT d.tup_inserted + d.tup_updated + d.tup_deleted AS written, \
               d.xact_commit + d.xact_rollback AS transactions, \
               current_setting('track_counts')::bool AS counts, \
               extract(epoch FROM clock_timestamp() - b.stats_reset)::float8 AS counting_for, \
               extract(epoch FROM clock_timestamp())::float8 AS now \
             FROM pg_stat_database d, pg_stat_bgwriter b WHERE d.datname = {}",
            literal(&name.to_string())
        );
        let rows = self.rows(sql, context).await?;
        let read = || {
            let row = rows.first().ok_or(Sqlx::RowNotFound)?;
            Ok(Counters {
                written: row.try_get("written")?,
                transactions: row.try_get("transactions")?,
                counts: row.try_get("counts")?,
                counting_for: row.try_get("counting_for")?,
                now: row.try_get("now")?,
            })
        };
        read().context(|| context.to_owned())
    }
}
