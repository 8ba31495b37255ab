//! Runs SQL scripts of any size on one session. A script is read in chunks and sent statement by statement. Memory holds one batch
//! of small statements or one chunk of data (64 KiB each), or one longer statement (three times: as read, as sent, and in sqlx's
//! buffer).
//!
//! A script has the same effect as one simple query with its whole text: it is one transaction, with deferred constraints and `SET
//! LOCAL` until its end. If the script has a `COMMIT` or `ROLLBACK`, another transaction begins after it; a `BEGIN` that the script
//! does not end is committed at the end. Statements that cannot run in a transaction (`VACUUM`, `CREATE DATABASE`) must be alone in
//! their script. There are three differences: savepoints work, every error has a line, and the lines after `COPY … FROM stdin`, up to
//! a line `\.`, are its data. So the output of pg_dump runs unchanged. Session settings of a script (pg_dump empties `search_path`)
//! persist. psql commands are errors, except `\restrict` and `\unrestrict`, which pg_dump writes.
//!
//! On a connection with an open [`Transaction`](sqlx::Transaction), the script is part of it, and the caller ends it.
//!
//! A crash or a dropped future leaves a session with an open transaction: close the connection.

mod batch;
mod chunks;
mod error;
mod lexer;
mod runner;
mod splitter;
mod words;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sqlx::PgConnection;

use error::{LocatedError, ScriptProblem};
pub use error::{ScriptError, ScriptPosition};

/// Runs the script in a file, with blocking reads. `name`: the script's name in errors.
///
/// # Errors
/// The file cannot be read or split, or the server rejected a statement. Then the script is rolled back, except transactions that
/// it committed itself.
pub async fn run_file(
    connection: &mut PgConnection,
    path: &Path,
    name: &str,
) -> Result<(), ScriptError> {
    let file = File::open(path).map_err(|error| {
        LocatedError::new(ScriptPosition::Whole, ScriptProblem::Read(error)).in_script(name)
    })?;
    run(connection, name, file).await
}

/// Runs a script in memory. `name`: its name in errors.
///
/// # Errors
/// See [`run_file`].
pub async fn run_text(
    connection: &mut PgConnection,
    name: &str,
    text: &str,
) -> Result<(), ScriptError> {
    run(connection, name, text.as_bytes()).await
}

/// Runs a script from a reader. `name`: its name in errors. On success, it has read the source to its end.
///
/// # Errors
/// See [`run_file`].
pub async fn run(
    connection: &mut PgConnection,
    name: &str,
    source: impl Read,
) -> Result<(), ScriptError> {
    let result = runner::Runner::new(connection, source).run().await;
    result.map_err(|error| error.in_script(name))
}
