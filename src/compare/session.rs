//! A session that reads a database for a comparison. Its output format of values does not depend on the database's settings.

use std::fmt::Display;

use futures_util::TryStreamExt;
use futures_util::future::join;
use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::connect::{RetryLimits, connect, quiet};
use kapsel_testdb_core::pg::error::Context;
use kapsel_testdb_core::pg::session::{DATABASE_LIMIT, close, within};
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::sqlx_compat::internal;

/// A session on one of the two databases.
#[derive(Debug)]
pub struct ComparisonSession {
    connection: PgConnection,
    server: String,
    database: String,
}

/// With a primary key: the hashes of key and row. Without: the row's hash and the number of equal rows. Then the number of these rows that
/// count as own rows of tests, if they are added.
pub(super) type Digest = (i64, i64, i64);

impl ComparisonSession {
    /// Connects, and overrides settings of the database and the role that affect the output format: both databases must format values alike.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn open(address: &Address, database: &DbName) -> Result<Self, PgError> {
        let database = database.to_string();
        let options = quiet(address.options(&database))
            .application_name("kapsel-testdb compare")
            .options([
                ("search_path", "pg_catalog"),
                ("DateStyle", "ISO"),
                ("IntervalStyle", "postgres"),
                ("TimeZone", "UTC"),
                ("bytea_output", "hex"),
                ("extra_float_digits", "1"),
                ("xmlbinary", "base64"),
                ("default_transaction_read_only", "on"),
                // Report an error instead of treating rows hidden by a policy as missing.
                ("row_security", "off"),
                // A prepared transaction may lock a table forever.
                ("lock_timeout", "5s"),
            ]);
        let connection = connect(address, &options, RetryLimits::RUNNING).await?;
        Ok(Self {
            connection,
            server: address.to_string(),
            database,
        })
    }

    /// Ends the session.
    pub async fn close(self) {
        let _ = close(self.connection, &self.server, || {
            "close a session".to_owned()
        })
        .await;
    }

    /// Reads the remaining results of a failed comparison.
    pub(super) async fn drain(&mut self) {
        let _ = self.rows("SELECT 1", &"nothing", |_| Ok(())).await;
    }

    /// Runs a query and decodes each row of the result.
    pub(crate) async fn rows<T>(
        &mut self,
        sql: &str,
        what: &dyn Display,
        read: impl Fn(&PgRow) -> sqlx::Result<T>,
    ) -> Result<Vec<T>, PgError> {
        let context = || format!("read {what} of `{}`", self.database);
        let rows = raw(&mut self.connection, sql).try_collect::<Vec<_>>();
        let rows = async { rows.await.context(context) };
        let rows = within(DATABASE_LIMIT, &self.server, context, rows).await?;
        rows.iter()
            .map(read)
            .collect::<sqlx::Result<_>>()
            .context(context)
    }

    /// Runs statements without a result.
    pub(super) async fn execute(&mut self, sql: &str, what: &dyn Display) -> Result<(), PgError> {
        self.rows(sql, what, |_| Ok(())).await.map(drop)
    }

    /// The server, for messages.
    pub(super) fn server(&self) -> String {
        self.server.clone()
    }

    /// Runs a query for pairs of numbers and streams the result.
    pub(super) fn digests<'a>(&'a mut self, sql: &'a str) -> BoxStream<'a, sqlx::Result<Digest>> {
        let rows = raw(&mut self.connection, sql);
        Box::pin(
            rows.and_then(
                |row| async move { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)) },
            ),
        )
    }
}

/// Runs both futures concurrently and waits for both: an unread result would appear in the result of the next query.
pub(super) async fn both<A, B>(
    one: impl Future<Output = Result<A, PgError>>,
    other: impl Future<Output = Result<B, PgError>>,
) -> Result<(A, B), PgError> {
    let (one, other) = join(one, other).await;
    Ok((one?, other?))
}

/// The only place in this module that passes SQL text to sqlx. The code that builds the text does the quoting.
fn raw<'a>(connection: &'a mut PgConnection, sql: &'a str) -> BoxStream<'a, sqlx::Result<PgRow>> {
    connection.fetch(sqlx::raw_sql(internal::trusted(sql)))
}
