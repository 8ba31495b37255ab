//! Users of one server with different maintenance databases: an advisory lock belongs to a database, but all must see each other's.

use kapsel_testdb_core::pg::lock::LockKey;

use crate::support::{FakeNextest, Outcome, PATIENCE, Project, Server, poll_until, read_run};
use crate::templates::builds::age;

/// A project on another host: its own run directories, and another maintenance database.
fn elsewhere(server: &Server) -> Project {
    if !server.databases().contains(&"other".to_owned()) {
        server.create(&["other"]);
    }
    let mut project = Project::on(server);
    project.set("KAPSEL_TESTDB_WATCH_SECS", "1");
    project.config("[server]\nmaintenance_database = \"other\"\n[template]\nkeep = 1\n");
    project
}

#[test]
fn a_sweep_leaves_an_idle_run_and_its_template() {
    let server = Server::start();
    let here = Project::on(&server);
    let live = FakeNextest::start(&here, "live");
    let template = read_run(&live.dir).1;
    poll_until("a clone is ready", PATIENCE, || {
        match server.databases_of("clone").len() {
            0 => Err("no clone yet".to_owned()),
            _ => Ok(()),
        }
    });
    let there = elsewhere(&server);
    there.migration("0003_tags", "CREATE TABLE tags (id int);");
    there.prepared();
    age(&server, &template, 1_000);
    let before = server.databases();
    let outcome = there.run("sweep");
    outcome.code(0).says(&["0 databases", "1 run alive"]);
    assert_eq!(server.databases(), before);
    live.end();
}

#[test]
fn one_build_waits_for_another() {
    let server = Server::start();
    let mut builder = server.session_of_role("postgres");
    let build = LockKey::build().as_i64();
    builder.execute(&format!(
        "SET application_name = 'the other builder'; SELECT pg_advisory_lock({build})"
    ));
    let there = elsewhere(&server);
    let waiting = there.tool("prepare").spawn();
    // The first time it only tries; then it lists the holders, and waits.
    let sql = format!(
        "SELECT query_start::text FROM pg_stat_activity WHERE datname = 'other' AND query = 'SELECT pg_advisory_unlock({build})'"
    );
    let mut attempts = std::collections::BTreeSet::new();
    poll_until("it waits for the lock", PATIENCE, || {
        attempts.extend(server.column_in("postgres", &sql));
        match attempts.len() {
            0 | 1 => Err(format!("{attempts:?}")),
            _ => Ok(()),
        }
    });
    // After half a second it names what it waits for.
    let long = "SELECT 'long' FROM pg_stat_activity WHERE datname = 'other' AND clock_timestamp() - backend_start > interval '2 s'";
    poll_until("it has waited for long", PATIENCE, || {
        match server.column_in("postgres", long).len() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    });
    assert_eq!(server.databases_of("template"), [""; 0]);
    builder.close();
    let outcome = Outcome::of(waiting);
    outcome.code(0).says(&["the other builder"]);
    assert_eq!(server.databases_of("template").len(), 1);
}

#[test]
fn a_run_waits_until_a_collector_has_dropped_its_template() {
    let server = Server::start();
    let there = elsewhere(&server);
    let template = there.prepared();
    let mut collector = server.session_of_role("postgres");
    let key = LockKey::template(&template.parse().expect("a name")).as_i64();
    collector.execute(&format!("SELECT pg_advisory_lock({key})"));
    let waiting = there.tool("prepare").spawn();
    let sql =
        "SELECT query FROM pg_stat_activity WHERE datname = 'other' AND query LIKE '%elsewhere%'";
    poll_until("it waits for the lock", PATIENCE, || {
        match server.column_in("postgres", sql).len() {
            0 => Err("no session yet".to_owned()),
            _ => Ok(()),
        }
    });
    server.execute(&format!("ALTER DATABASE {template} IS_TEMPLATE false"));
    server.execute(&format!("DROP DATABASE {template}"));
    collector.close();
    Outcome::of(waiting).code(0);
    assert_eq!(server.databases_of("template"), [template]);
}
