//! The migrators that an application embeds.

use sqlx::migrate::Migrator;

/// The run's migrations.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");
/// Other migrations.
pub static OTHER: Migrator = sqlx::migrate!("../other");
