//! An application that configures sqlx by `sqlx.toml`.

/// Its migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
