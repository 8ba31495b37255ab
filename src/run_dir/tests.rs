use super::*;
use crate::name::{DbName, Fingerprint, Kind, Namespace, RunId, RunKey};
use std::sync::Barrier;
use std::time::SystemTime;

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
fn of_many_claimants_at_once_each_gets_another_database() {
    let (_dir, runtime) = runtime();
    let run = run("race");
    let dir = create(&runtime, &run);
    for _ in 0..20 {
        dir.offer(&clone(&run)).expect("an entry");
    }
    let barrier = Barrier::new(39);
    let claims: Vec<Option<Claim>> = std::thread::scope(|scope| {
        let claimants: Vec<_> = (0..39)
            .map(|slot| {
                let (barrier, dir) = (&barrier, &dir);
                scope.spawn(move || {
                    barrier.wait();
                    dir.claim(slot)
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
    assert!(dir.list(Folder::Ready).is_empty());
}

#[test]
fn a_claim_is_abandoned_when_its_holder_is_gone_and_not_before() {
    let (_dir, runtime) = runtime();
    let run = run("abandon");
    let dir = create(&runtime, &run);
    let name = clone(&run);
    dir.offer(&name).expect("an entry");
    let claim = dir.claim(0).expect("one is ready");
    let entries = dir.entries();
    assert_eq!(entries.settle_abandoned(Folder::Failed), []);
    assert!(entries.is_held(Folder::Leased, &name));
    drop(claim);
    assert!(!entries.is_held(Folder::Leased, &name));
    let abandoned = entries.settle_abandoned(Folder::Failed);
    assert_eq!(abandoned, std::slice::from_ref(&name));
    assert_eq!(dir.list(Folder::Failed), [name]);
    assert!(dir.list(Folder::Leased).is_empty());
}

#[test]
fn a_database_entered_as_leased_is_never_seen_unlocked() {
    let (_dir, runtime) = runtime();
    let run = run("enter");
    let dir = create(&runtime, &run);
    let claim = dir.enter_leased(&clone(&run)).expect("an entry");
    assert_eq!(dir.entries().settle_abandoned(Folder::Failed), []);
    assert!(dir.leave(claim, Folder::Failed));
    assert_eq!(dir.list(Folder::Failed).len(), 1);
}

#[test]
fn a_run_is_alive_while_anybody_holds_it() {
    let (_dir, runtime) = runtime();
    let run = run("alive");
    let dir = create(&runtime, &run);
    assert_eq!(runtime.presence(&run), Presence::Alive);
    let second = RunDir::join(dir.path()).expect("the run lives");
    drop(dir);
    assert_eq!(runtime.presence(&run), Presence::Alive);
    drop(second);
    assert_eq!(runtime.presence(&run), Presence::Dead);
    let fence = RunDir::fence(&runtime.run_path(&run))
        .expect("no error")
        .expect("nobody lives");
    assert!(matches!(
        RunDir::join(&runtime.run_path(&run)),
        Err(RunDirError::Gone { .. })
    ));
    fence
        .remove(&runtime.gate().expect("the gate"))
        .expect("removed");
    assert_eq!(runtime.presence(&run), Presence::Unknown);
    assert!(matches!(
        RunDir::join(&runtime.run_path(&run)),
        Err(RunDirError::Gone { .. })
    ));
}

#[test]
fn who_ends_a_run_waits_for_the_others() {
    let (_dir, runtime) = runtime();
    let run = run("end");
    let keeper = create(&runtime, &run);
    let test = RunDir::join(keeper.path()).expect("the run lives");
    let keeper = keeper.end().expect_err("a test lives");
    assert_eq!(runtime.presence(&run), Presence::Alive);
    drop(test);
    keeper.end().expect("nobody else lives");
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temp dir");
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("a mode");
    let error = Runtime::open_at(&open).expect_err("it is not private");
    assert!(error.to_string().contains("other users may enter it"));

    let real = dir.path().join("real");
    private_dir(&real).expect("a private folder");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let error = Runtime::open_at(&link).expect_err("it is a link");
    assert!(error.to_string().contains("symbolic link"));
}

#[test]
fn only_one_keeper() {
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
fn an_entry_tells_who_claimed_it_wherever_it_goes() {
    let (_dir, runtime) = runtime();
    let run = run("whose");
    let dir = create(&runtime, &run);
    let test = Claimant {
        binary: Some("app::it".to_owned()),
        attempt: 2,
        ..Claimant::named("billing::charges \"once\"")
    };
    let ready = clone(&run);
    dir.offer(&ready).expect("an entry");
    assert_eq!(dir.entries().claimant(Folder::Ready, &ready), None);
    let made = clone(&run);
    let claims = [
        dir.claim(0).expect("one is ready"),
        dir.enter_leased(&made).expect("an entry"),
    ];
    for claim in claims {
        let name = claim.name.clone();
        let claim = claim.by(Some(test.clone()));
        let read = dir.entries().claimant(Folder::Leased, &name);
        assert_eq!(read.as_ref(), Some(&test));
        drop(claim);
        dir.entries().settle_abandoned(Folder::Failed);
        assert_eq!(dir.entries().claimant(Folder::Failed, &name), read);
    }
}

#[test]
fn a_claim_that_no_test_has_used_names_none() {
    let (_dir, runtime) = runtime();
    let run = run("unused");
    let dir = create(&runtime, &run);
    let name = clone(&run);
    let claim = dir.enter_leased(&name).expect("an entry");
    let claim = claim.by(Some(Claimant::named("a"))).unused();
    assert_eq!(claim.claimant(), None);
    assert!(dir.leave(claim, Folder::Released));
    assert_eq!(dir.entries().claimant(Folder::Released, &name), None);
}

#[test]
fn attempts_are_of_one_test_only_with_the_same_binary_round_and_run() {
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
