//! `status`: what is there, for people and for programs.

use crate::processes::child::Holder;
use crate::support::{
    Attempt, DeadRun, FakeNextest, PATIENCE, Project, Server, Terminal, poll_until,
};

#[test]
fn json_names_server_templates_and_runs() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let empty = project.run("status --json");
    let empty = empty.code(0).json();
    assert_eq!(empty["schema"], 2);
    assert_eq!(empty["templates"].as_array().map(Vec::len), Some(0));
    let live = DeadRun::leave(&project, "live");
    let _lock = live.join();
    let dead = DeadRun::leave(&project, "dead");
    let outcome = project.run("status --json");
    let json = outcome.code(0).json();
    assert_eq!(outcome.talk(), [""; 0]);
    assert_eq!(json["namespace"], "app");
    assert_eq!(json["server"]["managed"], false);
    assert_eq!(json["server"]["fsync"], false);
    assert_eq!(json["server"]["max_connections"], 100);
    assert!(
        json["server"]["version"]
            .as_str()
            .is_some_and(|v| v.contains('.'))
    );
    assert_eq!(json["templates"][0]["name"], dead.template.as_str());
    assert_eq!(json["templates"][0]["usable"], true);
    assert_eq!(json["templates"][0]["migrations"], 2);
    assert_eq!(json["templates"][0]["current"], true);
    assert!(json["templates"][0]["size_bytes"].as_u64() > Some(1 << 20));
    let version = json["server"]["version"].as_str().expect("text");
    assert_eq!(json["server"]["clone_strategy"], strategy(version));
    let state = |run: &str| {
        let runs = json["runs"].as_array().expect("runs");
        let found = runs.iter().find(|r| r["run"] == run).expect("the run");
        found["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!(state(&dead.run), "dead");
    assert_eq!(state(&live.run), "alive");
}

fn strategy(version: &str) -> &'static str {
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    match major.unwrap_or(0) {
        18.. => "file_clone",
        15.. => "file_copy",
        _ => "default",
    }
}

#[test]
fn the_screen_shows_what_is_there_at_a_glance() {
    let server = Server::start();
    let project = Project::on(&server);
    let other = Project::named("blog", &server);
    other.prepared();
    let empty = project.run("status");
    assert!(
        empty.code(0).stdout.contains("\ntemplates  none\n"),
        "{empty:#?}"
    );
    let template = project.prepared();
    project.migration("0003_more", "CREATE TABLE more (id int)");
    let newer = project.prepared();
    let nextest = FakeNextest::start(&project, "r");
    let hold = Attempt::first(&nextest.exported, "works").command(&project, "hold");
    let works = Holder::of(&project, hold);
    Attempt::first("", "fails").run(&project, "panic").code(101);
    let outcome = project.run("status");
    let screen = &outcome.code(0).stdout;
    let fingerprint = |name: &str| name.replace("app_template_", "");
    for text in [
        format!("server     PostgreSQL {}", server_version(&project)),
        format!("{} current, built ", fingerprint(&newer)),
        format!("{} built ", fingerprint(&template)),
        "runs       alive for ".to_owned(),
        ": 1 test at work, ".to_owned(),
        "kept       1 database, the newest ".to_owned(),
        "others     1 database of 1 project, in no live run".to_owned(),
        " MB\n".to_owned(),
    ] {
        assert!(screen.contains(&text), "{text}: {screen}");
    }
    assert!(
        screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    assert!(!screen.contains("app_"), "names are details: {screen}");
    let verbose = project.run("status -v");
    let details = [
        template.as_str(),
        &newer,
        "clone strategy",
        "app_kept_",
        "owned by `app`",
    ];
    for text in details {
        assert!(verbose.stdout.contains(text), "{text}: {verbose:#?}");
    }
    works.end();
    nextest.end();
}

fn server_version(project: &Project) -> String {
    let json = project.run("status --json").code(0).json();
    json["server"]["version"].as_str().expect("text").to_owned()
}

#[test]
fn watch_draws_again_until_it_is_interrupted() {
    let server = Server::start();
    let project = Project::on(&server);
    let watch = Terminal::start(project.tool("status --watch"), 60);
    let drawn = |text: &str| {
        poll_until(text, PATIENCE, || match watch.drawn() {
            drawn if drawn.contains(text) => Ok(()),
            drawn => Err(drawn),
        });
    };
    drawn("none");
    project.prepared();
    drawn("current");
    watch.interrupt();
    let (code, drawn) = watch.wait();
    assert_eq!(code, 130, "{drawn}");
    assert!(drawn.contains("\u{1b}[32m"), "{drawn}");
    assert!(!drawn.contains("error"), "{drawn}");
}

#[test]
fn watch_needs_a_terminal() {
    let server = Server::start();
    let project = Project::on(&server);
    let outcome = project.run("status --watch");
    outcome.code(2).says(&["`--watch` needs a terminal"]);
    project.run("status --watch --json").code(2);
}

#[test]
fn colours_depend_on_the_terminal_and_on_the_environment() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    let piped = |variable: &str| {
        let tool = project
            .tool("status")
            .env("TERM", "xterm")
            .env(variable, "1");
        tool.run().code(0).stdout.contains('\u{1b}')
    };
    assert!(!piped("ANYTHING"));
    assert!(piped("CLICOLOR_FORCE"));
    let shown = |variable: &str| {
        let tool = project.tool("status").env(variable, "1");
        let (code, drawn) = Terminal::start(tool, 80).wait();
        assert_eq!(code, 0, "{drawn}");
        drawn.contains('\u{1b}')
    };
    assert!(shown("ANYTHING"));
    assert!(!shown("NO_COLOR"));
}
