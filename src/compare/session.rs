//! A session that reads a database to compare it: values are spelled the same way whatever the database's settings say.

use std::fmt::Display;

use futures_util::TryStreamExt;
use futures_util::future::join;
use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::driver::own;
use crate::name::DbName;
use crate::pg::connect::{Patience, connect, quiet};
use crate::pg::error::Doing;
use crate::pg::{Address, PgError};

/// A session on one of the two databases.
#[derive(Debug)]
pub struct Session {
    connection: PgConnection,
    database: String,
}

/// A row's or key's hash, and the hash or number of what has it.
pub(super) type Digest = (i64, i64);

impl Session {
    /// Connects. What a database or a role sets by itself does not count here: both sides must spell values alike.
    ///
    /// # Errors
    /// No connection.
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
                // Rows that a policy hides would look like rows that are not there: an error is better.
                ("row_security", "off"),
                // A prepared transaction may hold a table for ever.
                ("lock_timeout", "5s"),
            ]);
        let connection = connect(address, &options, Patience::RUNNING).await?;
        Ok(Self {
            connection,
            database,
        })
    }

    /// Ends the session.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Reads to its end what a failed comparison left.
    pub(super) async fn settle(&mut self) {
        let _ = self.rows("SELECT 1", &"nothing", |_| Ok(())).await;
    }

    /// Asks, and decodes each row of the answer.
    pub(crate) async fn rows<T>(
        &mut self,
        sql: &str,
        what: &dyn Display,
        read: impl Fn(&PgRow) -> sqlx::Result<T>,
    ) -> Result<Vec<T>, PgError> {
        let doing = || format!("read {what} of `{}`", self.database);
        let rows = raw(&mut self.connection, sql).try_collect::<Vec<_>>().await;
        let rows = rows.doing(doing)?;
        rows.iter()
            .map(read)
            .collect::<sqlx::Result<_>>()
            .doing(doing)
    }

    /// Asks for pairs of numbers, however many: they are read one by one as they are asked for.
    pub(super) fn digests<'a>(&'a mut self, sql: &'a str) -> BoxStream<'a, sqlx::Result<Digest>> {
        let rows = raw(&mut self.connection, sql);
        Box::pin(rows.and_then(|row| async move { Ok((row.try_get(0)?, row.try_get(1)?)) }))
    }
}

/// Asks both sides at once and waits for both: what is not read to its end would come up in the answer to the next question.
pub(super) async fn both<A, B>(
    one: impl Future<Output = Result<A, PgError>>,
    other: impl Future<Output = Result<B, PgError>>,
) -> Result<(A, B), PgError> {
    let (one, other) = join(one, other).await;
    Ok((one?, other?))
}

/// The one place here that hands text to sqlx. Whoever makes the text quotes what is in it.
fn raw<'a>(connection: &'a mut PgConnection, sql: &'a str) -> BoxStream<'a, sqlx::Result<PgRow>> {
    connection.fetch(sqlx::raw_sql(own::trusted(sql)))
}
