//! Runs SQL scripts of any size on one session. A script is read in chunks and sent statement by statement. Memory holds one batch
//! of small statements or one chunk of data (64 KiB each), or one longer statement (three times: as read, as sent, and in sqlx's
//! buffer).
//!
//! A script has the same effect as one simple query with its whole text: it is one transaction, with deferred constraints and `SET
//! LOCAL` until its end. If the script has a `COMMIT` or `ROLLBACK`, another transaction begins after it; a `BEGIN` that the script
//! does not end is committed at the end. Statements that cannot run in a transaction (`VACUUM`, `CREATE DATABASE`) must be alone in
//! their script. There are three differences: savepoints work, every error has a line, and the lines after `COPY … FROM stdin`, up to
//! a line `\.`, are its data. So the output of pg_dump runs unchanged. Session settings of a script (pg_dump empties `search_path`)
//! persist. psql commands are errors, except `\restrict` and `\unrestrict`, which pg_dump writes. A
//! string with a backslash is an error while `standard_conforming_strings` is off.
//!
//! On a connection with an open [`Transaction`](sqlx::Transaction), the script is part of it, and the caller ends it.
//!
//! A crash or a dropped future leaves a session with an open transaction: close the connection.

mod batch;
mod chunks;
mod error;
mod excerpt;
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
use splitter::{Position, Splitter, Statement};
use words::StatementKind;

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
    let ran = run(connection, name, file).await;
    // Without its text, the error has the place in words.
    ran.map_err(|error| match File::open(path) {
        Ok(source) => error.with_source(source),
        Err(_) => error,
    })
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

/// Runs a script in memory, each statement in a transaction of its own, so that statements such as `CREATE INDEX CONCURRENTLY` can be among others.
///
/// # Errors
/// See [`run_file`]. Statements before the failed one stay.
pub async fn run_statements(
    connection: &mut PgConnection,
    name: &str,
    text: &str,
) -> Result<(), ScriptError> {
    let runner = runner::Runner::new(connection, text.as_bytes()).without_transaction();
    runner.run().await.map_err(|error| error.in_script(name))
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

/// The server's position, in characters from 1, in the text of a script.
pub fn locate(text: &str, position: usize) -> ScriptPosition {
    let mut at = Position::START;
    for c in text.chars().take(position.saturating_sub(1)) {
        at.advance(if c == '\n' { b'\n' } else { b' ' });
    }
    let is_before = |start: &Position| (start.line, start.column) <= (at.line, at.column);
    ScriptPosition::Within {
        number: starts(text).take_while(is_before).count().max(1),
        line: at.line,
        column: Some(at.column),
    }
}

/// The first statement of a script, and how many statements it has.
pub fn first_statement(text: &str) -> (ScriptPosition, usize) {
    let line = starts(text).next().map_or(1, |start| start.line);
    (
        ScriptPosition::Statement { number: 1, line },
        starts(text).count(),
    )
}

/// Whether a script begins or ends no transaction by itself.
pub fn is_one_transaction(text: &str) -> bool {
    let ends = |kind| matches!(kind, StatementKind::Begin | StatementKind::End);
    !statements(text).any(|statement| ends(statement.kind))
}

/// The statements of a script, each with the line that it starts on.
pub fn statement_texts(text: &str) -> impl Iterator<Item = (usize, String)> {
    statements(text).map(|statement| (statement.at.line, statement.text))
}

/// Where the statements of a script begin.
fn starts(text: &str) -> impl Iterator<Item = Position> {
    statements(text).map(|statement| statement.at)
}

/// The statements of a script, up to the first that is no SQL.
fn statements(text: &str) -> impl Iterator<Item = Statement> {
    let mut splitter = Splitter::new(text.as_bytes());
    std::iter::from_fn(move || splitter.next().ok()?)
}
