//! What the versions of sqlx call differently in what we ask ourselves, on the version that `sqlx` stands for in this crate.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::BoxFuture;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Executor, PgConnection};

use crate::driver::EmbeddedMigration;
use crate::template::Notes;

/// Where sqlx notes what has been applied; the name that a `Migrator` has by default.
pub const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// Runs statements, every name and literal in them quoted, with the simple protocol.
pub fn execute<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
) -> BoxFuture<'a, Result<(), Sqlx>> {
    // Boxed by the trait's method: with 0.8 the query's own is not `Send` in every place.
    let ran = connection.execute(sqlx::raw_sql(trusted(sql)));
    Box::pin(async { ran.await.map(drop) })
}

/// The rows of a query, see [`execute`].
pub fn rows<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
) -> BoxFuture<'a, Result<Vec<PgRow>, Sqlx>> {
    connection.fetch_all(sqlx::raw_sql(trusted(sql)))
}

#[cfg(feature = "sqlx-0_9")]
mod version {
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{ResolveConfig, ResolveWith};

    use super::*;

    /// A statement that was put together here, every name and literal in it quoted.
    pub fn trusted(sql: &str) -> sqlx::AssertSqlSafe<&str> {
        sqlx::AssertSqlSafe(sql)
    }

    /// A migration's SQL.
    pub fn text(migration: &Migration) -> &str {
        migration.sql.as_str()
    }

    /// One that is compiled into a test, as our own.
    pub fn migration(embedded: &EmbeddedMigration<'_>) -> Migration {
        Migration {
            version: embedded.version,
            description: embedded.description.to_owned().into(),
            migration_type: MigrationType::Simple,
            sql: sqlx::AssertSqlSafe(embedded.sql.to_owned()).into_sql_str(),
            checksum: embedded.checksum.to_vec().into(),
            no_tx: embedded.no_tx,
        }
    }

    /// Makes a schema that a migrator asks for.
    pub fn make_schema<'a>(
        connection: &'a mut PgConnection,
        schema: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.create_schema_if_not_exists(schema)
    }

    /// The migrations of a folder; their checksums leave out the ignored characters.
    pub async fn read(folder: &Path, ignored: &BTreeSet<char>) -> Result<Migrator, MigrateError> {
        let mut config = ResolveConfig::new();
        config.ignore_chars(ignored.iter().copied());
        Migrator::new(ResolveWith(folder, config)).await
    }

    /// A migrator of these migrations, which are noted there.
    pub fn migrator(migrations: Vec<Migration>, notes: &Notes) -> Migrator {
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.dangerous_set_table_name(notes.table.clone());
        for schema in &notes.schemas {
            migrator.create_schema(schema.clone());
        }
        migrator
    }

    /// Runs what has not been run.
    pub async fn run(
        migrator: &Migrator,
        connection: &mut PgConnection,
    ) -> Result<(), MigrateError> {
        migrator.run_direct(None, connection, false).await
    }

    /// Makes the table in which sqlx notes what has been run.
    pub fn make_table<'a>(
        connection: &'a mut PgConnection,
        table: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.ensure_migrations_table(table)
    }

    /// Runs a migration and notes it.
    pub async fn apply(
        connection: &mut PgConnection,
        table: &str,
        migration: &Migration,
    ) -> Result<(), MigrateError> {
        connection.apply(table, migration).await.map(drop)
    }

    /// How many migrations are noted.
    pub async fn count_applied(
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<usize, MigrateError> {
        let listed = connection.list_applied_migrations(table).await;
        listed.map(|migrations| migrations.len())
    }
}

/// sqlx 0.8 knows only one name for the table, and nothing of `sqlx.toml`.
#[cfg(not(feature = "sqlx-0_9"))]
mod version {
    use super::*;

    pub fn trusted(sql: &str) -> &str {
        sql
    }

    pub fn text(migration: &Migration) -> &str {
        &migration.sql
    }

    pub fn migration(embedded: &EmbeddedMigration<'_>) -> Migration {
        Migration {
            version: embedded.version,
            description: embedded.description.to_owned().into(),
            migration_type: MigrationType::Simple,
            sql: embedded.sql.to_owned().into(),
            checksum: embedded.checksum.to_vec().into(),
            no_tx: embedded.no_tx,
        }
    }

    /// This version's migrators ask for none.
    pub async fn make_schema(_: &mut PgConnection, _: &str) -> Result<(), MigrateError> {
        Ok(())
    }

    pub async fn read(folder: &Path, _: &BTreeSet<char>) -> Result<Migrator, MigrateError> {
        Migrator::new(folder).await
    }

    pub fn migrator(migrations: Vec<Migration>, _: &Notes) -> Migrator {
        Migrator {
            migrations: migrations.into(),
            ..Migrator::DEFAULT
        }
    }

    pub async fn run(
        migrator: &Migrator,
        connection: &mut PgConnection,
    ) -> Result<(), MigrateError> {
        migrator.run_direct(connection).await
    }

    pub fn make_table<'a>(
        connection: &'a mut PgConnection,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.ensure_migrations_table()
    }

    pub async fn apply(
        connection: &mut PgConnection,
        _: &str,
        migration: &Migration,
    ) -> Result<(), MigrateError> {
        connection.apply(migration).await.map(drop)
    }

    pub async fn count_applied(
        connection: &mut PgConnection,
        _: &str,
    ) -> Result<usize, MigrateError> {
        let listed = connection.list_applied_migrations().await;
        listed.map(|migrations| migrations.len())
    }
}

pub use version::*;
