//! Templates: builds, archives, their life, migrations and the session they run in, what makes a template stale, seeds and scripts, fidelity of clones, the persistent database.

pub mod archives;
pub mod builds;
pub mod fidelity;
pub mod histories;
#[cfg(target_os = "linux")]
pub mod large;
pub mod life;
pub mod migrations;
pub mod persistent;
pub mod scripts;
pub mod sources;
pub mod stale;
