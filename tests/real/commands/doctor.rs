//! `doctor` on good, slow and unusable servers: its findings are correct, and its fixes work.

use std::io::Read;

use serde_json::Value;

use crate::support::{DeadRun, Outcome, PATIENCE, Project, Server, poll_until};

/// Level, name and fix of all problems.
fn findings(outcome: &Outcome) -> Vec<(String, String, String)> {
    let json = outcome.json();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = json["checks"].as_array().expect("checks").iter();
    checks
        .filter(|check| check["level"] != "ok")
        .map(|check| {
            (
                text(check, "level"),
                text(check, "name"),
                text(check, "fix"),
            )
        })
        .collect()
}

fn names(outcome: &Outcome) -> Vec<String> {
    findings(outcome)
        .into_iter()
        .map(|(_, name, _)| name)
        .collect()
}

/// A project with a valid nextest configuration.
fn project(server: &Server) -> Project {
    let mut project = Project::on(server);
    project.set("NEXTEST_TEST_THREADS", "2");
    project
        .run("init --command /bin/true-kapsel-testdb")
        .code(0);
    let nextest = std::fs::read_to_string(project.root().join(".config/nextest.toml"));
    let binary = crate::support::BINARY;
    let text = nextest
        .expect("what init wrote")
        .replace("/bin/true-kapsel-testdb", binary);
    project.write(".config/nextest.toml", &text);
    project
}

#[test]
fn managed_server_has_no_problems() {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    let outcome = project.run("doctor");
    assert!(
        outcome.code(0).stdout.contains("is not running"),
        "{outcome:#?}"
    );
    project.prepared();
    let outcome = project.run("doctor --json");
    let of_the_server = |name: &String| name != "nextest" && name != "shared memory";
    let found: Vec<_> = names(outcome.code(0))
        .into_iter()
        .filter(of_the_server)
        .collect();
    assert_eq!(found, [""; 0], "{outcome:#?}");
}

#[test]
fn suggested_fixes_work() {
    let server = Server::start_as_shipped();
    let project = project(&server);
    let outcome = project.run("doctor --json");
    let found = findings(outcome.code(0));
    let names_before = names(&outcome);
    for name in ["fsync", "synchronous_commit", "rights", "jit", "autovacuum"] {
        assert!(
            names_before.iter().any(|n| n == name),
            "{name}: {outcome:#?}"
        );
    }
    assert!(found.iter().all(|(level, ..)| level != "fails"));
    for (_, _, fix) in &found {
        let sql = fix.strip_prefix("as a superuser: ").unwrap_or(fix);
        let sql = sql.split(" --").next().unwrap_or(sql);
        // One statement at a time, as psql sends what is pasted: ALTER SYSTEM wants no transaction around it.
        for statement in sql.split_inclusive(';') {
            if ["ALTER", "GRANT", "SELECT"]
                .iter()
                .any(|w| statement.trim().starts_with(w))
            {
                server.execute(statement);
            }
        }
    }
    // A reload takes a moment to arrive. Two findings come up once fsync is off.
    poll_until("all problems are fixed", PATIENCE, || {
        let left = names(&project.run("doctor --json"));
        let expected = ["full_page_writes", "shared memory", "nextest"];
        match left.iter().all(|name| expected.contains(&name.as_str())) {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    });
}

#[test]
fn too_few_connections_are_slow_and_not_a_failure() {
    let server = Server::start_with(&["max_connections=15"]);
    let project = project(&server);
    let outcome = project
        .tool("doctor")
        .env("NEXTEST_TEST_THREADS", "8")
        .run();
    let text = &outcome.code(0).stdout;
    for part in [
        "slow   max_connections",
        "10 available for tests, 48 needed: each pool gets 2",
        "fix: as a superuser: ALTER SYSTEM",
    ] {
        assert!(text.contains(part), "{part}: {outcome:#?}");
    }
}

#[test]
fn what_will_fail_ends_with_1() {
    let server = Server::start();
    let project = project(&server);
    project.run("doctor").code(0);
    server.execute("ALTER ROLE app SET default_transaction_read_only = on");
    let outcome = project.run("doctor --json");
    let found = findings(outcome.code(1));
    let (level, name, fix) = &found[0];
    assert_eq!(
        (level.as_str(), name.as_str()),
        ("fails", "read-only"),
        "{found:?}"
    );
    assert_ne!(project.run("prepare").code, 0, "doctor was right");
    let mut session = server.session_of_role("postgres");
    session.execute(fix);
    session.close();
    project.run("doctor").code(0);
    project.config("[template]\nextensions = [\"no_such_extension\"]\nbaze = \"x\"\n");
    let outcome = project.run("doctor");
    for part in [
        "FAILS extension",
        "`no_such_extension`",
        "note configuration",
        "did you mean `template.base`",
    ] {
        assert!(
            words(outcome.code(1)).contains(part),
            "{part}: {outcome:#?}"
        );
    }
    project.config("[template]\nbase = \"nowhere\"\n");
    project.run("doctor").code(1);
}

/// What was printed, wherever the lines are broken.
fn words(outcome: &Outcome) -> String {
    outcome
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn another_version_than_the_configured_one_fails() {
    let server = Server::start();
    let project = project(&server);
    project.config("[server]\nversion = 99\n");
    let outcome = project.run("doctor");
    assert!(
        outcome.code(1).stdout.contains("FAILS  version"),
        "{outcome:#?}"
    );
    let message = ["is version", "but `server.version` is 99"];
    project.run("prepare").code(4).says(&message);
    // What exists on the server can still be looked at.
    project.run("status").code(0);
}

#[test]
fn servers_that_cannot_be_used_are_findings() {
    let server = Server::start();
    server.execute("CREATE ROLE reader LOGIN");
    for (url, says) in [
        ("postgres://me@%2Fnowhere/app".to_owned(), "cannot reach"),
        (
            "postgres://me@db.example/app".to_owned(),
            "is not on this machine",
        ),
        (server.url_of("reader"), "may not create databases"),
    ] {
        let mut project = project(&server);
        project.set("DATABASE_URL", &url);
        let outcome = project.run("doctor");
        let text = words(outcome.code(1));
        assert!(
            text.contains("FAILS server") && text.contains(says),
            "{outcome:#?}"
        );
    }
}

#[test]
fn nextest_that_cannot_start_the_script_is_found() {
    let server = Server::start();
    let project = Project::on(&server);
    assert!(names(project.run("doctor --json").code(0)).contains(&"nextest".to_owned()));
    project.run("init --command /no/such/kapsel-testdb").code(0);
    let outcome = project.run("doctor");
    assert!(
        outcome.code(1).stdout.contains("FAILS  program"),
        "{outcome:#?}"
    );
}

#[test]
fn leftovers_are_reported_and_not_removed() {
    let server = Server::start();
    let mut project = project(&server);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let run = DeadRun::leave(&project, "dead");
    let before = server.databases();
    let outcome = project.run("doctor");
    for part in ["note   leftovers", "fix: kapsel-testdb sweep"] {
        assert!(outcome.code(0).stdout.contains(part), "{outcome:#?}");
    }
    assert_eq!(server.databases(), before);
    assert!(run.dir.exists());
    project.run("sweep").code(0);
    assert!(!names(&project.run("doctor --json")).contains(&"leftovers".to_owned()));
}

/// The clone strategies that the server supports, and the one that is selected with fsync off.
fn strategies(server: &Server) -> (Vec<&'static str>, &'static str) {
    let sql = "SELECT current_setting('server_version_num')";
    let version: u32 = server.column_in("postgres", sql)[0]
        .parse()
        .expect("a number");
    match version / 10_000 {
        18.. if cfg!(target_os = "linux") => {
            (vec!["default", "file_copy", "file_clone"], "file_clone")
        }
        15.. => (vec!["default", "file_copy"], "file_copy"),
        _ => (vec!["default"], "default"),
    }
}

#[test]
fn every_clone_strategy_is_measured_and_no_clone_remains() {
    let server = Server::start();
    let project = project(&server);
    let outcome = project.run("doctor --measure --json");
    let measured = outcome.code(0).json()["measurement"].clone();
    let (known, selected) = strategies(&server);
    let timings = measured["strategies"].as_array().expect("timings");
    let found: Vec<_> = timings
        .iter()
        .filter_map(|t| t["strategy"].as_str())
        .collect();
    assert_eq!(found, known);
    assert_eq!(measured["selected"], selected);
    assert!(measured["clone_ms"].as_f64() > Some(0.0));
    assert_eq!(measured["fsync"], false);
    for timing in timings {
        for key in ["create_ms", "first_connect_ms", "connect_ms", "drop_ms"] {
            assert!(timing[key].as_f64().is_some_and(|ms| ms > 0.0), "{timing}");
        }
    }
    assert_eq!(server.databases_of("clone"), [""; 0]);
    assert!(project.run_dirs().is_empty());
    let outcome = project.run("doctor --measure");
    assert!(
        outcome.code(0).stdout.contains("clones are created by `"),
        "{outcome:#?}"
    );
    assert!(outcome.stdout.contains("\na clone takes "), "{outcome:#?}");
}

#[test]
fn a_measurement_that_is_killed_is_swept() {
    let server = Server::start();
    let project = project(&server);
    project.prepared();
    let mut child = project.tool("doctor --measure").spawn();
    poll_until("it has made a clone", PATIENCE, || {
        match server.databases_of("clone").len() {
            0 => Err("no clone"),
            _ => Ok(()),
        }
        .map_err(str::to_owned)
    });
    child.kill().expect("a child to kill");
    child.wait().expect("a killed child");
    let mut rest = String::new();
    let _ = child
        .stderr
        .take()
        .map(|mut err| err.read_to_string(&mut rest));
    // A CREATE or DROP that the server had begun goes on for a moment.
    poll_until("the sweep removes it", PATIENCE, || {
        project.run("sweep");
        match (server.databases_of("clone").len(), project.run_dirs().len()) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?} {rest}")),
        }
    });
}

#[test]
fn prepare_warns_in_one_line_and_under_nextest_once() {
    let server = Server::start_as_shipped();
    let project = project(&server);
    let warnings = |outcome: &Outcome| {
        let lines = outcome.stderr.lines();
        lines
            .filter(|line| line.starts_with("warning: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let first = DeadRun::leave(&project, "one");
    let said = warnings(&first.outcome);
    assert_eq!(said.len(), 1, "{:#?}", first.outcome);
    for part in ["fsync, synchronous_commit", "`kapsel-testdb doctor`"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    let second = DeadRun::leave(&project, "two");
    assert_eq!(warnings(&second.outcome), [""; 0]);
    let by_hand = project.run("prepare");
    assert_eq!(warnings(&by_hand), said);
    let quick = Server::start();
    let outcome = Project::on(&quick).run("prepare");
    assert_eq!(warnings(&outcome), [""; 0]);
}
