//! The persistent database: a database with a fixed, configured name that `prepare` migrates outside nextest. It belongs to the
//! user, so this code never drops it. A crash leaves it at the last committed migration.

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;

use crate::config::Config;
use crate::pg::admin::Admin;
use crate::pg::connect::{self, RetryLimits};
use crate::pg::own::OwnSession;
use crate::pg::script::ScriptError;
use crate::pg::session::close;
use crate::protocol::Strategy;
use crate::server::Server;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::TemplateError;
use crate::template::source::Source;
use crate::template::steps::{create_extensions, limited, migration_error};

/// Creates the database if it is missing, from the same base as templates; creates missing extensions; and runs pending
/// migrations. Returns their number.
///
/// # Errors
/// A migration failed, or an applied migration was edited.
pub async fn migrate_persistent(
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
        connect::connect(address, &address.options(name), RetryLimits::RUNNING).await?;
    let _own = OwnSession::of(&mut connection, address).await?;
    let table = source.migrations_table.clone().unwrap_or_default();
    let migrate = async {
        create_extensions(&mut connection, &config.template.extensions).await?;
        let before = count_applied(&mut connection, &table).await;
        let migrator = internal::migrator(source.migrations.clone(), &table);
        let migrated = internal::run_migrations(&migrator, &mut connection).await;
        if let Err(error) = migrated {
            return Err(failure(&mut connection, &source, name, &error).await.into());
        }
        let after = count_applied(&mut connection, &table).await;
        Ok::<_, TemplateError>(after.saturating_sub(before))
    };
    let what = || format!("migrate `{name}`");
    let migrated = limited(address, what, migrate).await??;
    let what = || format!("close the connection to `{name}`");
    close(connection, address, what).await?;
    Ok(migrated)
}

/// The number of applied migrations; 0 if the table does not exist yet.
async fn count_applied(connection: &mut PgConnection, table: &MigrationsTable) -> usize {
    let count = internal::count_applied(connection, &table.table).await;
    count.unwrap_or(0)
}

async fn failure(
    connection: &mut PgConnection,
    source: &Source,
    database: &str,
    error: &MigrateError,
) -> ScriptError {
    let find = |version: i64| source.migrations.iter().find(|m| m.version == version);
    let file =
        |version: i64| find(version).map_or_else(|| version.to_string(), |m| source.file_of(m));
    match error {
        MigrateError::VersionMismatch(version) => ScriptError::new(
            &file(*version),
            format!(
                "it was edited after it was applied to the database `{database}`; undo the edit, or drop the database and run `kapsel-testdb prepare` again"
            ),
        ),
        MigrateError::VersionMissing(version) => ScriptError::new(
            &file(*version),
            format!(
                "it was applied to the database `{database}`, but its file is missing; restore the file, or drop the database and run `kapsel-testdb prepare` again"
            ),
        ),
        MigrateError::ExecuteMigration(error, version) => match find(*version) {
            Some(migration) => migration_error(connection, migration, &file(*version), error).await,
            None => ScriptError::new(&file(*version), error.to_string()),
        },
        error => ScriptError::new(
            &format!("the migrations of `{database}`"),
            error.to_string(),
        ),
    }
}
