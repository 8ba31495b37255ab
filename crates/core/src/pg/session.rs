//! Time limits for statements. A server can vanish without a word (a VPN, a virtual machine that is switched off), and a backend can be stopped or wait for
//! a lock.
//!
//! A session that exceeded a limit is not used again: its socket closes. As after a crash of this process, the server completes or rolls back the statement,
//! and then frees the session's locks.

use std::fmt::Display;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, Error as Sqlx, PgConnection};
use tokio::time::timeout;

use crate::address::Address;
use crate::pg::connect::{RetryLimits, connect, quiet};
use crate::pg::error::{Context, PgError};
use crate::sqlx_compat::internal;
use crate::waiting::waiting;

/// For statements that read, or change what no other session holds for long.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// For statements that create, change or drop a database, or read all of it: the server copies it (10 GB take a minute), waits for a checkpoint, or waits
/// for another session that does so.
pub const DATABASE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// For a script of the user: a migration, a seed or a fixture.
pub const SCRIPT_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How long a session may take to close.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A connection whose statements have limits.
#[derive(Debug)]
pub struct Session {
    /// `None`: it exceeded a limit.
    connection: Option<PgConnection>,
    server: String,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// See [`connect`].
    pub async fn connect(
        address: &Address,
        options: &PgConnectOptions,
        limits: RetryLimits,
    ) -> Result<Self, PgError> {
        let connection = connect(address, options, limits).await?;
        Ok(Self {
            connection: Some(connection),
            server: address.to_string(),
        })
    }

    /// Runs statements with the simple protocol. `context` completes "failed to …".
    ///
    /// # Errors
    /// A statement failed, or they took longer than `limit`.
    pub async fn execute(
        &mut self,
        sql: &str,
        limit: Duration,
        context: impl FnOnce() -> String,
    ) -> Result<(), PgError> {
        self.rows(sql, limit, context).await.map(drop)
    }

    /// The rows of a query. `context` completes "failed to …".
    ///
    /// # Errors
    /// See [`Self::execute`].
    pub async fn rows(
        &mut self,
        sql: &str,
        limit: Duration,
        context: impl FnOnce() -> String,
    ) -> Result<Vec<PgRow>, PgError> {
        let Some(connection) = &mut self.connection else {
            let reason = "an earlier statement of the session took too long";
            let error = std::io::Error::new(std::io::ErrorKind::NotConnected, reason);
            return Err(Sqlx::Io(error)).context(context);
        };
        // What takes longer, such as copying a database, is no wait for an answer.
        let is_short = limit <= STATEMENT_LIMIT;
        let _waiting = is_short.then(|| {
            let server = &self.server;
            waiting(format_args!("an answer of PostgreSQL at `{server}`"), limit)
        });
        match timeout(limit, internal::rows(connection, sql)).await {
            Ok(result) => result.context(context),
            Err(_) => {
                self.connection = None;
                Err(PgError::no_answer(&self.server, limit, context()))
            }
        }
    }

    /// Closes the session; the server frees its locks.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn close(self, context: impl FnOnce() -> String) -> Result<(), PgError> {
        match self.connection {
            Some(connection) => close(connection, &self.server, context).await,
            None => Ok(()),
        }
    }
}

/// Opens a session on a database and closes it.
///
/// # Errors
/// See [`connect`].
pub async fn connect_once(address: &Address, database: &str) -> Result<(), PgError> {
    let options = quiet(address.options(database)).application_name("kapsel-testdb keeper");
    let session = Session::connect(address, &options, RetryLimits::RUNNING).await?;
    session
        .close(|| format!("close a session on `{database}`"))
        .await
}

/// Closes a connection; the server frees its locks. `context` completes "failed to …".
///
/// # Errors
/// The server does not answer.
pub async fn close(
    connection: PgConnection,
    server: &(dyn Display + Sync),
    context: impl FnOnce() -> String,
) -> Result<(), PgError> {
    match timeout(CLOSE_LIMIT, connection.close()).await {
        Ok(result) => result.context(context),
        Err(_) => Err(PgError::no_answer(server, CLOSE_LIMIT, context())),
    }
}

/// Waits at most `limit` for work on a connection, which must not be used again if it took longer. `context` completes "failed to …".
///
/// # Errors
/// The work failed, or took too long.
pub async fn within<T, E: From<PgError>>(
    limit: Duration,
    server: &(dyn Display + Sync),
    context: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(PgError::no_answer(server, limit, context()).into()),
    }
}
