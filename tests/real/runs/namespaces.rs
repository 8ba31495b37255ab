//! Two checkouts on one server: the sweep of one never touches the other's databases.

use crate::support::{DeadRun, Project, Server};

#[test]
fn the_dead_and_the_living_of_another_namespace_stay() {
    let server = Server::start();
    let mut mine = Project::named("mine", &server);
    let mut other = Project::named("minetoo", &server);
    other.share_host_with(&mine);
    for project in [&mut mine, &mut other] {
        project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
        project.set("KAPSEL_TESTDB_WATCH_SECS", "0");
    }
    let my_dead = DeadRun::leave(&mine, "dead");
    let live = DeadRun::leave(&other, "live");
    let lock = live.join();
    let dead = DeadRun::leave(&other, "dead");
    server.create(&[dead.clone_name(1), my_dead.clone_name(1)]);
    let kept = dead.clone_name(2).replace("_clone_", "_kept_");
    server.create(&[&kept]);
    let fixed = |kind: &str| {
        let mut names = server.databases_of(kind);
        names.retain(|name| name.starts_with("minetoo_"));
        names
    };
    let (shared, templates) = (fixed("shared"), fixed("template"));
    assert_eq!((shared.len(), templates.len()), (2, 1));
    mine.config("[template]\nkeep = 1\n[keep]\nmax = 0\n");
    mine.run("sweep")
        .code(0)
        .says(&[format!("dropped {}", my_dead.clone_name(1))]);
    assert_eq!((fixed("shared"), fixed("template")), (shared, templates));
    let all = server.databases();
    assert!(all.contains(&dead.clone_name(1)) && all.contains(&kept));
    let left = server.transient_databases();
    assert!(!left.iter().any(|name| name.starts_with("mine_")));
    assert!(dead.dir.exists() && live.dir.exists() && !my_dead.dir.exists());
    other
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {}", dead.clone_name(1))]);
    assert!(live.dir.exists() && !dead.dir.exists());
    assert_eq!(fixed("shared").len(), 1, "the living run's");
    drop(lock);
    other.run("sweep").code(0);
    assert!(fixed("shared").is_empty() && fixed("clone").is_empty());
    assert!(!live.dir.exists());
}

#[test]
fn another_servers_run_directories_stay() {
    let (here, there) = (Server::start(), Server::start());
    let mut one = Project::on(&here);
    let mut two = Project::on(&there);
    two.share_host_with(&one);
    for project in [&mut one, &mut two] {
        project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    }
    let first = DeadRun::leave(&one, "same-id");
    let second = DeadRun::leave(&two, "same-id");
    assert_ne!(first.run, second.run);
    one.run("sweep").code(0);
    assert!(!first.dir.exists() && second.dir.exists());
    assert_eq!(there.databases_of("shared").len(), 1);
    two.run("sweep").code(0);
    assert!(!second.dir.exists());
    assert!(there.databases_of("shared").is_empty());
}
