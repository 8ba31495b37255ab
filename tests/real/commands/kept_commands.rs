//! `kapsel-testdb kept`: list, psql, dump and drop.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Attempt, Project, Server, wait_for_kept};

/// A project in which these tests have failed.
fn project(server: &Server, tests: &[&str]) -> Project {
    let project = Project::on(server);
    fail(&project, tests);
    project
}

fn fail(project: &Project, tests: &[&str]) {
    for test in tests {
        Attempt::first("", test).run(project, "panic").code(101);
    }
}

#[test]
fn the_list_begins_with_the_newest() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    let outcome = project.run("kept list");
    outcome.code(0).says(&["no kept databases"]);
    assert_eq!(outcome.stdout, "");
    fail(&project, &["billing::pays", "lists"]);
    let outcome = project.run("kept list");
    let tests: Vec<&str> = outcome.code(0).stdout.lines().step_by(2).collect();
    let begins = ["shop::it lists ", "shop::it billing::pays "];
    assert_eq!(tests.len(), 2, "{outcome:?}");
    for (line, begin) in tests.iter().zip(begins) {
        assert!(line.starts_with(begin) && line.ends_with(" MB"), "{line}");
    }
    project.run("status").code(0);
}

#[test]
fn name_without_a_single_match_lists_the_candidates() {
    let server = Server::start();
    let project = Project::on(&server);
    let outcome = project.run("kept psql pays");
    outcome.code(2).says(&[
        "no kept database matches `pays`",
        "the namespace `app` has no kept databases",
    ]);
    fail(&project, &["billing::pays", "invoices::pays", "lists"]);
    let there = [
        "`shop::it billing::pays` (attempt 1)",
        "`shop::it invoices::pays`",
    ];
    for command in ["psql", "dump", "drop"] {
        let outcome = project.run(&format!("kept {command} pays"));
        outcome
            .code(2)
            .says(&["matches several tests"])
            .says(&there);
        let outcome = project.run(&format!("kept {command} reads"));
        outcome.code(2).says(&["kept databases: "]).says(&there);
        let outcome = project.run(&format!("kept {command} lists --attempt 2"));
        outcome
            .code(2)
            .says(&["attempt 2", "`shop::it lists` (attempt 1)"]);
        assert_eq!(outcome.stdout, "");
    }
    let all = [("billing::pays", 1), ("invoices::pays", 1), ("lists", 1)];
    wait_for_kept(&project, &all);
    project.run("kept drop").code(2).says(&["--all"]);
    // One that is wrong keeps the others from being dropped.
    project.run("kept drop lists reads").code(2);
    wait_for_kept(&project, &all);
    let outcome = project.run("kept drop invoices lists lists");
    assert_eq!(
        outcome.code(0).stderr.matches("dropped app_kept_").count(),
        2
    );
    let list = wait_for_kept(&project, &all[..1]);
    let name = list[0]["database"].as_str().expect("a name");
    project.run(&format!("kept drop {name}")).code(0);
    wait_for_kept(&project, &[]);
}

#[test]
fn psql_gets_the_database_and_the_password_but_not_on_its_command_line() {
    let server = Server::start_scram("s3cret");
    let mut project = Project::on(&server);
    let url = server.url().replace("app@", "app:s3cret@");
    project.set("DATABASE_URL", &url);
    fail(&project, &["pays"]);
    // What psql's own process shows to others, but for the URL that the test itself has set.
    let line = r"\! tr '\0' ' ' < /proc/$PPID/cmdline; tr '\0' '\n' < /proc/$PPID/environ | grep -v ^DATABASE_URL=";
    let psql = project.tool("kept psql pays -- -XAt -c").args([line]);
    let outcome = psql.args(["-c", "SELECT id FROM users"]).run();
    outcome.code(0).never_says("s3cret");
    assert!(
        outcome.stdout.contains("PGDATABASE=app_kept_"),
        "{outcome:?}"
    );
    assert!(outcome.stdout.ends_with("PGUSER=app\n42\n"), "{outcome:?}");
}

#[test]
fn arguments_of_client_programs_need_no_dashes() {
    let server = Server::start();
    let project = project(&server, &["pays"]);
    for arguments in [
        "-XAtc",
        "-X -A --tuples-only -c",
        "--attempt 1 -XAtc",
        "-- -XAtc",
    ] {
        let psql = project.tool(&format!("kept psql pays {arguments}"));
        let outcome = psql.args(["SELECT id FROM users"]).run();
        assert_eq!(outcome.code(0).stdout, "42\n", "{arguments}");
    }
    let data = project.run("kept dump pays --data-only");
    assert!(!data.code(0).stdout.contains("CREATE TABLE"));
}

#[test]
fn a_shell_completes_the_names_of_tests_with_kept_databases() {
    let server = Server::start();
    let project = project(&server, &["billing::pays", "lists"]);
    let complete = |command: &str, typed: &str| -> Vec<String> {
        let words: Vec<&str> = command.split(' ').chain([typed]).collect();
        let tool = project.tool("--").args(&words);
        let tool = tool.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
        let outcome = tool
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .run();
        assert_eq!(outcome.code(0).stderr, "");
        outcome.stdout.lines().map(str::to_owned).collect()
    };
    for command in ["psql", "dump", "diff", "drop"] {
        let command = format!("kapsel-testdb kept {command}");
        for (typed, expected) in [
            ("bil", "billing::pays"),
            ("billing::p", "billing::pays"),
            ("pa", "pays"),
            ("l", "lists"),
        ] {
            assert_eq!(complete(&command, typed), [expected], "{command} {typed}");
        }
        let all = complete(&command, "");
        assert!(
            all.contains(&"billing::pays".to_owned()) && all.contains(&"lists".to_owned()),
            "{all:?}"
        );
    }
    assert_eq!(complete("kapsel-testdb", "comp"), ["completions"]);
}

#[test]
fn completion_scripts_ask_the_command() {
    let project = Project::new("app");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = project.run(&format!("completions {shell}"));
        let script = &outcome.code(0).stdout;
        assert!(
            script.contains("COMPLETE") && script.contains("kapsel-testdb"),
            "{script}"
        );
    }
}

#[test]
fn completion_without_a_server_is_silent() {
    let project = Project::new("app");
    let tool = project.tool("-- kapsel-testdb kept psql").args(["b"]);
    let tool = tool
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3");
    let outcome = tool.run();
    assert_eq!(
        (outcome.code(0).stdout.as_str(), outcome.stderr.as_str()),
        ("", "")
    );
}

#[test]
fn a_dump_can_be_restored_into_another_database() {
    let server = Server::start();
    let project = project(&server, &["pays"]);
    let printed = project.run("kept dump pays");
    assert!(printed.code(0).stdout.contains("CREATE TABLE public.users"));
    project.run("kept dump pays -o dump.sql").code(0);
    server.create(&["elsewhere"]);
    let psql = project.tool("server psql -X -q -v ON_ERROR_STOP=1 -d elsewhere -f dump.sql");
    psql.run().code(0);
    assert_eq!(
        server.column_in("elsewhere", "SELECT id::text FROM users"),
        ["42"]
    );
    let data = project.run("kept dump pays -- --data-only");
    assert!(!data.code(0).stdout.contains("CREATE TABLE"));
}

#[test]
fn missing_or_old_pg_dump_is_reported_with_the_fix() {
    let server = Server::start();
    let mut project = project(&server, &["pays"]);
    let old = "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n";
    project.write("bin/pg_dump", old);
    let program = project.root().join("bin/pg_dump");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
    project.set("KAPSEL_TESTDB_SERVER_BIN_DIR", "bin");
    let outcome = project.run("kept dump pays");
    outcome
        .code(1)
        .says(&["has version 9", "client programs", "`server.bin_dir`"]);
    assert_eq!(outcome.stdout, "");
    std::fs::remove_file(program).expect("a script");
    let tool = project.tool("kept dump pays").env("PATH", "/nowhere");
    tool.run()
        .code(1)
        .says(&["failed to run `pg_dump`", "`server.bin_dir`"]);
}

#[test]
fn what_somebody_looks_at_is_dropped_only_by_force() {
    let server = Server::start();
    let project = project(&server, &["pays", "lists"]);
    let list = wait_for_kept(&project, &[("pays", 1), ("lists", 1)]);
    let name = list[1]["database"].as_str().expect("a name");
    let _session = server.session_of_role(name);
    let outcome = project.run("kept drop --all");
    outcome
        .code(8)
        .says(&[&format!("skipped {name}"), "connected", "--force"]);
    wait_for_kept(&project, &[("pays", 1)]);
    project.run("kept drop pays --force").code(0);
    wait_for_kept(&project, &[]);
}

#[test]
fn other_projects_databases_are_left_alone() {
    let server = Server::start();
    let project = project(&server, &["pays"]);
    let mut other = Project::named("other", &server);
    other.share_host_with(&project);
    fail(&other, &["pays"]);
    other.config("[keep]\nmax = 0\n");
    other.run("sweep --no-wait").code(0);
    wait_for_kept(&other, &[]);
    fail(&other, &["pays"]);
    wait_for_kept(&other, &[]);
    other.run("kept drop --all").code(0);
    other.run("kept drop pays").code(2);
    let list = wait_for_kept(&project, &[("pays", 1)]);
    let name = list[0]["database"].as_str().expect("a name");
    other.run(&format!("kept drop {name}")).code(2);
    wait_for_kept(&project, &[("pays", 1)]);
}

#[test]
fn nothing_is_started_to_look_at_nothing() {
    let project = Project::new("app");
    for command in ["kept list", "kept drop --all"] {
        project.run(command).code(0).says(&["is not running"]);
    }
    let json = project.run("kept list --json").code(0).json();
    assert_eq!(json["kept"], serde_json::json!([]));
    let json = project.run("sweep --json").code(0).json();
    assert!(json["server"].is_null());
    for command in ["kept psql pays", "kept dump pays", "kept diff pays"] {
        project.run(command).code(4).says(&["is not running"]);
    }
    assert!(
        project
            .managed_dir()
            .is_none_or(|dir| !dir.join("data").exists())
    );
}

#[test]
fn diff_tells_what_the_test_did_and_by_its_exit_code_whether_it_did_anything() {
    let server = Server::start();
    let project = project(&server, &["billing::pays"]);
    let told = project.run("kept diff pays");
    told.code(9);
    assert_eq!(
        told.stdout,
        "rows\n    public.users: 1 added\n      + id='42'\n"
    );
    let json = project.run("kept diff pays --json").code(9).json();
    assert_eq!(json["equal"], false);
    assert_eq!(json["difference"]["tables"][0]["added"], 1);
    let name = &server.databases_of("kept")[0];
    server.execute_in(name, "CREATE TABLE extra (id int); DELETE FROM users");
    let told = project.run("kept diff pays");
    told.code(9);
    assert_eq!(told.stdout, "schema\n  + table public.extra\n");
    server.execute_in(name, "DROP TABLE extra");
    let told = project.run("kept diff pays");
    assert_eq!(told.code(0).stdout, "");
    // Nothing stays of the clone that stood for the template.
    assert!(server.databases_of("clone").is_empty() && project.run_dirs().is_empty());
}

#[test]
fn diff_does_not_take_what_it_cannot_read_for_equal() {
    let server = Server::start();
    let project = Project::on(&server);
    let sql = "CREATE TABLE secrets (id int); REVOKE SELECT ON secrets FROM app";
    project.migration("0003_secrets", sql);
    fail(&project, &["billing::pays"]);
    let name = &server.databases_of("kept")[0];
    server.execute_in(name, "DELETE FROM users");
    let told = project.run("kept diff pays");
    told.code(9)
        .says(&["could not be compared", "GRANT SELECT"]);
    let unread = "not compared, so this may differ\n    public.secrets: ";
    assert!(told.stdout.starts_with(unread), "{told:#?}");
    let json = project.run("kept diff pays --json").code(9).json();
    assert_eq!(json["equal"], false);
    let unread = &json["difference"]["not_compared"][0];
    assert_eq!(unread["table"], "public.secrets");
}

#[test]
fn diff_without_its_template_prints_how_to_rebuild_it() {
    let server = Server::start();
    let project = project(&server, &["billing::pays"]);
    let template = server.databases_of("template").remove(0);
    server.execute(&format!("ALTER DATABASE \"{template}\" IS_TEMPLATE false"));
    server.execute(&format!("DROP DATABASE \"{template}\""));
    project.run("kept diff pays").code(5).says(&[
        &template,
        "no longer exists",
        "kapsel-testdb prepare",
        "template.keep",
    ]);
    assert!(server.databases_of("clone").is_empty() && project.run_dirs().is_empty());
    project.prepared();
    project.run("kept diff pays").code(9);
}
