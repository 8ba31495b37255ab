//! The sqlx that this crate itself uses (`sqlx`), behind functions that hide the differences between versions.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::BoxFuture;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Executor, PgConnection};

use crate::sqlx_compat::{EmbeddedMigration, MigrationsTable};

/// The default name of the table in which sqlx records applied migrations.
pub const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// Runs statements with the simple protocol. Every name and literal in them must be quoted.
pub fn execute<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
) -> BoxFuture<'a, Result<(), Sqlx>> {
    // Boxed by the trait's method: with 0.8 the future of the query's own method is not always `Send`.
    let result = connection.execute(sqlx::raw_sql(trusted(sql)));
    Box::pin(async { result.await.map(drop) })
}

/// The rows of a query; see [`execute`].
pub fn rows<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
) -> BoxFuture<'a, Result<Vec<PgRow>, Sqlx>> {
    connection.fetch_all(sqlx::raw_sql(trusted(sql)))
}

#[cfg(feature = "sqlx-0_9")]
mod version {
    pub use crate::sqlx_compat::sqlx_0_9::rows::texts;

    use sqlx::SqlSafeStr;
    use sqlx::migrate::{ResolveConfig, ResolveWith};

    use super::*;

    /// Marks a statement as safe: every name and literal in it is quoted.
    pub fn trusted(sql: &str) -> sqlx::AssertSqlSafe<&str> {
        sqlx::AssertSqlSafe(sql)
    }

    /// A migration's SQL.
    pub fn migration_sql(migration: &Migration) -> &str {
        migration.sql.as_str()
    }

    /// Converts a migration that is compiled into a test.
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

    /// Creates a schema that a migrator requires.
    pub fn create_schema<'a>(
        connection: &'a mut PgConnection,
        schema: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.create_schema_if_not_exists(schema)
    }

    /// The migrations of a directory. Checksums leave out the `ignored` characters.
    pub async fn read_migrations(
        directory: &Path,
        ignored: &BTreeSet<char>,
    ) -> Result<Migrator, MigrateError> {
        let mut config = ResolveConfig::new();
        config.ignore_chars(ignored.iter().copied());
        Migrator::new(ResolveWith(directory, config)).await
    }

    /// A migrator of these migrations that records them in `table`.
    pub fn migrator(migrations: Vec<Migration>, table: &MigrationsTable) -> Migrator {
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.dangerous_set_table_name(table.table.clone());
        for schema in &table.schemas {
            migrator.create_schema(schema.clone());
        }
        migrator
    }

    /// Runs the pending migrations.
    pub async fn run_migrations(
        migrator: &Migrator,
        connection: &mut PgConnection,
    ) -> Result<(), MigrateError> {
        migrator.run_direct(None, connection, false).await
    }

    /// Creates the table in which sqlx records applied migrations.
    pub fn create_migrations_table<'a>(
        connection: &'a mut PgConnection,
        table: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.ensure_migrations_table(table)
    }

    /// Runs a migration and records it.
    pub async fn apply_migration(
        connection: &mut PgConnection,
        table: &str,
        migration: &Migration,
    ) -> Result<(), MigrateError> {
        connection.apply(table, migration).await.map(drop)
    }

    /// The versions of the recorded migrations.
    pub async fn applied_versions(
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<BTreeSet<i64>, MigrateError> {
        let applied = connection.list_applied_migrations(table).await;
        Ok(applied?.iter().map(|migration| migration.version).collect())
    }
}

/// sqlx 0.8 has a fixed table name and does not support `sqlx.toml`.
#[cfg(not(feature = "sqlx-0_9"))]
#[expect(missing_docs, reason = "documented above, for sqlx 0.9")]
mod version {
    pub use crate::sqlx_compat::sqlx_0_8::rows::texts;

    use super::*;

    pub fn trusted(sql: &str) -> &str {
        sql
    }

    pub fn migration_sql(migration: &Migration) -> &str {
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

    /// Migrators of this version require no schemas.
    pub async fn create_schema(_: &mut PgConnection, _: &str) -> Result<(), MigrateError> {
        Ok(())
    }

    pub async fn read_migrations(
        directory: &Path,
        _: &BTreeSet<char>,
    ) -> Result<Migrator, MigrateError> {
        Migrator::new(directory).await
    }

    pub fn migrator(migrations: Vec<Migration>, _: &MigrationsTable) -> Migrator {
        Migrator {
            migrations: migrations.into(),
            ..Migrator::DEFAULT
        }
    }

    pub async fn run_migrations(
        migrator: &Migrator,
        connection: &mut PgConnection,
    ) -> Result<(), MigrateError> {
        migrator.run_direct(connection).await
    }

    pub fn create_migrations_table<'a>(
        connection: &'a mut PgConnection,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), MigrateError>> {
        connection.ensure_migrations_table()
    }

    pub async fn apply_migration(
        connection: &mut PgConnection,
        _: &str,
        migration: &Migration,
    ) -> Result<(), MigrateError> {
        connection.apply(migration).await.map(drop)
    }

    pub async fn applied_versions(
        connection: &mut PgConnection,
        _: &str,
    ) -> Result<BTreeSet<i64>, MigrateError> {
        let applied = connection.list_applied_migrations().await;
        Ok(applied?.iter().map(|migration| migration.version).collect())
    }
}

pub use version::*;
