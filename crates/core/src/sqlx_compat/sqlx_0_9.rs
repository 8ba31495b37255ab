//! sqlx 0.9.

use ::sqlx;

fn table(migrator: &sqlx::migrate::Migrator) -> &str {
    &migrator.table_name
}

fn schemas(migrator: &sqlx::migrate::Migrator) -> Vec<&str> {
    migrator.create_schemas.iter().map(|s| &**s).collect()
}

#[path = "version/migrator.rs"]
mod migrator;
#[path = "version/options.rs"]
pub mod options;
#[path = "version/rows.rs"]
pub mod rows;
