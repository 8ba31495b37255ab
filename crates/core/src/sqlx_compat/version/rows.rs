//! Rows of the simple protocol, in which the server sends every value as text.

use super::sqlx::postgres::PgRow;
use super::sqlx::{Error, Row, ValueRef};

/// The columns of a row as text.
pub fn texts(row: &PgRow) -> Result<Vec<Option<String>>, Error> {
    let text = |at| {
        let value = row.try_get_raw(at)?;
        if value.is_null() {
            return Ok(None);
        }
        let text = value.as_str().map_err(Error::Decode)?;
        Ok(Some(text.to_owned()))
    };
    (0..row.len()).map(text).collect()
}
