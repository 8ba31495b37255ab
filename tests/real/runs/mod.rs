//! Runs from their opening to what a crash leaves: keeper, kept databases, pollution, sweep.

pub mod interrupts;
pub mod joined;
pub mod kept;
pub mod kills;
pub mod lives;
pub mod maintenance_databases;
pub mod namespaces;
pub mod pollution;
pub mod reuse;
pub mod several_templates;
pub mod spares;
pub mod sweep_leftovers;
pub mod sweep_names;
pub mod sweep_replication;
pub mod sweep_watch;
