//! The session that cleans a clone: a connection of any version of sqlx, often the test's own, which is warm.

use futures_util::future::BoxFuture;
use sqlx::{Error as Sqlx, PgConnection};

use crate::sqlx_compat::internal;

/// A row as the server sends it with the simple protocol: every column is text.
pub type TextRow = Vec<Option<String>>;

/// A connection that runs queries with the simple protocol.
pub trait TextSession: Send {
    /// Runs statements in one message, and returns the rows of all of them. Every name and literal in `sql` is quoted.
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, Sqlx>>;
}

impl TextSession for PgConnection {
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, Sqlx>> {
        Box::pin(async move {
            internal::rows(self, sql)
                .await?
                .iter()
                .map(internal::texts)
                .collect()
        })
    }
}

/// A column as text; an error if it is missing or NULL.
pub(super) fn text(row: &TextRow, at: usize) -> Result<&str, Sqlx> {
    let column = row.get(at).and_then(Option::as_deref);
    column.ok_or_else(|| Sqlx::ColumnNotFound(at.to_string()))
}

/// A column as a number.
pub(super) fn number<T>(row: &TextRow, at: usize) -> Result<T, Sqlx>
where
    T: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let text = text(row, at)?;
    text.parse().map_err(|error| Sqlx::Decode(Box::new(error)))
}
