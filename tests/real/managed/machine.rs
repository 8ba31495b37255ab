//! Managed servers on small and shared machines: little memory for files, a second user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use kapsel_testdb_core::platform::user_ids;

use crate::support::{BINARY, FakeBin, Outcome, Project};

fn project() -> Project {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project
}

/// Runs a shell script in which mounts are its own; `None` where that is not allowed. `$0` is the program under test.
fn with_own_mounts(project: &Project, script: &str) -> Option<Outcome> {
    let allowed = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"])
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let tool = project.program("unshare");
    Some(tool.args(["-m", "sh", "-c", script, BINARY]).run())
}

#[test]
fn a_full_tmpfs_is_named_with_its_room_and_the_remedies() {
    let project = project();
    let sql =
        "CREATE TABLE large AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 300000);";
    project.migration("0002_large", sql);
    // 24 MB of a cluster, its log, and 300 MB that do not fit.
    let script = r#"mkdir -m 711 "$KAPSEL_TESTDB_SERVER_STATE_DIR"
        mount -t tmpfs -o size=250m,mode=711 none "$KAPSEL_TESTDB_SERVER_STATE_DIR" || exit 99
        "$0" prepare; code=$?
        "$0" server stop --force
        exit $code"#;
    let Some(outcome) = with_own_mounts(&project, script) else {
        return;
    };
    let place = format!("`{}/pg", project.state_dir().display());
    outcome.code(5).says(&[
        "0002_large.sql",
        "53100",
        &place,
        "is on a file system of 250 MB",
        "`server.state_dir`",
        "--shm-size",
    ]);
}

#[test]
fn full_shared_memory_is_named_instead_of_the_disk() {
    // The script mounts another /dev/shm.
    let project = Project::on_disk("app");
    // Parallel workers share the hash table of a join.
    let sql = "CREATE TABLE large AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 200000) g;
        ANALYZE large;
        SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET work_mem = '64MB';
        SELECT count(*) FROM large a JOIN large b USING (id) WHERE a.t < b.t || 'y';";
    project.migration("0001_large", sql);
    let script = r#"mount -t tmpfs -o size=2m,mode=1777 none /dev/shm || exit 99
        "$0" prepare; code=$?
        "$0" server stop --force
        exit $code"#;
    let Some(outcome) = with_own_mounts(&project, script) else {
        return;
    };
    outcome
        .code(5)
        .says(&[
            "0001_large.sql",
            "53100",
            "`/dev/shm` (2 MB) is full",
            "--shm-size",
        ])
        .never_says("`server.state_dir`");
}

#[test]
fn a_small_tmpfs_is_not_chosen() {
    // The script mounts another /dev/shm.
    let mut project = Project::on_disk("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    let temp = project.beside("tmp");
    fs::create_dir(&temp).expect("a folder");
    fs::set_permissions(&temp, Permissions::from_mode(0o711)).expect("its mode");
    project.set("TMPDIR", &temp.to_string_lossy());
    let script = r#"unset KAPSEL_TESTDB_SERVER_STATE_DIR
        mount -t tmpfs -o size=64m,mode=1777 none /dev/shm || exit 99
        "$0" prepare; code=$?
        "$0" server stop --force
        exit $code"#;
    let Some(outcome) = with_own_mounts(&project, script) else {
        return;
    };
    let place = format!("postgres@{}/kapsel-testdb-0-pg/", temp.display());
    outcome.code(0).says(&[&place]);
}

#[test]
fn a_directory_that_the_servers_user_may_not_enter_is_named() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut project = project();
    let closed = project.beside("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("its mode");
    let state = closed.join("s");
    project.set("KAPSEL_TESTDB_SERVER_STATE_DIR", &state.to_string_lossy());
    // `initdb` fails the first time; with a cluster from the cache, the server.
    for _ in 0..2 {
        project.run("prepare").code(4).says(&[
            "`postgres`",
            &format!("may not enter `{}` (mode 700)", closed.display()),
            "`server.state_dir`",
            &format!("chmod o+x {}", closed.display()),
        ]);
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o711)).expect("its mode");
    project.run("prepare").code(0);
    project.run("server stop").code(0);
}

#[test]
fn a_new_locale_gives_a_new_cluster_instead_of_the_cached_one() {
    let mut project = project();
    let bin = FakeBin::of(&mut project);
    bin.count_initdb();
    let make_cold = |project: &Project| {
        project.run("server stop").code(0);
        fs::remove_dir_all(project.state_dir()).expect("the state");
    };
    project.prepared();
    make_cold(&project);
    project.prepared();
    assert_eq!(bin.initdb_runs(), 1);
    make_cold(&project);
    // The script mounts another `locale`.
    let locale = project.beside("locale");
    fs::write(&locale, "#!/bin/sh\nprintf 'C\\nPOSIX\\nxx_XX.utf8\\n'\n").expect("a script");
    fs::set_permissions(&locale, Permissions::from_mode(0o755)).expect("its mode");
    project.set("LOCALE", &locale.to_string_lossy());
    let script = r#"mount --bind "$LOCALE" /usr/bin/locale || exit 99
        "$0" prepare; code=$?
        "$0" server stop --force
        exit $code"#;
    let Some(outcome) = with_own_mounts(&project, script) else {
        return;
    };
    outcome.code(0);
    assert_eq!(bin.initdb_runs(), 2);
}

/// A user's own folders below a shared one, and a program that is theirs to run.
fn as_user(project: &Project, uid: u32, shared: &Path, words: &str) -> Command {
    let home = shared.join(format!("home-{uid}"));
    if !home.exists() {
        fs::create_dir(&home).expect("a home");
        fs::create_dir(home.join("state")).expect("a folder");
        fs::set_permissions(home.join("state"), Permissions::from_mode(0o700)).expect("its mode");
        for path in [home.join("state"), home.clone()] {
            chown(&path, Some(uid), Some(uid)).expect("given to the user");
        }
        // Read-only: a cache is nothing that must be there.
        fs::set_permissions(&home, Permissions::from_mode(0o555)).expect("its mode");
    }
    let mut command = project.program(shared.join("kapsel-testdb")).into_command();
    command
        .args(words.split_whitespace())
        .env_remove("KAPSEL_TESTDB_RUNTIME_DIR")
        .env("TMPDIR", shared)
        .env("HOME", &home)
        .env("KAPSEL_TESTDB_SERVER_STATE_DIR", home.join("state"));
    use std::os::unix::process::CommandExt;
    command.uid(uid).gid(uid);
    command
}

#[test]
fn two_users_have_a_server_each_and_nobody_takes_anothers() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let project = project();
    let shared = project.beside("tmp");
    fs::create_dir(&shared).expect("a folder");
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("its mode");
    fs::copy(BINARY, shared.join("kapsel-testdb")).expect("a copy");
    for folder in [project.beside(""), project.root().to_path_buf()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("its mode");
    }
    let run = |uid: u32, words: &str| as_user(&project, uid, &shared, words);
    let outcome = |mut command: Command| -> Outcome {
        let output = command.output().expect("it runs");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    };
    // initdb wants users that have names.
    let uid = |name: &str| user_ids(name).map(|(uid, _)| uid);
    let (Some(one), Some(other)) = (uid("daemon"), uid("nobody")) else {
        return;
    };
    for uid in [one, other] {
        let home = format!("home-{uid}");
        let prepared = outcome(run(uid, "prepare"));
        prepared.code(0).says(&["managed PostgreSQL", &home]);
        // Their home is read-only, so the temp dir has what they keep, by their number.
        assert!(shared.join(format!("kapsel-testdb-{uid}-cache")).is_dir());
        assert!(shared.join(format!("kapsel-testdb-{uid}")).is_dir());
    }
    let mut intruder = run(other, "prepare");
    let theirs = shared.join(format!("home-{one}/state"));
    intruder.env("KAPSEL_TESTDB_SERVER_STATE_DIR", &theirs);
    let refused = outcome(intruder);
    refused.code(4).says(&[
        &format!("`{}`", theirs.display()),
        "belongs to another user",
        "`server.state_dir`",
    ]);
    for uid in [one, other] {
        outcome(run(uid, "server stop")).code(0).says(&["stopped"]);
    }
}
