//! The `Migrator` of this version, as compiled into tests.

use super::sqlx::migrate::Migrator;
use super::{schemas, table};
use crate::sqlx_compat::{EmbeddedMigration, EmbeddedMigrator};

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
