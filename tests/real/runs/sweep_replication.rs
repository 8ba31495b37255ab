//! Logical replication that tests leave: subscriptions, slots and their workers make the server refuse to drop a database.

use crate::support::{DeadRun, PATIENCE, Project, Server, binaries, poll_until};

const SUPERUSER: &str = "postgres";

fn server() -> Server {
    Server::start_with(&["wal_level=logical"])
}

/// A project that logs in as superuser, who alone may replicate on all versions.
fn project(server: &Server) -> Project {
    let mut project = Project::on(server);
    project.set("DATABASE_URL", &server.url_of(SUPERUSER));
    project
}

/// A table, a publication of it and a slot.
fn publish(server: &Server, database: &str, slot: &str) {
    server.execute(&format!("CREATE DATABASE \"{database}\""));
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t";
    server.execute_in(database, sql);
    let sql = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    server.execute_in(database, &sql);
}

/// Subscribes to a slot that exists: on one server, a subscription that creates its slot waits for itself.
fn subscribe(server: &Server, database: &str, publisher: &str, slot: &str) {
    server.execute(&format!("CREATE DATABASE \"{database}\""));
    server.execute_in(database, "CREATE TABLE t (id int PRIMARY KEY)");
    let mut session = server.session(database);
    session.execute(&format!(
        "CREATE SUBSCRIPTION \"{slot}\" CONNECTION 'host={} port={} dbname={publisher} user={SUPERUSER}' PUBLICATION p \
         WITH (create_slot = false, slot_name = '{slot}')",
        server.folder().display(),
        server.socket_port()
    ));
    session.close();
    wait_for_subscriber(server, slot);
}

fn wait_for_subscriber(server: &Server, slot: &str) {
    let sql = format!("SELECT active::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
    poll_until("the subscriber is connected", PATIENCE, || {
        match server.column_in(SUPERUSER, &sql).first() {
            Some(active) if active == "true" => Ok(()),
            other => Err(format!("active: {other:?}; {}", server.log())),
        }
    });
}

fn slots(server: &Server) -> Vec<String> {
    let sql = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
    server.column_in(SUPERUSER, sql)
}

fn subscriptions(server: &Server) -> Vec<String> {
    let sql = "SELECT subname || ' ' || subenabled FROM pg_subscription ORDER BY 1";
    server.column_in(SUPERUSER, sql)
}

#[test]
fn replication_between_two_clones_is_ended() {
    let server = server();
    let project = project(&server);
    for (round, publisher_first) in [true, false].into_iter().enumerate() {
        let run = DeadRun::leave(&project, &format!("dead{round}"));
        let (one, two) = (run.clone_name(1), run.clone_name(2));
        let (publisher, subscriber) = if publisher_first {
            (&one, &two)
        } else {
            (&two, &one)
        };
        publish(&server, publisher, "ours");
        subscribe(&server, subscriber, publisher, "ours");
        project
            .run("sweep")
            .code(0)
            .says(&[format!("dropped {one}"), format!("dropped {two}")]);
        assert!(!run.dir.exists());
        assert_eq!(server.databases_of("clone"), [""; 0]);
        assert_eq!(subscriptions(&server), [""; 0]);
        assert_eq!(slots(&server), [""; 0]);
    }
}

#[test]
fn the_replication_of_other_databases_goes_on() {
    let server = server();
    let project = project(&server);
    publish(&server, "theirs", "theirs");
    subscribe(&server, "their_copy", "theirs", "theirs");
    let run = DeadRun::leave(&project, "dead");
    // A subscription of another database, to a clone of ours.
    let (publisher, subscriber) = (run.clone_name(1), run.clone_name(2));
    publish(&server, &publisher, "ours");
    subscribe(&server, "visitor", &publisher, "ours");
    // A subscription of a clone of ours, to another database.
    publish(&server, "source", "source");
    subscribe(&server, &subscriber, "source", "source");
    project.run("sweep").code(0);
    assert!(!run.dir.exists());
    assert_eq!(server.databases_of("clone"), [""; 0]);
    assert_eq!(subscriptions(&server), ["ours true", "theirs true"]);
    assert_eq!(slots(&server), ["source", "theirs"]);
    wait_for_subscriber(&server, "theirs");
}

#[test]
fn a_publisher_that_does_not_answer_delays_nothing() {
    let server = server();
    let project = project(&server);
    let run = DeadRun::leave(&project, "dead");
    let name = run.clone_name(1);
    server.execute(&format!("CREATE DATABASE \"{name}\""));
    let mut session = server.session(&name);
    // An address for documentation: packets to it get lost.
    for sql in [
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE SUBSCRIPTION \"it's far\" CONNECTION 'host=192.0.2.1 dbname=x' PUBLICATION p WITH (connect = false, slot_name = 'far')",
        "INSERT INTO pg_subscription_rel SELECT oid, 't'::regclass, 'i', NULL FROM pg_subscription",
        "ALTER SUBSCRIPTION \"it's far\" ENABLE",
    ] {
        session.execute(sql);
    }
    session.close();
    let begun = std::time::Instant::now();
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    assert_eq!(subscriptions(&server), [""; 0]);
}

#[test]
fn a_kept_database_neither_replicates_nor_holds_back_the_servers_log() {
    let server = server();
    let project = project(&server);
    let run = DeadRun::leave(&project, "dead");
    let (publisher, subscriber) = (run.clone_name(1), run.clone_name(2));
    publish(&server, &publisher, "ours");
    subscribe(&server, &subscriber, &publisher, "ours");
    for name in [&publisher, &subscriber] {
        std::fs::write(run.dir.join("failed").join(name), "").expect("an entry");
    }
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("kept").len(), 2);
    assert_eq!(subscriptions(&server), ["ours false"]);
    assert_eq!(slots(&server), [""; 0]);
    project.config("[keep]\nmax = 0\n");
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("kept"), [""; 0]);
    assert_eq!(subscriptions(&server), [""; 0]);
}

#[test]
fn what_the_role_may_not_end_is_a_reason_with_a_remedy() {
    let server = server();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    let name = run.clone_name(1);
    server.create(&[&name]);
    let sql = "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)";
    server.execute_in(&name, sql);
    project.run("sweep").code(8).says(&[
        &format!("skipped {name}"),
        "subscription `s`",
        "as superuser",
        "`DROP SUBSCRIPTION`",
    ]);
    let sql = "ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s";
    server.execute_in(&name, sql);
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
}

#[test]
fn the_end_of_a_run_ends_replication_too() {
    let server = server();
    let mut project = project(&server);
    let path = std::env::var("PATH").unwrap_or_default();
    project.set("PATH", &format!("{}:{path}", binaries().dir.display()));
    let script = r#"psql -qAtv ON_ERROR_STOP=1 "$DATABASE_URL" <<END
CREATE PUBLICATION p FOR TABLE users;
SELECT pg_create_logical_replication_slot('own', 'pgoutput');
SELECT format('CREATE SUBSCRIPTION s CONNECTION %L PUBLICATION p WITH (create_slot = false, slot_name = own)', 'dbname=' || current_database() || ' user=postgres host=$SOCKET port=$PORT') \gexec
END
tries=0
until [ $((tries += 1)) -gt 3000 ] || [ "$(psql -At "$DATABASE_URL" -c "SELECT active FROM pg_replication_slots")" = t ]; do sleep 0.01; done"#;
    let outcome = project
        .tool("run --")
        .args(["sh", "-c", script])
        .env("SOCKET", server.folder())
        .env("PORT", server.socket_port().to_string())
        .run();
    outcome.code(0);
    assert_eq!(
        server.transient_databases(),
        ["postgres", "template0", "template1"]
    );
    assert_eq!(slots(&server), [""; 0]);
    assert_eq!(subscriptions(&server), [""; 0]);
    assert!(project.run_dirs().is_empty());
}
