//! What the benchmarks share: a run directory that no server belongs to.

use std::path::Path;
use std::time::UNIX_EPOCH;

use kapsel_testdb_core::protocol::{DbName, Fingerprint, Kind, Namespace, RunId, RunKey};
use kapsel_testdb_core::protocol::{RunDir, Runtime};

/// A new run directory below `base`.
pub fn run_dir(base: &Path) -> RunDir {
    let runtime = Runtime::open_at(base).expect("a private folder");
    let gate = runtime.gate().expect("the gate");
    runtime.create(&gate, &run()).expect("a run directory")
}

/// A name as a clone's.
pub fn clone_name() -> DbName {
    let namespace = Namespace::new("bench").expect("valid");
    let fingerprint = Fingerprint::from_hash(&[7; 32]);
    DbName::for_run(&namespace, Kind::Clone, &fingerprint, &run())
}

fn run() -> RunId {
    RunId::new(UNIX_EPOCH, &RunKey::new(&["bench"]))
}
