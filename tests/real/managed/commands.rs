//! `kapsel-testdb server`: the managed server by hand, and what is said of an adopted one.

use crate::support::{DeadRun, Project, ROLE, Server};

#[test]
fn it_is_started_shown_opened_restarted_and_stopped() {
    let project = Project::new("app");
    let status = project.run("server status");
    status.code(0).says(&["is not running"]);
    assert!(!status.stdout.contains("data "), "{status:?}");
    let outcome = project.run("server psql");
    outcome.code(4).says(&["`kapsel-testdb server start`"]);
    project.run("server logs").code(0).says(&["is empty"]);
    project
        .run("server restart")
        .code(0)
        .says(&["is not running", "started"]);
    project
        .run("server start")
        .code(0)
        .says(&["is already running"]);

    let status = project.run("server status");
    for text in [
        "managed PostgreSQL",
        "process ",
        "uptime ",
        " MB\n",
        "socket ",
        "log ",
        "UTF8/C",
    ] {
        assert!(status.code(0).stdout.contains(text), "{text}: {status:?}");
    }
    let json = project.run("server status --json").code(0).json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["running"], true);
    assert!(
        json["size_bytes"]
            .as_u64()
            .is_some_and(|size| size > 1 << 20)
    );
    let pid = json["pid"].as_u64().expect("a pid");

    let opened = project
        .tool("server psql -Atc")
        .args(["SELECT current_user"]);
    assert_eq!(opened.run().code(0).stdout, "postgres\n");
    let failed = project
        .tool("server psql -c")
        .args(["SELECT nowhere"])
        .run();
    assert_eq!(failed.code, 1, "psql's own: {failed:?}");

    project
        .run("server restart")
        .code(0)
        .says(&["stopped", "started"]);
    let json = project.run("server status --json").code(0).json();
    assert_ne!(json["pid"].as_u64(), Some(pid));
    let log = project.run("server logs -n 1");
    assert!(
        log.code(0).stdout.contains("ready to accept connections"),
        "{log:?}"
    );
    project.run("server stop").code(0).says(&["stopped"]);
    project.run("server stop").code(0).says(&["is not running"]);
}

#[test]
fn under_a_live_run_it_is_neither_stopped_nor_restarted() {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    let run = DeadRun::leave(&project, "live");
    let _lock = run.join();
    for command in ["server stop", "server restart", "server stop --quiet"] {
        let outcome = project.run(command);
        outcome.code(8).says(&["not stopped", &run.run, "--force"]);
    }
    let outcome = project.run("wait --timeout 0 --quiet");
    outcome.code(8).says(&[&run.run, "is still alive"]);
    project
        .run("server stop --force")
        .code(0)
        .says(&["stopped the"]);
}

#[test]
fn an_adopted_one_is_shown_and_left_alone() {
    let server = Server::start();
    let project = Project::on(&server);
    for (command, said) in [
        ("server start", "nothing to start"),
        ("server stop --force", "nothing to stop"),
        ("server restart", "nothing to restart"),
        ("server logs", "no log to show"),
    ] {
        let outcome = project.run(command);
        outcome.code(0).says(&[said, "not managed"]);
    }
    let json = project.run("server status --json").code(0).json();
    assert_eq!(json["managed"], false);
    assert_eq!(json["running"], true);
    let status = project.run("server status");
    assert!(status.code(0).stdout.contains("adopted PostgreSQL"));
}

#[test]
fn psql_gets_the_password_and_nobody_sees_it() {
    let password = "s3cret:with\\all";
    let server = Server::start_scram(password);
    let mut project = Project::new("app");
    let encoded = "s3cret%3Awith%5Call";
    let url = server.url().replace(ROLE, &format!("{ROLE}:{encoded}"));
    project.set("DATABASE_URL", &url);
    project.set("PGPASSWORD", "wrong");
    // What psql's own process shows to others, but for the URL that the test itself has set.
    let script = r#"\! tr '\0' '\n' </proc/$PPID/cmdline; tr '\0' '\n' </proc/$PPID/environ | grep -v ^DATABASE_URL="#;
    let tool = project
        .tool("server psql -At -c")
        .args(["SELECT current_user", "-c", script]);
    let outcome = tool.args(["-c", "\\c", "-c", "SELECT 'again'"]).run();
    outcome.code(0).never_says(password).never_says("s3cret");
    assert!(
        outcome.stdout.starts_with(&format!("{ROLE}\n")),
        "{outcome:?}"
    );
    assert!(outcome.stdout.contains("PGPASSFILE="), "{outcome:?}");
    assert!(outcome.stdout.ends_with("again\n"), "{outcome:?}");
}

#[test]
fn it_is_stopped_with_its_data() {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    let run = DeadRun::leave(&project, "live");
    let lock = run.join();
    let dir = project.managed_dir().expect("a managed server");
    let outcome = project.run("server stop --delete");
    outcome.code(8).says(&["not stopped", &run.run]);
    assert!(dir.join("data").exists());
    drop(lock);
    std::fs::write(dir.join("mine"), "").expect("a file");
    let of_others = project.state_dir().join("pg_backups/data");
    std::fs::create_dir_all(&of_others).expect("a directory");
    let outcome = project.run("server stop --delete --all");
    outcome.code(0).says(&["removed its data in", "/s/pg"]);
    assert!(!dir.join("data").exists() && !dir.join("log").exists());
    assert!(dir.join("mine").exists() && of_others.exists());
    std::fs::remove_file(dir.join("mine")).expect("a file");
    // Also the data of a server that does not run.
    project.run("server start").code(0);
    project
        .run("server stop")
        .code(0)
        .says(&["`--delete` removes it"]);
    project.run("server stop --delete").code(0);
    assert!(!dir.exists());
    let outcome = project.run("server stop --delete");
    outcome.code(0).says(&["there are no data in"]);
}
