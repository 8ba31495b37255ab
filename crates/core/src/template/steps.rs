//! Steps of a build on the session of the building database.

use sqlx::migrate::{MigrateError, Migration};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::address::Address;
use crate::pg::error::{Context, ErrorDetails};
use crate::pg::script::{ScriptError, ScriptPosition};
use crate::pg::session::{SCRIPT_LIMIT, close, within};
use crate::pg::{ServerFacts, connect, script, sql};
use crate::protocol::{BuildStep, Profile, Script};
use crate::recycle::profile::{self, Files};
use crate::sqlstate;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::session::discard_all;
use crate::template::{Contents, TemplateError, command, hints};

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

/// The database that a command changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    pub address: &'a Address,
    pub database: &'a str,
    pub facts: &'a ServerFacts,
}

/// Runs a file of SQL or a command.
pub(super) async fn run_step(
    connection: &mut PgConnection,
    step: &BuildStep,
    site: Site<'_>,
) -> Result<(), TemplateError> {
    match step {
        BuildStep::Script(script) => {
            let what = || format!("run `{}`", script.file);
            limited(site.address, what, run_seed(connection, script)).await?
        }
        // It has a limit of its own.
        BuildStep::Command(command) => command::run(command, site).await,
    }
}

/// Runs a script, and ends what it leaves in its session (pg_dump empties `search_path`).
pub(super) async fn run_seed(
    connection: &mut PgConnection,
    seed: &Script,
) -> Result<(), TemplateError> {
    let mut text = seed.open()?;
    if let Err(error) = script::run(connection, &seed.file, &mut text).await {
        return Err(error.with_source(seed.open()?).into());
    }
    if text.checksum() != seed.checksum {
        return Err(TemplateError::Changed(seed.path.clone()));
    }
    let reset = discard_all(connection).await;
    Ok(reset.context(|| "reset the session".to_owned())?)
}

/// Vacuums, so that clones start with frozen and analyzed rows, and closes the session. `copied`: the tables of the template that this one was copied from.
pub(super) async fn vacuum_and_close(
    mut connection: PgConnection,
    address: &Address,
    facts: &ServerFacts,
    copied: Option<&Files>,
) -> Result<(Option<Profile>, Contents), TemplateError> {
    let context = || "vacuum the template".to_owned();
    // VACUUM commits for each table. The statement that publishes the template waits for the log up to its own place, and so for all of these.
    let unwaited = internal::execute(&mut connection, "SET synchronous_commit = off").await;
    unwaited.context(context)?;
    let vacuumed = profile::vacuum(&mut connection, copied).await;
    vacuumed.context(context)?;
    let contents = read_contents(&mut connection).await;
    let contents = contents.context(|| "read what the template contains".to_owned())?;
    let profile = if facts.can_recycle() {
        let read = profile::read(&mut connection).await;
        Some(read.context(|| "read the profile of the template".to_owned())?)
    } else {
        None
    };
    close(connection, address, context).await?;
    Ok((profile, contents))
}

/// The tables of a database that was copied from a template, unless the server is too old to tell what is written to them.
pub(super) async fn copied_files(
    connection: &mut PgConnection,
    facts: &ServerFacts,
) -> Result<Option<Files>, TemplateError> {
    if !facts.can_recycle() {
        return Ok(None);
    }
    let files = Files::of_copy(connection).await;
    Ok(files.context(|| "list the tables of the template".to_owned())?)
}

async fn read_contents(connection: &mut PgConnection) -> Result<Contents, sqlx::Error> {
    const EXTENSIONS: &str = "SELECT x.name::text AS name, x.default_version AS version FROM pg_extension e \
         JOIN pg_available_extensions() x ON x.name = e.extname WHERE e.extname <> 'plpgsql'";
    let sql = format!(
        "SELECT CASE WHEN EXISTS (SELECT FROM pg_class WHERE relpersistence = 'u') THEN {} END AS since",
        sql::COUNTING_SINCE
    );
    let rows = internal::rows(connection, &sql).await?;
    let since = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let extensions = internal::rows(connection, EXTENSIONS).await?;
    let read = |row: &PgRow| Ok((row.try_get("name")?, row.try_get("version")?));
    Ok(Contents {
        unlogged_since: since.try_get("since")?,
        extensions: extensions
            .iter()
            .map(read)
            .collect::<Result<_, sqlx::Error>>()?,
    })
}

/// The error of a migration that failed on this connection, with its place in the file.
pub(super) async fn migration_error(
    connection: &mut PgConnection,
    migration: &Migration,
    file: &str,
    error: &sqlx::Error,
) -> ScriptError {
    let sql = internal::migration_sql(migration);
    let details = ErrorDetails::of(error);
    if let Some(explained) = hidden_table(sql, file, &details, error) {
        return explained;
    }
    let mut note = named_database(sql, &details);
    let position = match details.position {
        Some(position) => script::locate(sql, position),
        None => match failing_statement(connection, migration, &details).await {
            Some(position) => position,
            None => {
                let (first, statements) = script::first_statement(sql);
                note = note.or((statements > 1).then(|| {
                    format!("the server reports no place; the error is in one of {statements} statements")
                }));
                first
            }
        },
    };
    let mut error = ScriptError::from_server(file, position, error).with_source(sql.as_bytes());
    if let Some(note) = note {
        error.add_note(note);
    }
    error
}

/// The error if a migration has hidden sqlx's table, in which it is recorded, by an empty search path.
pub(super) fn hidden_table(
    sql: &str,
    file: &str,
    details: &ErrorDetails,
    error: &sqlx::Error,
) -> Option<ScriptError> {
    let is_hidden = details.code.as_deref() == Some(sqlstate::UNDEFINED_TABLE)
        && details.message.contains(internal::MIGRATIONS_TABLE);
    let line = hints::line_without_search_path(sql).filter(|_| is_hidden)?;
    let error = ScriptError::from_server(file, ScriptPosition::Line(line), error);
    let mut error = error.with_source(sql.as_bytes());
    error.add_note(format!(
        "line {line} leaves the search path of the session empty, so sqlx does not find its table; remove the line (pg_dump writes it)"
    ));
    Some(error)
}

/// A note about a database that does not exist, and that a migration names although it could be any.
fn named_database(sql: &str, details: &ErrorDetails) -> Option<String> {
    let is_missing = details.code.as_deref() == Some(sqlstate::INVALID_CATALOG_NAME);
    let named = hints::named_databases(sql);
    (is_missing && !named.is_empty()).then(|| {
        "a migration runs in databases of any name; use \
         `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET …', current_database()); END $$`"
            .to_owned()
    })
}

/// The place of the error of a migration if the server reports none. The migration was rolled back, so this runs it again statement by
/// statement in a transaction, and rolls that back. A migration without transaction may have had effects, so it is not repeated.
async fn failing_statement(
    connection: &mut PgConnection,
    migration: &Migration,
    details: &ErrorDetails,
) -> Option<ScriptPosition> {
    let sql = internal::migration_sql(migration);
    if migration.no_tx || !script::is_one_transaction(sql) {
        return None;
    }
    let mut transaction = connection.begin().await.ok()?;
    let result = script::run_text(&mut transaction, "", sql).await;
    let _ = transaction.rollback().await;
    match result {
        Err(error) if error.code == details.code => Some(error.position),
        Err(_) => None,
        // What is left is checked at the end of the transaction.
        Ok(()) => Some(ScriptPosition::Commit),
    }
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
        result.map_err(|(_, error)| {
            ScriptError::from_server("template.extensions", ScriptPosition::Whole, &error)
        })?;
    }
    Ok(())
}
