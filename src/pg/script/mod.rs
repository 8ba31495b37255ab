//! SQL scripts of any size on one session: read in chunks, sent statement by statement, their data line by line. What is held in
//! memory is one batch of small statements or one chunk of data (64 KiB each), or one statement where that is longer (three times:
//! read, to be sent, and in sqlx's buffer).
//!
//! A script means what it means when its whole text is sent as one simple query: one transaction, so all or nothing, with deferred
//! constraints and `SET LOCAL` until its end. A script's own `COMMIT` or `ROLLBACK` ends that transaction, and what follows is in
//! another one; a `BEGIN` of its own that it does not end is committed at the end. Statements that refuse to be in a transaction
//! (`VACUUM`, `CREATE DATABASE`) must be alone in their script. Unlike there, savepoints can be used, an error is found by its line
//! whatever it is, and a `COPY … FROM stdin` takes the lines after it, up to a line `\.`, as its data: what pg_dump writes runs as
//! it is. What a script sets for its session (pg_dump empties `search_path`) stays set. Commands of psql are refused, but for the
//! `\restrict` and `\unrestrict` of pg_dump.
//!
//! On a connection whose [`Transaction`](sqlx::Transaction) is open the script is part of that, and the caller ends it.
//!
//! A crash in the middle, or a future that is dropped, leaves nothing but a session in an open transaction: close it.

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

pub use error::{Place, ScriptError};
use error::{Problem, Trouble};

/// Runs the script in a file; errors call it `name`. The file is read while it runs, in chunks, with blocking reads.
///
/// # Errors
/// The file cannot be read, it is no script, or the server refused a statement; all of it has been rolled back then, but for what the
/// script itself had committed.
pub async fn run_file(
    connection: &mut PgConnection,
    path: &Path,
    name: &str,
) -> Result<(), ScriptError> {
    let file = File::open(path)
        .map_err(|error| Trouble::new(Place::Whole, Problem::Read(error)).of(name))?;
    run(connection, name, file).await
}

/// Runs a script that is in memory; errors call it `name`.
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

/// Runs a script from wherever it is; errors call it `name`. After a success all of it has been read.
///
/// # Errors
/// See [`run_file`].
pub async fn run(
    connection: &mut PgConnection,
    name: &str,
    source: impl Read,
) -> Result<(), ScriptError> {
    let ran = runner::Runner::new(connection, source).run().await;
    ran.map_err(|trouble| trouble.of(name))
}
