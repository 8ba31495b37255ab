//! Templates: builds, migrations, seeds and scripts, fidelity of clones, the persistent database.

pub mod builds;
pub mod fidelity;
#[cfg(target_os = "linux")]
pub mod large;
pub mod migrations;
pub mod persistent;
pub mod scripts;
pub mod sources;
