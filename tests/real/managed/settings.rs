//! `server.settings`: they are applied, belong to the identity of the managed server, and wrong ones are named.

use std::fs;

use crate::support::Project;

fn project(settings: &str) -> Project {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project.config(settings);
    project
}

/// What a session that sets nothing itself shows.
#[track_caller]
fn show(project: &Project, setting: &str) -> String {
    let psql = project.tool("server psql -XAtc");
    let outcome = psql.args([format!("SHOW {setting}")]).run();
    outcome.code(0).stdout.trim().to_owned()
}

#[test]
fn the_time_zone_does_not_depend_on_the_machine() {
    let project = project("");
    project.prepared();
    assert_eq!(show(&project, "timezone"), "UTC");
}

#[test]
fn settings_are_applied_and_each_combination_has_a_server() {
    let mut project = project(
        "[server.settings]\ntimezone = 'Europe/Berlin'\nwal_level = 'logical'\nmax_prepared_transactions = 7\n\
         shared_preload_libraries = ['auto_explain']\nauto_explain.log_min_duration = 1000\nfsync = false\n",
    );
    project.prepared();
    for (setting, value) in [
        ("timezone", "Europe/Berlin"),
        ("wal_level", "logical"),
        ("max_prepared_transactions", "7"),
        ("shared_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "1s"),
        ("fsync", "off"),
        // What is not set has our value, or with this `wal_level` PostgreSQL's.
        ("max_connections", "1000"),
        ("max_wal_senders", "10"),
    ] {
        assert_eq!(show(&project, setting), value, "{setting}");
    }
    // The same settings are the same server, other settings another one, and both run.
    let data = |project: &Project| {
        let json = project.run("server status --json").code(0).json();
        json["data_directory"]
            .as_str()
            .expect("a directory")
            .to_owned()
    };
    let first = data(&project);
    project.set("KAPSEL_TESTDB_SERVER_SETTINGS", "{ WORK_MEM = '9MB' }");
    project.prepared();
    let second = data(&project);
    assert_ne!(first, second);
    assert_eq!(show(&project, "work_mem"), "9MB");
    assert_eq!(show(&project, "wal_level"), "minimal");
    let status = project.run("server status");
    status.code(0).says(&["`kapsel-testdb server stop --all`"]);
    assert!(status.stdout.contains(first.trim_end_matches("/data")));
    project.run("server stop").code(0).says(&["stopped"]);
    assert!(fs::exists(format!("{first}/postmaster.pid")).expect("a directory"));
    project
        .run("server stop --all")
        .code(0)
        .says(&["is not running", "stopped"]);
    for data in [first, second] {
        assert!(!fs::exists(format!("{data}/postmaster.pid")).expect("a directory"));
    }
}

#[test]
fn names_and_values_that_are_wrong_are_named() {
    let started = [
        (
            "wal_leve = 'logical'",
            "wal_leve",
            "unrecognized configuration parameter",
        ),
        ("max_connections = 'many'", "max_connections", "many"),
        (
            "shared_preload_libraries = 'pg_nothing'",
            "shared_preload_libraries",
            "pg_nothing",
        ),
        // Wrong together with another one of ours.
        ("max_wal_senders = 3", "max_wal_senders", "wal_level"),
    ];
    for (line, name, reason) in started {
        let project = project(&format!("[server.settings]\nwork_mem = '9MB'\n{line}\n"));
        let outcome = project.run("prepare");
        let key = format!("`server.settings.{name}`");
        outcome.code(4).says(&[&*key, reason, "correct or remove"]);
        outcome.never_says("the copy from the cache failed");
    }
    let read = [
        ("port = 5433", "`server.settings.port = 5433`"),
        ("'wal level' = 'x'", "`server.settings.wal level = \"x\"`"),
        ("work_mem = [1]", "`server.settings.work_mem = [1]`"),
    ];
    for (line, key) in read {
        let project = project(&format!("[server.settings]\n{line}\n"));
        project.run("prepare").code(3).says(&[key]);
    }
    let mut project = project("");
    project.set("KAPSEL_TESTDB_SERVER_SETTINGS", "wal_level=logical");
    project.run("prepare").code(3).says(&[
        "KAPSEL_TESTDB_SERVER_SETTINGS",
        "`{ wal_level = \"logical\" }`",
    ]);
}
