//! One administrative session: a direct connection to the maintenance database, and every statement that is sent on it.
//!
//! Everything goes through the simple protocol: one round trip a call, several statements in one where that saves one. A crash
//! ends the session, which frees its locks; a statement that the server had begun it finishes or undoes by itself.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, Decode, Error as Sqlx, PgConnection, Postgres, Row, Type};

use tokio::time::timeout;

use crate::driver::own;

use super::address::Address;
use super::connect::{ATTEMPT, Patience, connect, lock_session};
use super::error::{Doing, PgError, code};
use super::lock::LockKey;
use super::sql::NO_IDLE_TIMEOUT;
use crate::disk;

/// Who answers at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postmaster {
    /// The cluster's identifier, which initdb gave it.
    pub cluster: String,
    /// When the server was started.
    pub started: String,
}

/// A session in the maintenance database.
#[derive(Debug)]
pub struct Admin {
    connection: PgConnection,
    address: Address,
}

impl Admin {
    /// Connects to a maintenance database for administrative work.
    ///
    /// # Errors
    /// See [`connect`].
    pub async fn connect(
        address: &Address,
        database: &str,
        purpose: &str,
        patience: Patience,
    ) -> Result<Self, PgError> {
        let options = lock_session(address.options(database))
            .application_name(&format!("kapsel-testdb {purpose}"));
        let connection = connect(address, &options, patience).await?;
        Ok(Self {
            connection,
            address: address.clone(),
        })
    }

    /// Ends the session; the server frees its locks.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }

    pub(super) async fn run(
        &mut self,
        sql: String,
        doing: impl FnOnce() -> String,
    ) -> Result<(), PgError> {
        let ran = own::execute(&mut self.connection, &sql).await.doing(doing);
        match ran {
            Err(error) if error.is(code::DISK_FULL) => Err(PgError::DiskFull {
                remedy: self.full_disk().await,
                refused: Box::new(error),
            }),
            ran => ran,
        }
    }

    /// What to do about a full disk, with the place and its room where they are this host's.
    pub async fn full_disk(&mut self) -> String {
        let place = match self.data_directory().await {
            Ok(path) if self.address.is_local() => Some(PathBuf::from(path)),
            _ => None,
        };
        disk::complaint(place.as_deref())
    }

    pub(super) async fn rows(&mut self, sql: String, doing: &str) -> Result<Vec<PgRow>, PgError> {
        own::rows(&mut self.connection, &sql)
            .await
            .doing(|| doing.to_owned())
    }

    /// The first column of the one row that a query finds.
    pub(super) async fn value<T>(&mut self, sql: String, doing: &str) -> Result<T, PgError>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let rows = self.rows(sql, doing).await?;
        rows.first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get(0))
            .doing(|| doing.to_owned())
    }

    /// Asks who answers.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn postmaster(&mut self) -> Result<Postmaster, PgError> {
        let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS cluster, \
                   pg_postmaster_start_time()::text AS started";
        let doing = "ask the server who it is";
        let rows = self.rows(sql.to_owned(), doing).await?;
        let row = rows.last().ok_or(Sqlx::RowNotFound);
        let read = row.and_then(|row| {
            Ok(Postmaster {
                cluster: row.try_get("cluster")?,
                started: row.try_get("started")?,
            })
        });
        read.doing(|| doing.to_owned())
    }

    /// Takes locks shared, waiting for each.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock_shared(&mut self, keys: &[LockKey]) -> Result<(), PgError> {
        let locks: String = keys
            .iter()
            .map(|k| format!("SELECT pg_advisory_lock_shared({});", k.as_i64()))
            .collect();
        let sql = format!("{NO_IDLE_TIMEOUT}{locks}");
        self.run(sql, || "take the run lock".to_owned()).await
    }

    /// Tries to take a lock shared. `false`: somebody holds it exclusive.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn try_lock_shared(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.lock_call("pg_try_advisory_lock_shared", key).await
    }

    /// Tries to take a lock exclusive. `false`: somebody holds it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn try_lock(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.lock_call("pg_try_advisory_lock", key).await
    }

    /// Takes a lock exclusive, waiting for it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_lock({})", key.as_i64());
        self.run(sql, || "wait for a lock".to_owned()).await
    }

    /// Frees a lock held exclusive.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn unlock(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock({})", key.as_i64());
        self.run(sql, || "free a lock".to_owned()).await
    }

    /// Frees a lock held shared.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn unlock_shared(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock_shared({})", key.as_i64());
        self.run(sql, || "free a lock".to_owned()).await
    }

    async fn lock_call(&mut self, function: &str, key: LockKey) -> Result<bool, PgError> {
        let sql = format!("SELECT {function}({}) AS got", key.as_i64());
        self.value(sql, "try a lock").await
    }

    /// Who holds a lock: application name, process id and client address of each session.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock_holders(&mut self, key: LockKey) -> Result<Vec<String>, PgError> {
        let (high, low) = (key.as_i64() >> 32, key.as_i64() & 0xffff_ffff);
        let sql = format!(
            "SELECT concat_ws(' ', '`' || coalesce(a.application_name, '?') || '`', '(backend ' || l.pid || ')', \
               'on ' || a.client_addr::text) AS holder \
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
               AND l.classid = {high} AND l.objid = {low} \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        let rows = self.rows(sql, "look who holds a lock").await?;
        rows.iter()
            .map(|row| row.try_get("holder"))
            .collect::<Result<_, _>>()
            .doing(|| "look who holds a lock".to_owned())
    }

    /// Asks for nothing: whether the session, and with it every lock, is still there. A server that does not answer in time counts
    /// as lost.
    ///
    /// # Errors
    /// The session is gone.
    pub async fn verify(&mut self) -> Result<(), PgError> {
        let doing = || "reach the server on the run's own connection".to_owned();
        match timeout(ATTEMPT, self.run("SELECT 1".to_owned(), doing)).await {
            Ok(result) => result,
            Err(_) => Err(Sqlx::Io(std::io::ErrorKind::TimedOut.into())).doing(doing),
        }
    }

    /// Where the server's data is. Superusers and members of `pg_read_all_settings` may know.
    ///
    /// # Errors
    /// A failed statement: 42501 where we may not know.
    pub async fn data_directory(&mut self) -> Result<String, PgError> {
        let doing = "ask for the data directory";
        let sql = "SELECT current_setting('data_directory') AS path".to_owned();
        self.value(sql, doing).await
    }

    /// How long the server has been up.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn uptime(&mut self) -> Result<Duration, PgError> {
        let sql = "SELECT greatest(0, extract(epoch FROM now() - pg_postmaster_start_time()))::int8 AS seconds";
        let seconds: i64 = self.value(sql.to_owned(), "ask for the uptime").await?;
        Ok(Duration::from_secs(seconds.unsigned_abs()))
    }

    /// Counts client sessions on the server.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn count_connections(&mut self) -> Result<i64, PgError> {
        let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend'";
        self.value(sql.to_owned(), "count connections").await
    }

    /// Where this session is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}
