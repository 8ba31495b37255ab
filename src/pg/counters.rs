//! What the server counts of a database: whether anything was written to it.

use sqlx::{Error as Sqlx, Row};

use super::admin::Admin;
use super::error::{Doing, PgError};
use super::sql::literal;
use crate::name::DbName;

/// What the server says of a database without anybody connecting to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counters {
    /// Rows written to its tables, catalogs included, by whatever was rolled back as well.
    pub written: i64,
    /// Transactions in it.
    pub transactions: i64,
    /// Whether the server counts what is written.
    pub counts: bool,
    /// How many seconds ago the server began to count: a crash begins anew.
    pub counting_for: Option<f64>,
    /// The server's clock, in seconds since 1970.
    pub now: f64,
}

impl Admin {
    /// Waits until counters that are complete can be read: before PostgreSQL 15 they come from a file that may be half a second old.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn wait_for_counters(&mut self) -> Result<(), PgError> {
        let sql = "SELECT pg_sleep(0.6) WHERE current_setting('server_version_num')::int4 < 150000";
        self.run(sql.to_owned(), || "wait for the counters".to_owned())
            .await
    }

    /// Reads a database's counters.
    ///
    /// # Errors
    /// A failed statement; no such database.
    pub async fn counters(&mut self, name: &DbName) -> Result<Counters, PgError> {
        let doing = "read the counters of a database";
        let sql = format!(
            "SELECT d.tup_inserted + d.tup_updated + d.tup_deleted AS written, \
               d.xact_commit + d.xact_rollback AS transactions, \
               current_setting('track_counts')::bool AS counts, \
               extract(epoch FROM clock_timestamp() - b.stats_reset)::float8 AS counting_for, \
               extract(epoch FROM clock_timestamp())::float8 AS now \
             FROM pg_stat_database d, pg_stat_bgwriter b WHERE d.datname = {}",
            literal(&name.to_string())
        );
        let rows = self.rows(sql, doing).await?;
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
        read().doing(|| doing.to_owned())
    }
}
