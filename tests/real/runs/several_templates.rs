//! Several templates: each has a run of its own, and each test gets the one that it asks for, or its package's.

use std::fs;

use crate::processes::child;
use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until};

const CONFIG: &str = "[[template]]\nname = \"shop\"\nkeep = 9\n\n\
    [[template]]\nname = \"audit\"\nmigrations = \"audit/migrations\"\nseeds = [\"audit/seed.sql\"]\npackages = [\"auditor\"]\n";

fn project(server: &Server) -> Project {
    let project = Project::on(server);
    project.config(CONFIG);
    let entries = "CREATE TABLE entries (id int PRIMARY KEY);";
    project.write("audit/migrations/0001_entries.sql", entries);
    project.write("audit/seed.sql", "INSERT INTO entries VALUES (1);");
    project
}

/// A test of a package that runs a statement.
fn test(project: &Project, exported: &str, task: &str, package: &str, sql: &str) -> Outcome {
    let command = child::command(project, exported, task);
    command
        .env("CARGO_PKG_NAME", package)
        .env(child::SQL, sql)
        .run()
}

/// Needs the table and the row of the template `audit`.
const AUDIT: &str = "INSERT INTO entries SELECT id + 1 FROM entries";
const SHOP: &str = "INSERT INTO users VALUES (1)";

/// Each kind of test in each package, with the variables of a run or without.
#[track_caller]
fn everybody_gets_the_right_template(project: &Project, exported: &str) {
    for task in ["own-sql", "shared-sql"] {
        test(project, exported, task, "auditor", AUDIT).code(0);
        test(project, exported, task, "web", SHOP).code(0);
        test(project, exported, task, "web", AUDIT)
            .code(101)
            .says(&["entries"]);
    }
    for (name, sql) in [("audit", AUDIT), ("shop", SHOP)] {
        let named = child::command(project, exported, "template-sql");
        let named = named.env(child::TEMPLATE, name).env(child::SQL, sql);
        named.env("CARGO_PKG_NAME", "auditor").run().code(0);
    }
    let unknown = child::command(project, exported, "template-sql");
    let unknown = unknown.env(child::TEMPLATE, "adit").env(child::SQL, SHOP);
    let known = "there is no template `adit`; the configuration has `shop`, `audit`";
    unknown.run().code(101).says(&[known]);
}

#[test]
fn tests_get_the_template_of_their_package_or_of_the_name_that_they_give() {
    let server = Server::start();
    let mut project = project(&server);
    project.set("KAPSEL_TESTDB_SHARED_POLLUTION", "off");
    let nextest = FakeNextest::start(&project, "several");
    assert_eq!(
        server.databases_of("template").len(),
        3,
        "audit with and without its seed"
    );
    assert_eq!(project.run_dirs().len(), 2);
    everybody_gets_the_right_template(&project, &nextest.exported);
    nextest.end();
    poll_until("both runs have ended", PATIENCE, || {
        match project.run_dirs().len() {
            0 => Ok(()),
            n => Err(format!("{n} are left")),
        }
    });
    let spares = server.databases_of("spare");
    let fingerprints: std::collections::BTreeSet<_> = spares
        .iter()
        .filter_map(|name| name.split('_').nth(2))
        .collect();
    assert_eq!(fingerprints.len(), 2, "{spares:?}");
}

#[test]
fn it_is_the_same_without_a_setup_script() {
    let server = Server::start();
    let project = project(&server);
    everybody_gets_the_right_template(&project, "");
    assert!(project.run_dirs().is_empty());
}

#[test]
fn the_keepers_have_clones_of_both_ready_and_the_connections_are_reserved_once() {
    let server = Server::start();
    let project = project(&server);
    let nextest = FakeNextest::start(&project, "ready");
    for dir in project.run_dirs() {
        poll_until("a clone is ready", PATIENCE, || {
            let ready = fs::read_dir(dir.join("ready")).map_err(|error| error.to_string())?;
            ready
                .count()
                .checked_sub(1)
                .ok_or("there is none".to_owned())
        });
        let file: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(dir.join("run.json")).expect("run.json"))
                .expect("JSON");
        assert_eq!(file["connections"]["reserved"], true);
    }
    let status = project.run("status --json").json();
    // Two threads, each with a pool of five and one administrative session.
    assert_eq!(status["server"]["budget"]["reserved_by_runs"], 12);
    nextest.end();
}

#[test]
fn acquire_names_a_template_and_release_finds_the_run() {
    let server = Server::start();
    let project = project(&server);
    let script = r#"eval "$("$T" acquire --template audit)"
        case $PGDATABASE in app_clone_*) ;; *) exit 9 ;; esac
        "$T" release "$PGDATABASE" && "$T" acquire --template nowhere"#;
    let tool = project.tool("run --").env("T", crate::support::BINARY);
    let outcome = tool.args(["sh", "-c", script]).run();
    outcome
        .code(3)
        .says(&["there is no template `nowhere`", "`shop`, `audit`"]);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn the_commands_about_templates_know_all_of_them() {
    let server = Server::start();
    let project = project(&server);
    project.run("prepare").code(0);
    let why = project.run("template why");
    why.code(0);
    let lines: Vec<&str> = why.stdout.lines().collect();
    assert!(
        lines[0].starts_with("shop: app_template_") && lines[1].starts_with("audit: app_template_"),
        "{lines:?}"
    );
    let list = project.run("template list --json").json();
    let templates = list["templates"].as_array().expect("a list");
    assert_eq!(templates.iter().filter(|t| t["current"] == true).count(), 2);
    let archives = project.beside("archives");
    project
        .tool("template export -o")
        .args([&archives])
        .run()
        .code(0);
    project.run("template drop --all").code(0);
    project
        .tool("template import")
        .args([&archives])
        .run()
        .code(0);
    let outcome = project.run("prepare");
    outcome.code(0).never_says("building");
    let checks = project.run("doctor --json").stdout;
    assert_eq!(checks.matches(" is current").count(), 2, "{checks}");
}

#[test]
fn contradictions_are_refused() {
    let server = Server::start();
    let project = project(&server);
    for (config, message) in [
        (
            "[[template]]\nname = \"a\"\n[[template]]\nmigrations = \"x\"\n",
            "needs a `name`",
        ),
        (
            "[[template]]\nmigrations = \"x\"\n[[template]]\nname = \"a\"\n",
            "needs a `name`",
        ),
        (
            "[[template]]\nname = \"a\"\n[[template]]\nname = \"a\"\n",
            "two templates are called `a`",
        ),
        (
            "[[template]]\nname = \"a\"\npackages = [\"p\"]\n[[template]]\nname = \"b\"\npackages = [\"p\"]\n",
            "the package `p` is in the lists of two templates",
        ),
        (
            "[[template]]\nname = \"a\"\n[[template]]\nname = \"b\"\nkeep = 3\n",
            "`template.keep` applies to all templates",
        ),
        ("[[template]]\nname = \"a b\"\n", "letters, digits"),
    ] {
        project.config(config);
        project.run("prepare").code(3).says(&[message]);
    }
    project.config("[[template]]\nname = \"a\"\n[[template]]\nname = \"b\"\nmigration = \"x\"\nmigrations = \"\"\n");
    project
        .run("prepare")
        .code(0)
        .says(&["ignored the unknown key `template.migration`"]);
}
