//! What an application compiles in.

use sqlx::migrate::Migrator;

/// The run's.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");
/// Others.
pub static OTHER: Migrator = sqlx::migrate!("../other");
