//! Which tests' databases are kept, and for how long.

use kapsel_testdb_core::platform::Signal;

use super::reuse;
use crate::processes::child::{self, Holder};
use crate::support::{
    Attempt, DeadRun, FakeNextest, PATIENCE, Project, Server, kept, poll_until, wait_for_kept,
};

#[test]
fn what_a_failed_test_leaves_is_kept_with_its_name_with_a_keeper_and_without() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let alone = DeadRun::leave(&project, "alone");
    let mut expected = Vec::new();
    for exported in [&nextest.exported, &alone.exported, ""] {
        for (task, test) in [("panic", "billing::pays"), ("err", "it says 'no'")] {
            let outcome = Attempt::first(exported, test).run(&project, task);
            let argument = match task {
                "panic" => "billing::pays",
                _ => r"'it says '\''no'\'''",
            };
            outcome.code(101).says(&[
                format!("  kapsel-testdb kept diff {argument}\n"),
                format!("  kapsel-testdb kept psql {argument}\n"),
            ]);
            expected.push((test, 1));
        }
    }
    let list = wait_for_kept(&project, &expected);
    for one in &list {
        assert_eq!(one["binary"], "shop::it");
        assert_eq!(one["template"], alone.template.as_str());
        let database = one["database"].as_str().expect("a name");
        assert!(database.contains(one["run"].as_str().expect("a run")));
        assert!(one["size_bytes"].as_u64().expect("a size") > 1 << 20);
        assert_eq!(one["stress_index"], serde_json::Value::Null);
        assert_eq!(one["cause"], "failed");
        let message = match one["test"].as_str() {
            Some("billing::pays") => "the test panicked",
            _ => "error returned from database: relation \"nowhere\" does not exist",
        };
        // A newer sqlx adds a line of the server's source.
        let found = one["message"].as_str().expect("a message");
        assert!(found.starts_with(message), "{found}");
    }
    nextest.end();
    project.run("sweep --no-wait").code(0);
    wait_for_kept(&project, &expected);
}

#[test]
fn what_a_killed_test_leaves_is_kept_as_well() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let run = |exported: &str| {
        let hold = Attempt::first(exported, "killed").command(&project, "hold");
        Holder::of(&project, hold).kill();
        Attempt::first(exported, "aborts").run(&project, "abort");
        let exits = Attempt::first(exported, "exits");
        exits.run(&project, "exit").code(3);
    };
    // The keeper sees it.
    run(&nextest.exported);
    let all = [("killed", 1), ("aborts", 1), ("exits", 1)];
    for one in wait_for_kept(&project, &all) {
        assert_eq!(one["cause"], "died");
        assert!(one["ran_secs"].as_u64().is_some_and(|secs| secs < 600));
    }
    // It would sweep the dead runs that follow, sooner or later.
    nextest.end();
    wait_for_kept(&project, &all);
    // Nobody does, until the dead runs are swept.
    let alone = DeadRun::leave(&project, "alone");
    run(&alone.exported);
    run("");
    let dry = project.run("sweep --no-wait --dry-run");
    assert_eq!(dry.stderr.matches("would keep app_kept_").count(), 6);
    let swept = project.run("sweep --no-wait");
    assert_eq!(swept.code(0).stderr.matches("kept app_kept_").count(), 6);
    let list = wait_for_kept(&project, &all.repeat(3));
    // The sweep does not know when they died. The one that aborted has noted it.
    let late = list.iter().filter(|one| one["ran_secs"].is_null());
    assert_eq!(late.count(), 4);
    assert!(list.iter().all(|one| one["cause"] == "died"));
    assert_eq!(server.databases_of("clone"), [""; 0]);
}

#[test]
fn the_signal_that_ended_a_test_is_recorded() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let alone = DeadRun::leave(&project, "alone");
    let ways = [
        ("", Signal::HUP),
        (&*alone.exported, Signal::QUIT),
        (&*nextest.exported, Signal::INT),
        (&*nextest.exported, Signal::TERM),
    ];
    let mut all = Vec::new();
    for (at, (exported, signal)) in ways.into_iter().enumerate() {
        let test = ["hup", "quit", "int", "term"][at];
        let hold = Attempt::first(exported, test).command(&project, "hold");
        let died_of = Holder::of(&project, hold).end_by(signal);
        assert_eq!(
            died_of,
            Some(signal.as_raw()),
            "{test} dies as without a handler"
        );
        all.push((test, 1));
    }
    nextest.end();
    // The keeper may end in the middle of a sweep. Then the server holds the lock of the run that it swept for a moment longer.
    poll_until("no run is left", PATIENCE, || {
        project.run("sweep --no-wait").code(0);
        match project.run_dirs() {
            dirs if dirs.is_empty() => Ok(()),
            dirs => Err(format!("{dirs:?}")),
        }
    });
    for one in wait_for_kept(&project, &all) {
        let test = one["test"].as_str().expect("a name").to_uppercase();
        assert_eq!(one["signal"], format!("SIG{test}"));
        assert!(
            one["ran_secs"].as_u64().is_some_and(|secs| secs < 600),
            "{one}"
        );
    }
    let list = project.run("kept list");
    let list = &list.code(0).stdout;
    for why in [
        "interrupted after ",
        "timed out, or was terminated with nextest, after ",
    ] {
        assert!(list.contains(why), "{list}");
    }
}

#[test]
fn a_test_with_handlers_of_its_own_gets_its_signals() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    child::run(&project, &nextest.exported, "handles").code(0);
    nextest.end();
    assert_eq!(server.databases_of("kept"), [""; 0]);
}

#[test]
fn the_list_says_why_a_database_is_kept() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let own = Attempt::first(&nextest.exported, "billing::pays").command(&project, "fails own");
    own.env(child::SQL, "SELECT 1").run().code(101);
    let attribute = Attempt::first(&nextest.exported, "leaks").run(&project, "attribute");
    attribute.code(101);
    let hold = Attempt::first(&nextest.exported, "killed").command(&project, "hold");
    Holder::of(&project, hold).kill();
    wait_for_kept(
        &project,
        &[("billing::pays", 1), ("leaks", 1), ("killed", 1)],
    );
    let list = project.run("kept list");
    let list = &list.code(0).stdout;
    for (test, why) in [
        ("shop::it billing::pays", "as a failing test does"),
        ("shop::it leaks", "the test `leaks` left 1 connection"),
        ("shop::it killed", "killed, crashed or exited after "),
    ] {
        let mut lines = list.lines().skip_while(|line| !line.starts_with(test));
        assert!(lines.next().is_some(), "{list}");
        let below = lines.next().unwrap_or_default();
        assert!(below.trim_start().starts_with(why), "{list}");
    }
    assert!(
        list.lines().all(|line| line.chars().count() <= 80),
        "{list}"
    );
    assert!(!list.contains("app_kept_"), "{list}");
    let verbose = project.run("kept list -v");
    assert_eq!(verbose.code(0).stdout.matches("\n  app_kept_").count(), 3);
    nextest.end();
}

#[test]
fn the_end_of_a_run_keeps_what_its_keeper_had_not_seen() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let run = crate::support::read_run(&nextest.dir).0;
    let before = Attempt::first(&nextest.exported, "before").command(&project, "hold");
    let before = Holder::of(&project, before);
    nextest.kill_keeper();
    before.kill();
    let after = Attempt::first(&nextest.exported, "after");
    after.run(&project, "panic").code(101);
    wait_for_kept(&project, &[("after", 1)]);
    // A test that died before its database was made.
    let none = after_entry(&run, &server.databases_of("template")[0]);
    std::fs::write(nextest.dir.join("leased").join(&none), "").expect("an entry");
    drop(nextest.without_keeper());
    project.run("sweep --no-wait").code(0);
    wait_for_kept(&project, &[("before", 1), ("after", 1)]);
    assert!(project.run_dirs().is_empty());
}

fn after_entry(run: &str, template: &str) -> String {
    let stem = template.replace("_template_", "_clone_");
    format!("{stem}_{run}_zzzzzz")
}

#[test]
fn a_retried_test_that_passes_keeps_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let alone = DeadRun::leave(&project, "alone");
    for exported in [&nextest.exported, &alone.exported, ""] {
        for (task, code) in [("panic", 101), ("exit", 3)] {
            let first = Attempt::first(exported, "flaky");
            let other = Attempt::first(exported, "another");
            first.run(&project, task).code(code);
            first.next().run(&project, task).code(code);
            other.run(&project, "panic").code(101);
            first.next().next().run(&project, "once").code(0);
            // Whatever another test has left stays.
            wait_for_kept(&project, &[("another", 1)]);
            project.run("kept drop --all").code(0);
        }
    }
    // The last test's retry may end just before the run does.
    let last = Attempt::first(&nextest.exported, "last");
    last.run(&project, "panic").code(101);
    wait_for_kept(&project, &[("last", 1)]);
    let pid = nextest.keeper_pid();
    kapsel_testdb_core::platform::signal(pid, kapsel_testdb_core::platform::Signal::STOP)
        .expect("stopped");
    last.next().run(&project, "many").code(0);
    kapsel_testdb_core::platform::signal(pid, kapsel_testdb_core::platform::Signal::CONT)
        .expect("goes on");
    nextest.end();
    wait_for_kept(&project, &[]);
    project.run("sweep --no-wait").code(0);
    wait_for_kept(&project, &[]);
    assert_eq!(server.databases_of("clone"), [""; 0]);
}

#[test]
fn attempts_that_fail_are_told_apart() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    let first = Attempt::first(&nextest.exported, "pays");
    first.run(&project, "panic").code(101);
    wait_for_kept(&project, &[("pays", 1)]);
    // It gives one database back before it fails with the next one: it has not passed.
    let late = Holder::of(&project, first.next().command(&project, "late"));
    for others in 1..=2 {
        // The keeper would have handled that database first. It continues with those of other tests.
        Holder::start(&project, &nextest.exported).end();
        reuse::settled(&nextest, others);
    }
    wait_for_kept(&project, &[("pays", 1)]);
    late.end_with(101);
    let list = wait_for_kept(&project, &[("pays", 1), ("pays", 2)]);
    assert_eq!(list[0]["attempt"], 2, "the newest comes first");
    for (flags, expected) in [("", &list[0]), ("--attempt 1", &list[1])] {
        let psql = project.tool(&format!("kept psql pays {flags} -- -XAtc"));
        let outcome = psql.args(["SELECT current_database()"]).run();
        assert_eq!(outcome.code(0).stdout.trim(), expected["database"]);
    }
    nextest.end();
    wait_for_kept(&project, &[("pays", 1), ("pays", 2)]);
    project.run("kept drop pays --attempt 1").code(0);
    wait_for_kept(&project, &[("pays", 2)]);
}

#[test]
fn the_newest_stay_within_the_bounds_also_while_the_run_goes_on() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[keep]\nmax = 2\n");
    let nextest = FakeNextest::start(&project, "r");
    for exported in [nextest.exported.as_str(), ""] {
        for test in ["one", "two", "three", "four"] {
            Attempt::first(exported, test)
                .run(&project, "panic")
                .code(101);
            poll_until("it is kept", PATIENCE, || {
                let list = kept(&project);
                match list.first() {
                    Some(newest) if newest["test"] == test && list.len() <= 2 => Ok(()),
                    _ => Err(format!("{list:?}")),
                }
            });
        }
        wait_for_kept(&project, &[("three", 1), ("four", 1)]);
    }
    // As if it had been kept in 1970.
    let name = kept(&project)[0]["database"]
        .as_str()
        .expect("a name")
        .to_owned();
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ";
    let note = &server.column_in("postgres", &format!("{comment}'{name}'"))[0];
    let mut note: serde_json::Value = serde_json::from_str(note).expect("JSON");
    note["kept_at"] = 1.into();
    server.execute(&format!("COMMENT ON DATABASE {name} IS '{note}'"));
    Attempt::first(&nextest.exported, "five")
        .run(&project, "panic")
        .code(101);
    wait_for_kept(&project, &[("three", 1), ("five", 1)]);
    nextest.end();
    wait_for_kept(&project, &[("three", 1), ("five", 1)]);
}

#[test]
fn a_run_with_smaller_limits_leaves_other_runs_databases() {
    let server = Server::start();
    let project = Project::on(&server);
    for test in ["one", "two", "three"] {
        let attempt = Attempt::first("", test);
        attempt.run(&project, "panic").code(101);
    }
    // Of another role, and newer than all.
    server.execute("CREATE ROLE other");
    let foreign = "app_kept_0000000000000_000000000000001_000001".to_owned();
    server.execute(&format!("CREATE DATABASE {foreign} OWNER other"));
    let note = r#"{"tool":"","run":"000000000000001","template":"app_template_0000000000000","kept_at":9999999999999}"#;
    server.execute(&format!("COMMENT ON DATABASE {foreign} IS '{note}'"));
    project.config("[keep]\nmax = 1\n");
    for test in ["four", "five"] {
        let attempt = Attempt::first("", test);
        attempt.run(&project, "panic").code(101);
    }
    let tests = || -> Vec<String> {
        let list = kept(&project).into_iter();
        let mut tests: Vec<String> = list
            .filter_map(|one| one["test"].as_str().map(str::to_owned))
            .collect();
        tests.sort();
        tests
    };
    assert_eq!(tests(), ["five", "one", "three", "two"]);
    assert!(server.databases().contains(&foreign));
    // A sweep in the foreground applies the limits of its own configuration.
    project.run("sweep --no-wait").code(0);
    assert_eq!(tests(), ["five"]);
    assert!(server.databases().contains(&foreign));
}

#[test]
fn nothing_is_kept_where_the_configuration_says_so() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[keep]\nfailed = false\n");
    let nextest = FakeNextest::start(&project, "r");
    for exported in [nextest.exported.as_str(), ""] {
        let outcome = Attempt::first(exported, "fails").run(&project, "panic");
        outcome.code(101).never_says("kept");
        Attempt::first(exported, "exits")
            .run(&project, "exit")
            .code(3);
        let hold = Attempt::first(exported, "killed").command(&project, "hold");
        Holder::of(&project, hold).kill();
    }
    nextest.end();
    project.run("sweep --no-wait").code(0);
    assert_eq!(kept(&project).len(), 0);
    assert_eq!(server.databases_of("clone"), [""; 0]);
}

#[test]
fn a_prepared_transaction_does_not_keep_a_database_from_being_kept() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    let name = run.clone_name(1);
    server.create(&[&name]);
    let mut session = server.session_of_role(&name);
    session.execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'left'");
    session.close();
    std::fs::write(run.dir.join("leased").join(&name), "").expect("an entry");
    project.run("sweep --no-wait").code(0);
    let list = kept(&project);
    assert_eq!(list[0]["database"], name.replace("_clone_", "_kept_"));
    assert_eq!(list[0]["test"], serde_json::Value::Null, "nobody knows");
    assert!(!run.dir.exists());
}

#[test]
fn a_lease_of_a_script_is_kept_only_where_the_script_says_so() {
    let server = Server::start();
    let project = Project::on(&server);
    let script = r#"set -e
        eval "$("$T" acquire --name fails)"; "$T" release --failed "$PGDATABASE"
        eval "$("$T" acquire --name ends)""#;
    let tool = project.tool("run --").args(["sh", "-c", script]);
    tool.env("T", crate::support::BINARY).run().code(0);
    wait_for_kept(&project, &[("fails", 1)]);
    project.run("wait").code(0);
    project.run("sweep --no-wait").code(0);
    wait_for_kept(&project, &[("fails", 1)]);
    assert_eq!(server.databases_of("clone"), [""; 0]);
    // Without nextest, the test is named after its thread.
    child::run(&project, "", "panic").code(101);
    wait_for_kept(&project, &[("fails", 1), ("processes::child::child", 1)]);
    assert_eq!(kept(&project)[0]["binary"], "real");
}
