use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::wait;
use crate::address::Address;
use crate::pg::facts::Sessions;
use crate::protocol::{
    DbName, Fingerprint, Kind, Ledger, Limit, Namespace, QueueEntry, RunId, RunKey, Runtime,
};

fn run(of: &str) -> RunId {
    RunId::new(UNIX_EPOCH, &RunKey::new(&[of]))
}

fn database(kind: Kind, of: &str) -> String {
    let namespace = Namespace::new("app").expect("valid");
    DbName::for_run(
        &namespace,
        kind,
        &Fingerprint::from_hash(&[1; 32]),
        &run(of),
    )
    .to_string()
}

fn sessions(by_database: &[(String, u32)]) -> Sessions {
    Sessions {
        usable: 97,
        max_connections: 100,
        role_limit: None,
        by_database: by_database.iter().cloned().collect(),
    }
}

#[test]
fn tests_share_all_connections_but_headroom_and_keepers() {
    let limit = Limit::new(&sessions(&[]), &BTreeSet::new(), 1);
    assert_eq!((limit.headroom, limit.keepers), (4, 4));
    assert_eq!(limit.slots, 97 - 4 - 4);
}

#[test]
fn sessions_of_other_programs_count_and_our_own_do_not() {
    let by_database = [
        (database(Kind::Clone, "here"), 10),
        (database(Kind::Kept, "here"), 1),
        ("app".to_owned(), 20),
    ];
    let limit = Limit::new(&sessions(&by_database), &BTreeSet::from([run("here")]), 0);
    assert_eq!(limit.others, 21);
    assert_eq!(limit.slots, 97 - 21 - limit.headroom);
}

#[test]
fn runs_of_other_hosts_get_equal_parts() {
    let by_database = [
        (database(Kind::Clone, "there"), 10),
        (database(Kind::Shared, "there"), 5),
        (database(Kind::Clone, "elsewhere"), 1),
    ];
    let limit = Limit::new(&sessions(&by_database), &BTreeSet::new(), 0);
    assert_eq!((limit.foreign_runs, limit.others), (2, 0));
    assert_eq!(limit.slots, (97 - limit.headroom) / 3);
}

#[test]
fn the_limit_of_the_role_counts() {
    let mut sessions = sessions(&[]);
    sessions.role_limit = Some(10);
    let limit = Limit::new(&sessions, &BTreeSet::new(), 0);
    assert_eq!((limit.slots, limit.reserved), (8, 90));
}

proptest! {
    #[test]
    fn the_limit_is_positive_and_within_max_connections(
        max in 3..2000u32, reserved in 0..10u32, others in 0..3000u32, foreign in 0..5usize, keepers in 0..5u32,
    ) {
        let mut by_database: BTreeMap<String, u32> =
            (0..foreign).map(|at| (database(Kind::Clone, &at.to_string()), 1)).collect();
        by_database.insert("app".to_owned(), others);
        let sessions = Sessions { usable: max.saturating_sub(reserved), max_connections: max, role_limit: None, by_database };
        let limit = Limit::new(&sessions, &BTreeSet::new(), keepers);
        prop_assert!(limit.slots >= 2);
        let sum = limit.slots + limit.keepers + limit.others + limit.headroom + limit.reserved;
        prop_assert!(limit.slots == 2 || sum <= max);
        for processes in 1..50 {
            let share = limit.share(processes, 5);
            prop_assert!((2..=5).contains(&share));
        }
    }
}

fn ledger(slots: u32) -> (TempDir, Runtime, Ledger) {
    let base = tempfile::tempdir().expect("a temp dir");
    let runtime = Runtime::open_at(&base.path().join("rt")).expect("a runtime directory");
    let ledger = Ledger::open(&runtime, &Address::socket("/s".into(), 5432, "me"));
    let ledger = ledger.expect("a ledger");
    let limit = Limit {
        slots,
        ..Limit::unknown()
    };
    ledger.set_limit(&limit).expect("a limit");
    (base, runtime, ledger)
}

fn enter(ledger: &Ledger, slots: u32) -> QueueEntry {
    ledger.enqueue(|_, _| slots).expect("an entry")
}

#[test]
fn a_large_entry_is_not_overtaken_by_small_ones() {
    let (_base, _, ledger) = ledger(10);
    let first = enter(&ledger, 4);
    let many = enter(&ledger, 8);
    let few = enter(&ledger, 2);
    let granted = |entry: &QueueEntry| ledger.is_granted(&entry.holder);
    assert_eq!([&first, &many, &few].map(granted), [true, false, false]);
    drop(first);
    assert_eq!([&many, &few].map(granted), [true, true]);
    let next = enter(&ledger, 1);
    assert!(!granted(&next));
    drop(many);
    assert!(granted(&next));
}

#[test]
fn an_entry_beyond_the_limit_is_granted_alone() {
    let (_base, _, ledger) = ledger(10);
    let small = enter(&ledger, 1);
    let large = enter(&ledger, 50);
    assert!(!ledger.is_granted(&large.holder));
    drop(small);
    assert!(ledger.is_granted(&large.holder));
}

#[test]
fn only_stale_entries_are_reaped() {
    let (_base, _, ledger) = ledger(10);
    let living = enter(&ledger, 6);
    let dead = enter(&ledger, 4);
    // As `kill -9` leaves it: the entry, without its flock.
    let path = dead.path().to_path_buf();
    drop(dead);
    fs::write(&path, "").expect("an entry");
    let waiting = enter(&ledger, 4);
    assert!(!ledger.is_granted(&waiting.holder));
    ledger.reap_stale_entries().expect("reaped");
    assert!(ledger.is_granted(&waiting.holder));
    assert!(living.path().exists() && waiting.path().exists() && !path.exists());
}

#[test]
fn a_run_reserves_at_most_half_of_the_free_slots_while_it_lives() {
    let (_base, runtime, ledger) = ledger(100);
    let gate = runtime.gate().expect("the gate");
    let dirs = ["a", "b", "c"].map(|of| runtime.create(&gate, &run(of)).expect("a run"));
    drop(gate);
    let reserve = |of: &str, slots| ledger.reserve(&run(of), slots).expect("an answer");
    assert!(reserve("a", 50));
    assert!(reserve("a", 50), "again for the same run");
    assert!(!reserve("b", 26));
    assert!(reserve("b", 25));
    assert_eq!(ledger.holders().len(), 2);
    assert!(!reserve("c", 40));
    drop(dirs);
    assert!(reserve("c", 40), "the other runs have ended");
}

/// Counts how often files in the ledger's directory are opened, and the directory itself.
#[cfg(target_os = "linux")]
async fn count_opened(watch: std::os::fd::OwnedFd) -> usize {
    use rustix::fs::inotify::{ReadFlags, Reader};
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 1 << 20];
    let mut opened = 0;
    let end = tokio::time::Instant::now() + Duration::from_secs(1);
    while tokio::time::Instant::now() < end {
        let mut reader = Reader::new(&watch, &mut buffer);
        while let Ok(event) = reader.next() {
            assert!(
                !event.events().contains(ReadFlags::QUEUE_OVERFLOW),
                "too many to count"
            );
            opened += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    opened
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_hundred_waiting_processes_open_few_files() {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let (base, _, ledger) = ledger(10);
    let first = enter(&ledger, 10);
    let watch = inotify::init(CreateFlags::NONBLOCK).expect("inotify");
    let directory = first.path().parent().expect("the ledger's directory");
    inotify::add_watch(&watch, directory, WatchFlags::OPEN).expect("a watch");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let ledger = ledger.clone();
        waiting.spawn(async move { wait(&ledger, |_, _| 10, |_| ()).await.map(drop) });
    }
    let opened = count_opened(watch).await;
    // Each process lists the entries as it arrives, and reads the limit.
    assert!(opened < 8_000, "{opened}");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    drop(first);
    assert!(ledger.holders().is_empty());
    drop(base);
}

#[tokio::test]
async fn a_waiting_process_is_served_soon_after_its_turn_comes() {
    let (_base, _, ledger) = ledger(10);
    let first = enter(&ledger, 10);
    let waiting = ledger.clone();
    let next = tokio::spawn(async move { wait(&waiting, |_, _| 10, |_| ()).await });
    while ledger.holders().len() < 2 {
        tokio::task::yield_now().await;
    }
    let _ = tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await;
    drop(first);
    let served = tokio::time::timeout(Duration::from_secs(10), next).await;
    served
        .expect("in time")
        .expect("no panic")
        .expect("an entry");
}

#[tokio::test]
async fn a_waiting_process_gets_the_slots_of_one_that_died_before_it() {
    let (_base, _, ledger) = ledger(10);
    let dead = enter(&ledger, 10);
    let path = dead.path().to_path_buf();
    drop(dead);
    let served = async {
        // As `kill -9` leaves it; somebody has just reaped, before the process died.
        ledger.reap_if_due(Duration::ZERO).expect("reaped");
        fs::write(&path, "").expect("an entry");
        wait(&ledger, |_, _| 10, |_| ()).await
    };
    let served = tokio::time::timeout(Duration::from_secs(10), served).await;
    served.expect("in time").expect("an entry");
    assert!(!path.exists());
}
