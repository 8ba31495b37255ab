//! What `prepare` tells the processes after it: nextest's file under nextest, standard output by hand.

use std::fs;

use crate::support::{DeadRun, FakeNextest, Project, Server};

#[test]
fn nextests_file_is_checked_before_any_work() {
    let server = Server::start();
    let project = Project::on(&server);
    let before = server.databases();
    for file in [
        project.beside("no/such/folder/file"),
        project.root().to_path_buf(),
    ] {
        let tool = project.tool("prepare").env("NEXTEST_RUN_ID", "export");
        let outcome = tool.env("NEXTEST_ENV", &file).run();
        outcome.code(7).says(&[
            &format!("`{}`", file.display()),
            "NEXTEST_ENV",
            "must name a writable file",
        ]);
        assert_eq!(server.databases(), before);
        assert!(project.run_dirs().is_empty());
    }
}

#[test]
fn the_run_directory_is_exported_and_the_url_only_on_request() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, _)| name.to_owned()).collect()
    };
    let run = DeadRun::leave(&project, "off");
    assert_eq!(names(&run.exported), ["KAPSEL_TESTDB_RUN_DIR"]);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let run = DeadRun::leave(&project, "shared");
    let expected = [
        "KAPSEL_TESTDB_RUN_DIR",
        "DATABASE_URL",
        "PGHOST",
        "PGPORT",
        "PGUSER",
        "PGDATABASE",
    ];
    assert_eq!(names(&run.exported), expected);
    let database = run.exported.lines().last().and_then(|l| l.split_once('='));
    let database = database.map(|(_, value)| value.to_owned());
    assert_eq!(database.as_slice(), server.databases_of("shared"));
    assert_eq!(
        server.column_in(
            &database.expect("a name"),
            "SELECT count(*)::text FROM users"
        ),
        ["0"]
    );
}

#[test]
fn a_second_prepare_of_the_same_run_joins_it() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = FakeNextest::start(&project, "stress");
    let again = DeadRun::leave(&project, "stress");
    assert_eq!(again.dir, run.dir);
    assert_eq!(project.run_dirs(), std::slice::from_ref(&run.dir));
    run.end();
    assert!(project.run_dirs().is_empty());
    for kind in ["clone", "shared", "building"] {
        assert!(server.databases_of(kind).is_empty(), "{kind}");
    }
}

#[test]
fn each_format_leads_to_the_database() {
    let server = Server::start();
    let project = Project::on(&server);
    let printed = |format: &str| {
        let outcome = project.run(&format!("prepare --format {format}"));
        outcome
            .code(0)
            .says(&["adopted PostgreSQL", "template app_template_"]);
        outcome
    };
    let url = server.url();
    assert_eq!(printed("json").json()["DATABASE_URL"], url);
    assert_eq!(printed("github").stdout, format!("DATABASE_URL={url}\n"));
    assert_eq!(
        printed("dotenv").stdout,
        format!("DATABASE_URL=\"{url}\"\n")
    );
    let script = format!("{}\nprintf %s \"$DATABASE_URL\"", printed("env").stdout);
    let shell = project.program("sh").env_remove("DATABASE_URL");
    assert_eq!(shell.args(["-c", &script]).run().stdout, url);
}

#[test]
fn data_and_talk_are_apart() {
    let server = Server::start();
    let project = Project::on(&server);
    let plain = project.run("prepare");
    assert_eq!(plain.code(0).stdout, "");
    assert!(plain.stderr.lines().count() >= 2, "{plain:#?}");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let quiet = project.run("prepare -q --format json");
    assert_eq!(quiet.code(0).stderr, "", "it built a template in silence");
    let quiet = project.run("sweep --quiet");
    assert_eq!(quiet.code(0).stderr, "");
}

#[test]
fn under_nextest_it_is_silent_unless_it_builds() {
    let server = Server::start();
    let project = Project::on(&server);
    let first = DeadRun::leave(&project, "first");
    first.outcome.says(&["building the template"]);
    let second = DeadRun::leave(&project, "second");
    assert_eq!(second.outcome.talk(), [""; 0]);
    assert_eq!(second.outcome.stdout, "");
    assert!(fs::read_dir(&second.dir).is_ok());
}
