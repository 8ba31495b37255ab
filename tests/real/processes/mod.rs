//! What test processes do through the helper: leases, pools, sandboxes, leaks, connection slots. `child`, `failing`, `leaking`, `readme`,
//! `sandbox_child` and `swarm` are what the child processes of the other modules run.

pub mod child;
pub mod connections;
pub mod dropping;
pub mod failed_output;
pub mod failing;
pub mod leaking;
pub mod leaks;
pub mod many;
pub mod readme;
pub mod sandbox;
pub mod sandbox_child;
pub mod schemas;
pub mod swarm;
pub mod waiting;
