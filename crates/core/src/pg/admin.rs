//! An administrative session: a direct connection to the maintenance database, and the statements on it.
//!
//! All statements use the simple protocol: one round trip per call, with several statements in it if that saves round trips. Each has a time limit. A
//! crash ends the session, which frees its locks; the server completes or rolls back the statement that was running.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Decode, Error as Sqlx, Postgres, Row, Type};

use crate::address::Address;
use crate::pg::connect::{ATTEMPT_TIMEOUT, RetryLimits, lock_session};
use crate::pg::error::{Context, PgError};
use crate::pg::own::OwnSession;
use crate::pg::session::{DATABASE_LIMIT, STATEMENT_LIMIT, Session};
use crate::platform::disk;
use crate::sqlstate;

/// Identity of the server process that answers at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    /// The cluster's system identifier, from initdb.
    pub cluster: String,
    /// Start time of the server.
    pub started: String,
}

/// A session in the maintenance database.
#[derive(Debug)]
pub struct Admin {
    session: Session,
    address: Address,
    /// Whether the session has prepared the query of [`Self::seen`].
    pub(super) has_prepared_seen: bool,
    /// Set if a signal must end the session.
    pub(super) own: Option<OwnSession>,
}

impl Admin {
    /// Connects to a maintenance database for administrative work.
    ///
    /// # Errors
    /// See [`Session::connect`].
    pub async fn connect(
        address: &Address,
        database: &str,
        purpose: &str,
        limits: RetryLimits,
    ) -> Result<Self, PgError> {
        let options = lock_session(address.options(database))
            .application_name(&format!("kapsel-testdb {purpose}"));
        let session = Session::connect(address, &options, limits).await?;
        Ok(Self {
            session,
            address: address.clone(),
            has_prepared_seen: false,
            own: None,
        })
    }

    /// Closes the session; the server frees its locks.
    pub async fn close(self) {
        let _ = self.session.close(|| "close a session".to_owned()).await;
    }

    /// Runs statements that read, or change what no other session holds for long.
    pub(super) async fn run(
        &mut self,
        sql: String,
        context: impl FnOnce() -> String,
    ) -> Result<(), PgError> {
        self.run_within(STATEMENT_LIMIT, &sql, context).await
    }

    /// Runs statements that create, change or drop a database.
    pub(super) async fn change_database(
        &mut self,
        sql: &str,
        context: impl FnOnce() -> String,
    ) -> Result<(), PgError> {
        self.run_within(DATABASE_LIMIT, sql, context).await
    }

    async fn run_within(
        &mut self,
        limit: Duration,
        sql: &str,
        context: impl FnOnce() -> String,
    ) -> Result<(), PgError> {
        match self.session.execute(sql, limit, context).await {
            Err(error) if error.is(sqlstate::DISK_FULL) => Err(PgError::WithRemedy {
                remedy: self.no_space_message(&error.to_string()).await,
                cause: Box::new(error),
            }),
            result => result,
        }
    }

    /// The message for a lack of space that the server reports with `error`. If the server is on this host, it names the place and its size.
    pub async fn no_space_message(&mut self, error: &str) -> String {
        let directory = match self.data_directory().await {
            Ok(path) if self.address.is_local() => Some(PathBuf::from(path)),
            _ => None,
        };
        disk::no_space_message(error, directory.as_deref())
    }

    pub(super) async fn rows(&mut self, sql: String, context: &str) -> Result<Vec<PgRow>, PgError> {
        self.rows_within(STATEMENT_LIMIT, &sql, context).await
    }

    pub(super) async fn rows_within(
        &mut self,
        limit: Duration,
        sql: &str,
        context: &str,
    ) -> Result<Vec<PgRow>, PgError> {
        self.session.rows(sql, limit, || context.to_owned()).await
    }

    /// The first column of the first row of a query.
    pub(super) async fn value<T>(&mut self, sql: String, context: &str) -> Result<T, PgError>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let rows = self.rows(sql, context).await?;
        rows.first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get(0))
            .context(|| context.to_owned())
    }

    /// Reads the identity of the server.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn postmaster(&mut self) -> Result<Postmaster, PgError> {
        let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS cluster, \
                   pg_postmaster_start_time()::text AS started";
        let context = "identify the server";
        let rows = self.rows(sql.to_owned(), context).await?;
        let row = rows.last().ok_or(Sqlx::RowNotFound);
        let read = row.and_then(|row| {
            Ok(Postmaster {
                cluster: row.try_get("cluster")?,
                started: row.try_get("started")?,
            })
        });
        read.context(|| context.to_owned())
    }

    /// Checks that the session, and with it every lock, still exists.
    ///
    /// # Errors
    /// The session is lost, or the server did not answer in time.
    pub async fn verify(&mut self) -> Result<(), PgError> {
        let context = || "reach the server on the run's administrative session".to_owned();
        self.run_within(ATTEMPT_TIMEOUT, "SELECT 1", context).await
    }

    /// The server's data directory. Only superusers and members of `pg_read_all_settings` may read it.
    ///
    /// # Errors
    /// The statement failed: 42501 if the role lacks the privilege.
    pub async fn data_directory(&mut self) -> Result<String, PgError> {
        let context = "read the setting `data_directory`";
        let sql = "SELECT current_setting('data_directory') AS path".to_owned();
        self.value(sql, context).await
    }

    /// The server's uptime.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn uptime(&mut self) -> Result<Duration, PgError> {
        let sql = "SELECT greatest(0, extract(epoch FROM now() - pg_postmaster_start_time()))::int8 AS seconds";
        let seconds: i64 = self
            .value(sql.to_owned(), "read the server's uptime")
            .await?;
        Ok(Duration::from_secs(seconds.unsigned_abs()))
    }

    /// Counts client sessions on the server.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn count_connections(&mut self) -> Result<i64, PgError> {
        let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend'";
        self.value(sql.to_owned(), "count connections").await
    }

    /// The address of the server.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}
