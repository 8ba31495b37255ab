//! The sqlx that this package itself uses (the newest compiled version), and the migrators of every compiled version.
//!
//! The files of `version/` are compiled once per version, which they import as `super::sqlx`. All other code imports `sqlx`, the version
//! that this package uses. The pools and sandboxes of each version are in the test helper.

pub mod internal;
mod migrator;
#[cfg(feature = "sqlx-0_8")]
pub mod sqlx_0_8;
#[cfg(feature = "sqlx-0_9")]
pub mod sqlx_0_9;

use sqlx::postgres::PgConnectOptions;

pub use internal::MIGRATIONS_TABLE;
pub use migrator::{EmbeddedMigration, EmbeddedMigrator, MigrationsTable};

use crate::address::Address;

impl Address {
    /// Complete connect options for sqlx. If the address has no password, sqlx reads it from the passfile.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        #[cfg(feature = "sqlx-0_9")]
        return sqlx_0_9::options::of(self, database);
        #[cfg(not(feature = "sqlx-0_9"))]
        sqlx_0_8::options::of(self, database)
    }
}
