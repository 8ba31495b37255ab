use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::*;
use crate::protocol::{DbName, Fingerprint, Kind, Namespace, RunId, RunKey};

fn runtime() -> (tempfile::TempDir, Runtime) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let runtime = Runtime::open_at(&dir.path().join("rt")).expect("a runtime");
    (dir, runtime)
}

fn run(text: &str) -> RunId {
    RunId::new(SystemTime::now(), &RunKey::new(&[text]))
}

fn create(runtime: &Runtime, run: &RunId) -> RunDir {
    let gate = runtime.gate().expect("the gate");
    runtime.create(&gate, run).expect("a run directory")
}

fn clone(run: &RunId) -> DbName {
    let namespace = Namespace::new("app").expect("valid");
    DbName::for_run(
        &namespace,
        Kind::Clone,
        &Fingerprint::from_hash(&[7; 32]),
        run,
    )
}

#[test]
fn concurrent_claimants_get_different_databases() {
    let (_dir, runtime) = runtime();
    let run = run("race");
    let dir = create(&runtime, &run);
    for _ in 0..20 {
        dir.offer(&clone(&run), None).expect("an entry");
    }
    let barrier = Barrier::new(39);
    let claims: Vec<Option<Claim>> = std::thread::scope(|scope| {
        let claimants: Vec<_> = (0..39)
            .map(|_| {
                let (barrier, dir) = (&barrier, &dir);
                scope.spawn(move || {
                    barrier.wait();
                    dir.claim()
                })
            })
            .collect();
        claimants
            .into_iter()
            .map(|c| c.join().expect("no panic"))
            .collect()
    });
    let mut names: Vec<String> = claims
        .iter()
        .flatten()
        .map(|c| c.name.to_string())
        .collect();
    assert_eq!(names.len(), 20, "every ready database was claimed");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20, "none was claimed twice");
    assert!(dir.list(EntryState::Ready).is_empty());
}

#[test]
fn a_claim_is_abandoned_only_after_its_claimant_has_gone() {
    let (_dir, runtime) = runtime();
    let run = run("abandon");
    let dir = create(&runtime, &run);
    let name = clone(&run);
    dir.offer(&name, None).expect("an entry");
    let claim = dir.claim().expect("one is ready");
    let entries = dir.entries();
    assert_eq!(
        entries.move_abandoned(EntryState::Failed, Noticed::Later),
        []
    );
    assert!(entries.is_held(EntryState::Leased, &name));
    drop(claim);
    assert!(!entries.is_held(EntryState::Leased, &name));
    let abandoned = entries.move_abandoned(EntryState::Failed, Noticed::Later);
    assert_eq!(abandoned, std::slice::from_ref(&name));
    assert_eq!(dir.list(EntryState::Failed), [name]);
    assert!(dir.list(EntryState::Leased).is_empty());
}

#[test]
fn a_created_leased_entry_is_never_visible_unlocked() {
    let (_dir, runtime) = runtime();
    let run = run("enter");
    let dir = create(&runtime, &run);
    let claim = dir.create_leased(&clone(&run)).expect("an entry");
    assert_eq!(
        dir.entries()
            .move_abandoned(EntryState::Failed, Noticed::Later),
        []
    );
    assert!(dir.end_lease(claim, EntryState::Failed));
    assert_eq!(dir.list(EntryState::Failed).len(), 1);
}

#[test]
fn a_run_is_alive_while_a_process_holds_its_lock() {
    let (_dir, runtime) = runtime();
    let run = run("alive");
    let dir = create(&runtime, &run);
    assert_eq!(presence(&runtime, &run), Presence::Alive);
    let second = RunDir::join(dir.path()).expect("the run lives");
    drop(dir);
    assert_eq!(presence(&runtime, &run), Presence::Alive);
    drop(second);
    assert_eq!(presence(&runtime, &run), Presence::Dead);
    let gate = runtime.gate().expect("the gate");
    let fence = RunDir::fence(&gate, &runtime.run_path(&run))
        .expect("no error")
        .expect("the run is dead");
    drop(gate);
    assert!(matches!(
        RunDir::join(&runtime.run_path(&run)),
        Err(RunDirError::Gone { .. })
    ));
    fence
        .remove(&runtime.gate().expect("the gate"))
        .expect("removed");
    assert_eq!(presence(&runtime, &run), Presence::Unknown);
    assert!(matches!(
        RunDir::join(&runtime.run_path(&run)),
        Err(RunDirError::Gone { .. })
    ));
}

fn presence(runtime: &Runtime, run: &RunId) -> Presence {
    runtime.presence(&runtime.gate().expect("the gate"), run)
}

/// Checks from other threads, for as long as `task` runs.
fn while_others(check: impl Fn() + Sync, task: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    check();
                }
            });
        }
        let task = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
        done.store(true, Ordering::Relaxed);
        task.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn checks_do_not_make_a_run_look_dead_to_a_process_that_joins() {
    let (_dir, runtime) = runtime();
    let run = run("probed");
    // Between two tests of a run without keeper, no process holds its lock.
    let path = create(&runtime, &run).path().to_path_buf();
    // Each check takes a moment, and the next one waits for the gate already.
    let check = || {
        let gate = runtime.gate().expect("the gate");
        let lock = RunDir::fence(&gate, &path).expect("no error");
        std::thread::yield_now();
        drop(lock);
    };
    while_others(check, || {
        for attempt in 0..3000 {
            if let Err(error) = RunDir::join(&path) {
                panic!("attempt {attempt}: {error}");
            }
        }
    });
}

#[test]
fn checks_do_not_keep_a_keeper_from_its_lock() {
    let (_dir, runtime) = runtime();
    let dir = create(&runtime, &run("probed"));
    drop(dir.lock_keeper().expect("no error").expect("the file"));
    // Overlapping checks hold the lock shared without a gap.
    let checks = |path: &Path| {
        let file = fs::File::open(path).expect("the file");
        file.lock_shared().expect("a shared lock");
        file
    };
    let path = dir.path().join("keeper.lock");
    let held = std::sync::Mutex::new(Some(checks(&path)));
    let (started, seen) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (held, path) = (&held, &path);
        scope.spawn(move || {
            let () = seen.recv().expect("a signal");
            // More than the few milliseconds that one check may take on a busy machine.
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_millis(100) {
                let next = checks(path);
                *held.lock().expect("not poisoned") = Some(next);
            }
            held.lock().expect("not poisoned").take();
        });
        started.send(()).expect("a thread");
        let lock = dir.lock_keeper().expect("no error");
        assert!(lock.is_some(), "only checks held the lock");
    });
}

#[test]
fn a_check_of_an_entry_does_not_hide_an_abandoned_claim() {
    let (_dir, runtime) = runtime();
    let run = run("checked");
    let dir = create(&runtime, &run);
    let name = clone(&run);
    dir.offer(&name, None).expect("an entry");
    drop(dir.claim().expect("one is ready"));
    let path = dir.entries_dir(EntryState::Leased).join(name.to_string());
    let check = fs::File::open(path).expect("the entry");
    check.lock_shared().expect("a shared lock");
    assert_eq!(
        dir.entries()
            .move_abandoned(EntryState::Failed, Noticed::Later),
        [name]
    );
}

#[test]
fn a_run_ends_only_after_its_last_process() {
    let (_dir, runtime) = runtime();
    let run = run("end");
    let keeper = create(&runtime, &run);
    let test = RunDir::join(keeper.path()).expect("the run lives");
    let keeper = keeper.end().expect_err("a test lives");
    assert_eq!(presence(&runtime, &run), Presence::Alive);
    drop(test);
    keeper.end().expect("no other process");
}

#[test]
fn a_directory_that_other_users_can_access_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temp dir");
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("a mode");
    let error = Runtime::open_at(&open).expect_err("it is not private");
    assert!(error.to_string().contains("other users can access it"));

    let real = dir.path().join("real");
    private_dir(&real).expect("a private directory");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let error = Runtime::open_at(&link).expect_err("it is a link");
    assert!(error.to_string().contains("symbolic link"));
}

#[test]
fn a_run_has_at_most_one_keeper() {
    let (_dir, runtime) = runtime();
    let dir = create(&runtime, &run("keeper"));
    assert!(!dir.has_keeper());
    let lock = dir.lock_keeper().expect("no error").expect("the first");
    assert!(dir.lock_keeper().expect("no error").is_none());
    assert!(dir.has_keeper());
    drop(lock);
    assert!(!dir.has_keeper());
}

#[test]
fn the_claimant_stays_in_the_entry_in_every_state() {
    let (_dir, runtime) = runtime();
    let run = run("whose");
    let dir = create(&runtime, &run);
    let test = Claimant {
        binary: Some("app::it".to_owned()),
        attempt: 2,
        ..Claimant::named("billing::charges \"once\"")
    };
    let ready = clone(&run);
    dir.offer(&ready, None).expect("an entry");
    assert_eq!(dir.entries().claimant(EntryState::Ready, &ready), None);
    let made = clone(&run);
    let claims = [
        dir.claim().expect("one is ready"),
        dir.create_leased(&made).expect("an entry"),
    ];
    for claim in claims {
        let name = claim.name.clone();
        let claim = claim.with_claimant(Some(test.clone()));
        let read = dir.entries().claimant(EntryState::Leased, &name);
        assert_eq!(read.as_ref(), Some(&test));
        drop(claim);
        dir.entries()
            .move_abandoned(EntryState::Failed, Noticed::Later);
        assert_eq!(dir.entries().claimant(EntryState::Failed, &name), read);
    }
}

#[test]
fn an_entry_says_why_the_test_failed_and_a_message_precedes_a_death() {
    let (_dir, runtime) = runtime();
    let run = run("why");
    let dir = create(&runtime, &run);
    let claim = || {
        let claim = dir.create_leased(&clone(&run)).expect("an entry");
        claim.with_claimant(Some(Claimant::named("a")))
    };
    let causes = |to, noticed| -> Vec<Option<FailureCause>> {
        let names = dir.entries().move_abandoned(to, noticed);
        let causes = names.iter().map(|name| dir.entries().cause(to, name));
        causes.collect()
    };
    let died = |after_secs| {
        let signal = None;
        Some(FailureCause::Died { after_secs, signal })
    };
    drop(claim());
    let at_once = causes(EntryState::Failed, Noticed::AtOnce);
    assert!(
        matches!(
            &at_once[..],
            [Some(FailureCause::Died {
                after_secs: Some(0..60),
                signal: None,
            })]
        ),
        "{at_once:?}"
    );
    drop(claim());
    assert_eq!(causes(EntryState::Failed, Noticed::Later), [died(None)]);
    // No test has used this one, so nothing says since when.
    drop(dir.create_leased(&clone(&run)).expect("an entry"));
    assert_eq!(causes(EntryState::Failed, Noticed::AtOnce), [died(None)]);
    let failed = FailureCause::of_message("no such payment");
    let told = claim();
    told.note_cause(failed.as_ref().expect("a message"));
    assert_eq!(told.claimant(), Some(&Claimant::named("a")));
    drop(told);
    assert_eq!(causes(EntryState::Failed, Noticed::AtOnce), [failed]);
}

#[test]
fn an_unused_claim_has_no_claimant() {
    let (_dir, runtime) = runtime();
    let run = run("unused");
    let dir = create(&runtime, &run);
    let name = clone(&run);
    let claim = dir.create_leased(&name).expect("an entry");
    let claim = claim
        .with_claimant(Some(Claimant::named("a")))
        .without_claimant();
    assert_eq!(claim.claimant(), None);
    assert!(dir.end_lease(claim, EntryState::Released));
    assert_eq!(dir.entries().claimant(EntryState::Released, &name), None);
}

#[test]
fn attempts_of_one_test_have_the_same_binary_round_and_run() {
    let first = Claimant {
        binary: Some("app::it".to_owned()),
        stress: Some(1),
        nextest_run: Some("r".to_owned()),
        ..Claimant::named("a")
    };
    let other = |change: fn(&mut Claimant)| {
        let mut other = first.clone();
        change(&mut other);
        first.is_same_test(&other)
    };
    assert!(other(|c| c.attempt = 3));
    assert!(!other(|c| c.test = "b".to_owned()));
    assert!(!other(|c| c.binary = None));
    assert!(!other(|c| c.stress = Some(2)));
    assert!(!other(|c| c.nextest_run = None));
}
