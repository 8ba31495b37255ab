//! A claim without contention, from run directories with 1, 8 and 78 ready entries. Only the claim is timed: the entry is offered
//! before it, and left and forgotten after it.
//!
//! `cargo bench --manifest-path bench/Cargo.toml`

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kapsel_testdb_bench::{clone_name, run_dir};
use kapsel_testdb_core::protocol::{EntryState, RunDir};

fn claim(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("claim");
    for ready in [1, 8, 78] {
        let base = tempfile::tempdir().expect("a folder");
        let dir = run_dir(&base.path().join("rt"));
        for _ in 1..ready {
            dir.offer(&clone_name(), None).expect("an entry");
        }
        group.bench_function(BenchmarkId::from_parameter(ready), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| one(&dir)).sum());
        });
    }
}

fn one(dir: &RunDir) -> Duration {
    dir.offer(&clone_name(), None).expect("an entry");
    let begun = Instant::now();
    let claim = dir.claim().expect("one is ready");
    let took = begun.elapsed();
    let name = claim.name.clone();
    assert!(dir.end_lease(claim, EntryState::Released));
    dir.remove_entry(EntryState::Released, &name);
    took
}

criterion_group!(benches, claim);
criterion_main!(benches);
