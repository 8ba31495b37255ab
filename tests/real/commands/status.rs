//! `status`: what is there, for people and for programs.

use crate::support::{DeadRun, Project, Server};

#[test]
fn json_names_server_templates_and_runs() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    let empty = project.run("status --json");
    let empty = empty.code(0).json();
    assert_eq!(empty["schema"], 1);
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
    let state = |run: &str| {
        let runs = json["runs"].as_array().expect("runs");
        let found = runs.iter().find(|r| r["run"] == run).expect("the run");
        found["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!(state(&dead.run), "dead");
    assert_eq!(state(&live.run), "alive");
}

#[test]
fn text_names_the_same() {
    let server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    let outcome = project.run("status");
    outcome.code(0);
    for text in [
        "adopted PostgreSQL",
        "clone strategy",
        "namespace  app",
        &template,
        "2 migrations",
    ] {
        assert!(outcome.stdout.contains(text), "{text}: {outcome:#?}");
    }
}
