//! Futures of leases that are dropped before they are ready.

use std::path::Path;

use super::child::{self, Holder};
use crate::support::{FakeNextest, PATIENCE, Project, Server, poll_until};

/// Runs a child that drops the future of a lease while its `CREATE DATABASE` waits.
fn drop_a_lease(server: &Server, project: &Project, exported: &str) {
    let child = Holder::of(project, child::command(project, exported, "dropped"));
    let mut session = server.session("postgres");
    // Conflicts with CREATE DATABASE, but not with new sessions.
    session.execute("BEGIN");
    session.execute("LOCK TABLE pg_database IN SHARE MODE");
    poll_until("the future is dropped", PATIENCE, || {
        match server.column_in(&child.database, "SELECT id::text FROM users") {
            rows if rows.is_empty() => Err("no row".to_owned()),
            _ => Ok(()),
        }
    });
    session.execute("COMMIT");
    session.close();
    child.end();
}

#[test]
fn a_dropped_lease_releases_its_clone_to_the_keeper() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "r");
    drop_a_lease(&server, &project, &nextest.exported);
    poll_until("every clone has an entry", PATIENCE, || {
        let names = |state: &str| names_in(&nextest.dir.join(state));
        let (ready, released, leased) = (names("ready"), names("released"), names("leased"));
        let mut clones = server.databases_of("clone");
        clones.retain(|name| !ready.contains(name) && !released.contains(name));
        match clones.is_empty() && leased.is_empty() {
            true => Ok(()),
            false => Err(format!("{clones:?}, leased: {leased:?}")),
        }
    });
    assert_eq!(server.databases_of("kept"), [""; 0]);
    nextest.end();
    assert_eq!(server.databases_of("clone"), [""; 0]);
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(name).collect()
}

#[test]
fn a_dropped_lease_of_a_standalone_run_leaves_nothing() {
    let server = Server::start();
    let project = Project::on(&server);
    drop_a_lease(&server, &project, "");
    assert_eq!(server.databases_of("clone"), [""; 0]);
    assert_eq!(server.databases_of("kept"), [""; 0]);
    assert!(project.run_dirs().is_empty(), "{:?}", project.run_dirs());
}
