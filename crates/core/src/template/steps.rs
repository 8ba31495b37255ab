//! Steps of a build on the session of the building database.

use sqlx::migrate::{MigrateError, Migration};
use sqlx::{Connection, PgConnection};

use crate::address::Address;
use crate::pg::error::{Context, ErrorDetails, code_of};
use crate::pg::session::{SCRIPT_LIMIT, close, within};
use crate::pg::{ServerFacts, connect, script, sql};
use crate::protocol::Profile;
use crate::recycle::profile;
use crate::sqlstate;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::TemplateError;
use crate::template::source::Seed;

/// Waits at most an hour for a step. `what` completes "failed to …".
pub(super) async fn limited<T>(
    address: &Address,
    what: impl FnOnce() -> String,
    step: impl Future<Output = T>,
) -> Result<T, TemplateError> {
    within(SCRIPT_LIMIT, address, what, async { Ok(step.await) }).await
}

/// Creates the table in which sqlx records applied migrations, and the schemas that the migrator requires.
pub(super) async fn create_migrations_table(
    connection: &mut PgConnection,
    table: &MigrationsTable,
) -> Result<(), MigrateError> {
    for schema in &table.schemas {
        internal::create_schema(connection, schema).await?;
    }
    internal::create_migrations_table(connection, &table.table).await
}

/// Runs a seed, then resets its session settings (pg_dump empties `search_path`).
pub(super) async fn run_seed(
    connection: &mut PgConnection,
    seed: &Seed,
) -> Result<(), TemplateError> {
    let mut text = seed.open()?;
    script::run(connection, &seed.file, &mut text).await?;
    if text.checksum() != seed.checksum {
        return Err(TemplateError::Changed(seed.path.clone()));
    }
    let reset = internal::execute(connection, "RESET ALL").await;
    reset.context(|| "reset the session".to_owned())?;
    Ok(())
}

/// Vacuums, so that clones start with frozen and analyzed rows, and closes the session.
pub(super) async fn vacuum_and_close(
    mut connection: PgConnection,
    address: &Address,
    facts: &ServerFacts,
) -> Result<Option<Profile>, TemplateError> {
    let context = || "vacuum the template".to_owned();
    profile::vacuum(&mut connection).await.context(context)?;
    let profile = if facts.can_recycle() {
        let read = profile::read(&mut connection).await;
        Some(read.context(|| "read the profile of the template".to_owned())?)
    } else {
        None
    };
    close(connection, address, context).await?;
    Ok(profile)
}

/// The number of the statement in which a migration failed. The migration was rolled back, so this runs it again statement by
/// statement in a transaction, and rolls that back. A migration without transaction may have had effects, so it is not repeated.
pub(super) async fn failing_statement(
    connection: &mut PgConnection,
    migration: &Migration,
) -> Option<usize> {
    if migration.no_tx {
        return None;
    }
    let mut transaction = connection.begin().await.ok()?;
    let result = connect::run_script(&mut transaction, internal::migration_sql(migration)).await;
    let _ = transaction.rollback().await;
    result.err().map(|(succeeded, _)| succeeded + 1)
}

/// Whether this is a syntax error. The server parses a script as a whole, so it reports a syntax error before it runs the first
/// statement.
pub(super) fn is_syntax_error(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some(sqlstate::SYNTAX_ERROR)
}

/// Creates the extensions that are missing.
pub(super) async fn create_extensions(
    connection: &mut PgConnection,
    extensions: &[String],
) -> Result<(), TemplateError> {
    for extension in extensions {
        let sql = format!(
            "CREATE EXTENSION IF NOT EXISTS {} CASCADE",
            sql::identifier(extension)
        );
        let result = connect::run_script(connection, &sql).await;
        result.map_err(|(_, error)| sql_error("template.extensions", "", &sql, &error))?;
    }
    Ok(())
}

/// The error of a file, with line and column in `sql` if the server reports a position.
pub(super) fn sql_error(
    file: &str,
    statement: &str,
    sql: &str,
    error: &sqlx::Error,
) -> TemplateError {
    let details = ErrorDetails::of(error);
    let position = match details.position {
        Some(position) => {
            let (line, column) = line_and_column(sql, position);
            format!(" at line {line}, column {column}{statement}")
        }
        None => statement.to_owned(),
    };
    TemplateError::Failed {
        file: file.to_owned(),
        position,
        message: details.message,
        code: details.code,
    }
}

/// The line and column of a position from the server, in characters from 1.
fn line_and_column(sql: &str, position: usize) -> (usize, usize) {
    let before: Vec<char> = sql.chars().take(position.saturating_sub(1)).collect();
    let line = before.iter().filter(|c| **c == '\n').count() + 1;
    let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn positions_count_characters_not_bytes() {
        let sql = "-- ä\nSELECT ü x";
        assert_eq!(line_and_column(sql, 1), (1, 1));
        assert_eq!(line_and_column(sql, 6), (2, 1));
        assert_eq!(line_and_column(sql, 13), (2, 8));
        assert_eq!(line_and_column(sql, 15), (2, 10));
    }
}
