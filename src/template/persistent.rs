//! The persistent database: one of a fixed, configured name that `prepare` by hand keeps migrated. It is the user's: nothing here
//! ever drops it. A crash leaves it at the last migration that was committed.

use sqlx::Connection;
use sqlx::migrate::MigrateError;

use super::TemplateError;
use super::build::create_extensions;
use super::source::{Notes, Source};
use crate::config::Config;
use crate::driver::own;
use crate::pg::admin::Admin;
use crate::pg::connect;
use crate::pg::connect::Patience;
use crate::pg::databases::Strategy;
use crate::pg::error::Doing;
use crate::server::Server;

/// Creates the database where it is missing, from what templates are made from, and the extensions and runs the migrations that it
/// lacks; tells how many migrations.
///
/// # Errors
/// A migration failed, or one that was applied has been edited since.
pub async fn keep_current(
    admin: &mut Admin,
    server: &Server,
    config: &Config,
    name: &str,
) -> Result<usize, TemplateError> {
    let source = Source::migrations(config).await?;
    if !admin.database_exists(name).await? {
        let base = &config.template.base;
        admin
            .create_database(&name, base, Strategy::Default)
            .await?;
    }
    let address = &server.admin_address;
    let mut connection =
        connect::connect(address, &address.options(name), Patience::RUNNING).await?;
    create_extensions(&mut connection, &config.template.extensions).await?;
    let notes = source.notes.clone().unwrap_or_default();
    let before = applied(&mut connection, &notes).await;
    let migrator = own::migrator(source.migrations.clone(), &notes);
    let migrated = own::run(&migrator, &mut connection).await;
    migrated.map_err(|error| failed(&source, name, &error))?;
    let after = applied(&mut connection, &notes).await;
    let doing = || format!("close the connection to `{name}`");
    connection.close().await.doing(doing)?;
    Ok(after.saturating_sub(before))
}

/// Zero where sqlx has not noted anything yet.
async fn applied(connection: &mut sqlx::PgConnection, notes: &Notes) -> usize {
    let counted = own::count_applied(connection, &notes.table).await;
    counted.unwrap_or(0)
}

fn failed(source: &Source, database: &str, error: &MigrateError) -> TemplateError {
    let file = |version: i64| {
        let migration = source.migrations.iter().find(|m| m.version == version);
        migration.map_or_else(|| version.to_string(), |m| source.file_of(m))
    };
    let (file, message) = match error {
        MigrateError::VersionMismatch(version) => (
            file(*version),
            format!(
                "it was edited after it had been run in the database `{database}`; undo the edit, or drop that database and prepare again"
            ),
        ),
        MigrateError::VersionMissing(version) => (
            file(*version),
            format!(
                "the database `{database}` has run it, but the file is gone; restore it, or drop that database and prepare again"
            ),
        ),
        MigrateError::ExecuteMigration(error, version) => (file(*version), error.to_string()),
        error => (format!("the migrations of `{database}`"), error.to_string()),
    };
    TemplateError::Failed {
        file,
        position: String::new(),
        message,
        code: None,
    }
}
