//! Servers that cannot be used: each is refused with exit code 4, the address and the remedy, and nothing is left anywhere.

use std::time::{Duration, Instant};

use crate::support::{OldServer, Project, ROLE, Server, free_port};

/// `prepare` ends with exit code 4, says all this, and leaves no run directory.
#[track_caller]
fn refused(project: &Project, says: &[&str]) {
    let outcome = project.run("prepare");
    outcome.code(4).says(says);
    assert_eq!(outcome.stdout, "", "data only on success");
    assert!(project.run_dirs().is_empty(), "{:?}", project.run_dirs());
}

fn at(url: &str) -> Project {
    let mut project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project.set("DATABASE_URL", url);
    project
}

#[test]
fn nobody_listens_on_the_port() {
    let address = format!("127.0.0.1:{}", free_port());
    let project = at(&format!("postgres://me@{address}/app"));
    refused(
        &project,
        &[
            &format!("cannot reach PostgreSQL at `me@{address}`"),
            "refused",
            "start it, correct the URL",
            "`server.mode = \"local\"`",
        ],
    );
}

#[test]
fn there_is_no_socket() {
    let project = at("postgres://me@%2Fnowhere:5432/app");
    refused(
        &project,
        &[
            "cannot reach",
            "`me@/nowhere:5432`",
            "No such file",
            "start it",
        ],
    );
}

#[test]
fn every_command_that_needs_the_server_says_so() {
    let project = at("postgres://me@%2Fnowhere:5432/app");
    for command in [
        "prepare",
        "sweep",
        "sweep --dry-run",
        "status",
        "status --json",
    ] {
        project.run(command).code(4).says(&["`me@/nowhere:5432`"]);
    }
    let outcome = project.run("server stop");
    outcome
        .code(0)
        .says(&["nothing to stop", "`me@/nowhere:5432`"]);
}

#[test]
fn the_server_is_too_old() {
    let server = OldServer::start();
    let project = at(&format!("postgres://me@127.0.0.1:{}/app", server.port));
    refused(&project, &["is version 12.22", "13 or newer", "upgrade"]);
}

#[test]
fn the_role_may_not_create_databases() {
    let server = Server::start();
    server.execute("CREATE ROLE reader LOGIN");
    let before = server.databases();
    let project = at(&server.url_of("reader"));
    refused(
        &project,
        &["the role `reader`", "may not create databases", "CREATEDB"],
    );
    assert_eq!(server.databases(), before);
}

#[test]
fn there_is_no_such_role() {
    let server = Server::start();
    let project = at(&server.url_of("nobody"));
    refused(
        &project,
        &["refused the login", "\"nobody\"", "correct the user"],
    );
}

#[test]
fn the_maintenance_database_is_missing() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[server]\nmaintenance_database = \"admin\"\n");
    refused(
        &project,
        &[
            "has no maintenance database `admin`",
            "create it",
            "`server.maintenance_database`",
        ],
    );
}

#[test]
fn the_role_may_not_connect_to_the_maintenance_database() {
    let server = Server::start();
    server.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC");
    server.create(&["desk"]);
    let mut project = Project::on(&server);
    refused(
        &project,
        &[
            "maintenance database `postgres`",
            "permission denied",
            "`server.maintenance_database`",
            &format!("GRANT CONNECT ON DATABASE \"postgres\" TO \"{ROLE}\""),
        ],
    );
    project.set("KAPSEL_TESTDB_SERVER_MAINTENANCE_DATABASE", "desk");
    project.run("prepare").code(0);
}

#[test]
fn the_maintenance_database_accepts_no_connections() {
    let server = Server::start();
    server.create(&["desk"]);
    server.execute("ALTER DATABASE desk ALLOW_CONNECTIONS false");
    let project = Project::on(&server);
    project.config("[server]\nmaintenance_database = \"desk\"\n");
    refused(
        &project,
        &[
            "maintenance database `desk`",
            "`server.maintenance_database`",
            "ALLOW_CONNECTIONS true",
        ],
    );
}

#[test]
fn other_machines_are_refused_without_asking_them() {
    for (host, shown) in [
        ("postgres", "me@postgres:5432"),
        ("10.255.255.1", "10.255.255.1"),
    ] {
        let project = at(&format!("postgres://me:hunter2@{host}/app"));
        let begun = Instant::now();
        for command in ["prepare", "sweep", "status"] {
            let outcome = project.run(command);
            outcome
                .code(4)
                .says(&[
                    shown,
                    "is not on this machine",
                    "KAPSEL_TESTDB_ALLOW_REMOTE=1",
                ])
                .says(&["`allow_remote = true`", "`[server]`"])
                .never_says("hunter2");
        }
        // A packet to a machine that is not there would be waited for much longer.
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_administrative_url_of_another_machine_is_refused_too() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set(
        "KAPSEL_TESTDB_SERVER_ADMIN_URL",
        "postgres://me@db.example/app",
    );
    refused(&project, &["me@db.example:5432", "is not on this machine"]);
}

#[test]
fn other_machines_are_used_once_somebody_allows_them() {
    // Not a loopback address by its number, but it leads to this machine.
    let server = Server::start_tcp();
    let url = format!("postgres://{ROLE}@0.0.0.0:{}/postgres", server.port());
    let project = at(&url);
    let before = server.databases();
    refused(&project, &["0.0.0.0", "is not on this machine"]);
    assert_eq!(server.databases(), before);
    let allowed = |value: &str| {
        let tool = project.tool("prepare");
        tool.env("KAPSEL_TESTDB_ALLOW_REMOTE", value).run()
    };
    allowed("0").code(4);
    allowed("1").code(0);
    project.run("prepare --allow-remote").code(0);
    project.config("[server]\nallow_remote = true\n");
    project.run("prepare").code(0);
}
