//! Runs random programs.

#![expect(clippy::print_stderr, reason = "a long run reports its progress")]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sqlx::Connection;
use tokio::runtime::{Builder, Runtime};

use crate::lab::{Dropped, Lab, Place};
use crate::oracle::{Depth, Oracle};
use crate::program::Case;
use crate::strategies::{ordinary_case, wild_case};
use crate::support::Server;

const SEED: u64 = 1;
const DUMP_EVERY: usize = 10;
/// Failures after which a run ends.
const TOO_MANY: usize = 12;
const SHRINKING: Duration = Duration::from_secs(40);

#[derive(Default)]
struct Summary {
    programs: usize,
    cleaned: usize,
    dropped: BTreeMap<Dropped, usize>,
    failures: Vec<String>,
}

/// How a case ended.
pub struct Ended {
    pub cleaned: usize,
    pub dropped: Option<Dropped>,
    pub failure: Option<String>,
}

#[test]
fn recycled_clones_equal_fresh_ones() {
    let seed = from_environment("RECYCLE_SEED").unwrap_or(SEED);
    let programs = from_environment("RECYCLE_PROGRAMS").unwrap_or(200) as usize;
    let workers = from_environment("RECYCLE_WORKERS").unwrap_or(2);
    let only = from_environment("RECYCLE_ONLY").map(|n| n as usize);
    let (_server, lab, oracle) = runtime().block_on(world());
    let (next, summary, begun) = (
        AtomicUsize::new(only.unwrap_or(0)),
        Mutex::new(Summary::default()),
        Instant::now(),
    );
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let runtime = runtime();
                let mut lab = runtime.block_on(lab.share());
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(&summary, programs) || only.is_some_and(|only| only != index) {
                        break;
                    }
                    let (case, ended) = run(&runtime, &mut lab, &oracle, seed, index);
                    note(&summary, &case, ended, (seed, index), begun);
                }
            });
        }
    });
    let summary = summary.into_inner().expect("no worker panicked");
    report(&summary, seed, begun);
    assert!(
        summary.failures.is_empty(),
        "{} failures, see above",
        summary.failures.len()
    );
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A server with a template, and what its clones are compared with.
pub async fn world() -> (Server, Lab, Oracle) {
    // It has a runtime of its own.
    let server = tokio::task::spawn_blocking(Server::start)
        .await
        .expect("a server");
    let mut lab = Lab::build(Place::of(&server)).await;
    let oracle = Oracle::new(&mut lab).await;
    (server, lab, oracle)
}

pub fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn is_over(summary: &Mutex<Summary>, programs: usize) -> bool {
    let summary = summary.lock().expect("no worker panicked");
    summary.programs >= programs || summary.failures.len() >= TOO_MANY
}

/// Runs the case of an index, and makes it as small as time allows if it fails.
fn run(
    runtime: &Runtime,
    lab: &mut Lab,
    oracle: &Oracle,
    seed: u64,
    index: usize,
) -> (Case, Ended) {
    let ordinary = index.is_multiple_of(3);
    let strategy = if ordinary {
        ordinary_case().boxed()
    } else {
        wild_case().boxed()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut tree = strategy.new_tree(&mut runner).expect("a program");
    let depth = if index.is_multiple_of(DUMP_EVERY) {
        Depth::Dump
    } else {
        Depth::Use
    };
    let mut check = |case: &Case| runtime.block_on(check(lab, oracle, case, depth, ordinary));
    let mut smallest = (tree.current(), check(&tree.current()));
    let begun = Instant::now();
    if smallest.1.failure.is_none() || !tree.simplify() {
        return smallest;
    }
    while begun.elapsed() < SHRINKING {
        let case = tree.current();
        let ended = check(&case);
        let failed = ended.failure.is_some();
        if failed {
            smallest = (case, ended);
        }
        if !(if failed {
            tree.simplify()
        } else {
            tree.complicate()
        }) {
            break;
        }
    }
    smallest
}

/// Runs a case; a panic is a failure.
async fn check(lab: &mut Lab, oracle: &Oracle, case: &Case, depth: Depth, ordinary: bool) -> Ended {
    let ended = AssertUnwindSafe(try_check(lab, oracle, case, depth))
        .catch_unwind()
        .await;
    let mut ended = ended.unwrap_or_else(|panic| Ended {
        cleaned: 0,
        dropped: None,
        failure: Some(format!("panicked: {:?}", panic.downcast_ref::<String>())),
    });
    if let (true, None, Some(reason)) = (ordinary, &ended.failure, ended.dropped) {
        ended.failure = Some(format!(
            "an ordinary program's clone was dropped: {reason:?}\n"
        ));
    }
    ended
}

/// Runs programs on one clone, and compares it after each.
pub async fn try_check(lab: &mut Lab, oracle: &Oracle, case: &Case, depth: Depth) -> Ended {
    let mut clone = lab.fresh().await;
    let mut ended = Ended {
        cleaned: 0,
        dropped: None,
        failure: None,
    };
    for (at, program) in case.programs.iter().enumerate() {
        let (session, other) = program.run(lab, &clone).await;
        let recycled = lab.recycle(&mut clone, session, case.method).await;
        if let Some(other) = other {
            let _ = other.close().await;
        }
        if let Err(reason) = recycled {
            ended.dropped = Some(reason);
            break;
        }
        ended.cleaned += 1;
        let depth = if at + 1 == case.programs.len() {
            depth
        } else {
            Depth::Look
        };
        ended.failure = oracle.differences(&lab.place, &clone, depth).await;
        if let Some(failure) = &mut ended.failure {
            // Was the clone at fault, or something that a new one meets as well?
            let fresh = lab.fresh().await;
            let differences = oracle.differences(&lab.place, &fresh, depth).await;
            lab.drop(&fresh).await;
            failure.push_str("  a new clone now: ");
            failure.push_str(&differences.unwrap_or_else(|| "as expected\n".to_owned()));
            break;
        }
    }
    lab.drop(&clone).await;
    ended
}

fn note(summary: &Mutex<Summary>, case: &Case, ended: Ended, at: (u64, usize), begun: Instant) {
    let mut summary = summary.lock().expect("no worker panicked");
    let before = summary.programs;
    summary.cleaned += ended.cleaned;
    summary.programs += ended.cleaned + usize::from(ended.dropped.is_some());
    if let Some(reason) = ended.dropped {
        *summary.dropped.entry(reason).or_default() += 1;
    }
    if let Some(failure) = ended.failure {
        eprintln!(
            "FAILED: RECYCLE_SEED={} RECYCLE_ONLY={}\n{case}\n{failure}",
            at.0, at.1
        );
        summary.failures.push(failure);
    }
    if before / 1000 != summary.programs / 1000 {
        report(&summary, at.0, begun);
    }
}

fn report(summary: &Summary, seed: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!(
        "{} programs in {seconds:.0} s ({:.0} ms each), seed {seed}: {} cleaned, {} failures; dropped: {:?}",
        summary.programs,
        seconds * 1000.0 / summary.programs.max(1) as f64,
        summary.cleaned,
        summary.failures.len(),
        summary.dropped
    );
}
