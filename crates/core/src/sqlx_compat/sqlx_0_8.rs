//! sqlx 0.8.

#![allow(
    clippy::duplicate_mod,
    reason = "one text for both versions: that is what the directory is for"
)]

use ::sqlx_0_8 as sqlx;

/// This version has a fixed table name.
fn table(_: &sqlx::migrate::Migrator) -> &str {
    super::MIGRATIONS_TABLE
}

/// This version creates no schemas.
fn schemas(_: &sqlx::migrate::Migrator) -> Vec<&str> {
    Vec::new()
}

#[path = "version/migrator.rs"]
mod migrator;
#[path = "version/options.rs"]
pub mod options;
#[path = "version/rows.rs"]
pub mod rows;
