//! Very many databases, leases and tasks in one test: nothing is refused, nothing is left, and the process stays small.

use crate::processes::child;
use crate::support::{FakeNextest, Outcome, Project, Server};

/// What tests may have on a server with 30 connections, at most: without those that PostgreSQL reserves and the keeper's.
const TOKENS: u64 = 30 - 3 - 4 - 2;
/// Most memory of a process with 100 databases, in kB.
const MEMORY: u64 = 100 * 1024;

/// Nobody asks for tokens before a pool opens a connection again: the server may refuse, and sqlx tries again.
const ALL_USED: &str = "swarm: 40 databases, all used at once";

/// Runs a child in a run on a server with 30 connections; nothing is left of what it did.
fn swarm(task: &str) -> Outcome {
    let server = Server::start_with_connections(30);
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let outcome = child::run(&project, &nextest.exported, task);
    outcome.code(0).never_says("kapsel-testdb:");
    nextest.end();
    for kind in ["clone", "kept", "shared", "building"] {
        assert!(server.databases_of(kind).is_empty(), "{kind}");
    }
    assert!(project.run_dirs().is_empty());
    if task != ALL_USED {
        crate::processes::connections::nobody_was_refused(&server);
    }
    outcome
}

/// The numbers that it told of something.
fn told(outcome: &Outcome, what: &str) -> Vec<u64> {
    let prefix = format!("{what} = ");
    let lines = outcome.stdout.lines();
    let numbers = lines.filter_map(|line| line.split_once(&prefix)?.1.parse().ok());
    numbers.collect()
}

#[test]
fn two_hundred_tasks_share_one_pool() {
    swarm("swarm: 200 tasks on one pool");
}

#[test]
fn fifty_leases_at_once_are_fifty_databases() {
    swarm("swarm: 50 leases at once");
}

#[test]
fn more_pools_than_there_are_connections_are_used_at_once() {
    swarm(ALL_USED);
}

#[test]
fn leases_are_given_back_as_fast_as_they_are_taken() {
    swarm("swarm: 60 leases, one after the other");
}

#[test]
fn a_hundred_databases_get_by_with_the_connections_that_there_are() {
    let outcome = swarm("swarm: 100 databases");
    let open = told(&outcome, "connections");
    assert_eq!(open.len(), 2, "{outcome:#?}");
    // The one that asks may be one too many, until it is given back.
    assert!(open.iter().all(|open| *open <= TOKENS + 1), "{open:?}");
    let peak = told(&outcome, "peak");
    assert!(peak.iter().all(|peak| *peak < MEMORY), "{peak:?} kB");
    assert!(!cfg!(target_os = "linux") || peak.iter().all(|peak| *peak > 0));
}

#[test]
fn memory_does_not_grow_with_the_databases_that_were() {
    let outcome = swarm("swarm: 10 cycles of 12 databases");
    let memory = told(&outcome, "memory");
    assert_eq!(memory.len(), 10, "{outcome:#?}");
    // The first cycles fill caches and the allocator's arenas.
    let grown = memory[9].saturating_sub(memory[2]);
    assert!(grown < 4 * 1024, "{memory:?} kB");
}
