//! What is compiled into a test: a `Migrator`.

use super::sqlx::migrate::Migrator;
use super::{schemas, table};
use crate::driver::{EmbeddedMigration, EmbeddedMigrator};

impl EmbeddedMigrator for Migrator {
    fn up(&self) -> Vec<EmbeddedMigration<'_>> {
        let up = self
            .iter()
            .filter(|m| !m.migration_type.is_down_migration());
        up.map(|m| EmbeddedMigration {
            version: m.version,
            description: &m.description,
            sql: m.sql.as_ref(),
            checksum: &m.checksum,
            no_tx: m.no_tx,
        })
        .collect()
    }

    fn table(&self) -> &str {
        table(self)
    }

    fn schemas(&self) -> Vec<&str> {
        schemas(self)
    }
}
