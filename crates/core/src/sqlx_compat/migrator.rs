//! Migrations that are compiled into a test, and the table that records them.

use std::fmt::Debug;

use super::MIGRATIONS_TABLE;
use crate::protocol::MigrateSettings;

/// Migrations that are compiled into a test: a `Migrator` of any supported sqlx version.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a migrator of an sqlx version that kapsel-testdb is compiled with",
    label = "expected a `sqlx::migrate::Migrator`"
)]
pub trait EmbeddedMigrator: Debug + Sync {
    /// The up-migrations, in their order.
    fn up(&self) -> Vec<EmbeddedMigration<'_>>;
    /// The table that records them.
    fn table(&self) -> &str;
    /// Schemas that it creates first, as in SQL.
    fn schemas(&self) -> Vec<&str>;
}

/// A migration of an [`EmbeddedMigrator`].
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedMigration<'a> {
    /// The version.
    pub version: i64,
    /// The description.
    pub description: &'a str,
    /// The SQL.
    pub sql: &'a str,
    /// sqlx's checksum of the SQL.
    pub checksum: &'a [u8],
    /// Whether it runs without a transaction.
    pub no_tx: bool,
}

/// The table in which sqlx records applied migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationsTable {
    /// Name of the table.
    pub table: String,
    /// Schemas to create first.
    pub schemas: Vec<String>,
}

impl Default for MigrationsTable {
    fn default() -> Self {
        Self {
            table: MIGRATIONS_TABLE.to_owned(),
            schemas: Vec::new(),
        }
    }
}

impl MigrationsTable {
    /// From a package's `sqlx.toml`.
    pub fn configured(migrate: &MigrateSettings) -> Self {
        let table = migrate.table_name.as_deref();
        Self {
            table: table.unwrap_or(MIGRATIONS_TABLE).to_owned(),
            schemas: migrate.create_schemas.iter().cloned().collect(),
        }
    }

    /// From a migrator.
    pub fn of(migrator: &dyn EmbeddedMigrator) -> Self {
        Self {
            table: migrator.table().to_owned(),
            schemas: migrator.schemas().into_iter().map(str::to_owned).collect(),
        }
    }
}
