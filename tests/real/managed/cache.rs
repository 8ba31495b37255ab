//! The cache of clusters: the second cold start runs no `initdb`, and nothing that is wrong with the cache keeps a server away.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{FakeBin, Outcome, Project};

fn project() -> (Project, FakeBin) {
    let mut project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    let bin = FakeBin::of(&mut project);
    bin.count_initdb();
    (project, bin)
}

/// Stops the server and removes all that it has: the next start is a cold one.
fn make_cold(project: &Project) {
    project.run("server stop").code(0);
    fs::remove_dir_all(project.state_dir()).expect("the state");
}

fn cached(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn in_home(project: &Project) -> PathBuf {
    project.beside("home/.cache/kapsel-testdb")
}

#[test]
fn the_second_cold_start_runs_no_initdb() {
    let (project, bin) = project();
    let template = project.prepared();
    make_cold(&project);
    assert_eq!(project.prepared(), template);
    assert_eq!(bin.initdb_runs(), 1);
    let entries = cached(&in_home(&project));
    assert_eq!(entries.len(), 1, "{entries:?}");
    let mode = fs::metadata(&entries[0]).expect("a folder").permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}

#[test]
fn two_cold_starts_at_once_store_one() {
    let (mut project, bin) = project();
    let one = project.tool("prepare").spawn();
    let state = project.state_dir();
    project.set(
        "KAPSEL_TESTDB_SERVER_STATE_DIR",
        &project.beside("s2").to_string_lossy(),
    );
    let other = project.tool("prepare").spawn();
    for child in [one, other] {
        Outcome::of(child).code(0).says(&["managed PostgreSQL"]);
    }
    assert!((1..=2).contains(&bin.initdb_runs()));
    assert_eq!(cached(&in_home(&project)).len(), 1);
    project.run("server stop").code(0);
    project.set("KAPSEL_TESTDB_SERVER_STATE_DIR", &state.to_string_lossy());
}

#[test]
fn a_damaged_one_is_made_anew() {
    let (project, bin) = project();
    project.prepared();
    make_cold(&project);
    let entry = cached(&in_home(&project)).remove(0);
    let victim = File::options()
        .write(true)
        .open(entry.join("data/global/pg_control"));
    victim.and_then(|f| f.set_len(100)).expect("cut short");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["creating a new cluster", "truncated"]);
    assert_eq!(bin.initdb_runs(), 2);
    make_cold(&project);
    project
        .run("prepare")
        .code(0)
        .never_says("creating a new cluster");
    assert_eq!(bin.initdb_runs(), 2);
}

#[test]
fn one_that_does_not_start_is_made_anew() {
    let (project, bin) = project();
    project.prepared();
    make_cold(&project);
    let entry = cached(&in_home(&project)).remove(0);
    let control = entry.join("data/global/pg_control");
    let length = fs::metadata(&control).expect("it").len();
    fs::write(&control, vec![0; length as usize]).expect("zeros");
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["creating a new cluster", "managed PostgreSQL"]);
    assert_eq!(bin.initdb_runs(), 2);
    assert!(!entry.exists());
}

#[test]
fn without_a_home_it_is_in_the_temp_dir() {
    let (mut project, bin) = project();
    let temp = project.beside("tmp");
    fs::create_dir(&temp).expect("a folder");
    project.set("TMPDIR", &temp.to_string_lossy());
    // Nobody can make a folder there, root neither.
    project.set("HOME", "/proc/nobody");
    project.prepared();
    make_cold(&project);
    project.prepared();
    assert_eq!(bin.initdb_runs(), 1);
    assert_eq!(cached(&temp).len(), 1);
}

#[test]
fn without_any_place_and_without_the_wish_there_is_none() {
    let (mut project, bin) = project();
    project.set("KAPSEL_TESTDB_SERVER_CACHE", "false");
    project.prepared();
    assert!(!project.beside("home/.cache").exists());
    make_cold(&project);
    project.set("KAPSEL_TESTDB_SERVER_CACHE", "true");
    project.set("HOME", "/proc/nobody");
    project.set("TMPDIR", "/proc/nobody");
    project.run("prepare").code(0).never_says("warn");
    assert_eq!(bin.initdb_runs(), 2);
}

#[test]
fn a_folder_that_others_may_write_is_not_used() {
    let (mut project, bin) = project();
    project.prepared();
    make_cold(&project);
    let temp = project.beside("tmp");
    fs::create_dir(&temp).expect("a folder");
    project.set("TMPDIR", &temp.to_string_lossy());
    let parent = project.beside("home/.cache");
    fs::set_permissions(parent, Permissions::from_mode(0o777)).expect("its mode");
    project.prepared();
    assert_eq!(bin.initdb_runs(), 2);
    assert_eq!(cached(&temp).len(), 1);
}
