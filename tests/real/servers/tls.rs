//! TLS to a real server: what is asked for is done, what cannot be done is told at once with its remedy.

use crate::processes::child;
use crate::support::{Certificates, FakeNextest, Outcome, Project, ROLE, Server, poll_until};

const IP: &str = "IP:127.0.0.1";

fn project(server: &Server, query: &str) -> Project {
    let mut project = Project::on(server);
    // A mistake that does not pass must not be waited for.
    project.set("KAPSEL_TESTDB_SERVER_WAIT_SECS", "60");
    let url = format!(
        "postgres://{ROLE}@127.0.0.1:{}/postgres{query}",
        server.port()
    );
    project.set("DATABASE_URL", &url);
    project
}

fn prepare(server: &Server, query: &str) -> Outcome {
    project(server, query).run("prepare")
}

#[test]
fn whoever_signed_the_server_is_believed_where_he_is_named() {
    let certificates = Certificates::for_host(IP);
    let server = Server::start_tls(&certificates);
    let ca = certificates.ca().display().to_string();
    for query in [
        String::new(),
        "?sslmode=require".to_owned(),
        format!("?sslmode=verify-ca&sslrootcert={ca}"),
        format!("?sslmode=verify-full&sslrootcert={ca}"),
    ] {
        prepare(&server, &query)
            .code(0)
            .says(&["adopted PostgreSQL"]);
    }
}

#[test]
fn nobody_else_is_believed() {
    let server = Server::start_tls(&Certificates::for_host(IP));
    let other = Certificates::for_host(IP);
    for mode in ["verify-ca", "verify-full"] {
        let wrong = format!("?sslmode={mode}&sslrootcert={}", other.ca().display());
        let outcome = prepare(&server, &wrong);
        outcome
            .code(4)
            .says(&["TLS with PostgreSQL at", "certificate", "`sslrootcert`"]);
        let outcome = prepare(&server, &format!("?sslmode={mode}"));
        outcome
            .code(4)
            .says(&["UnknownIssuer", "`sslrootcert` in the URL"]);
    }
}

#[test]
fn the_certificate_of_another_host_is_refused() {
    let certificates = Certificates::for_host("DNS:db.example");
    let server = Server::start_tls(&certificates);
    let ca = certificates.ca().display().to_string();
    let full = format!("?sslmode=verify-full&sslrootcert={ca}");
    prepare(&server, &full).code(4).says(&[
        "connect by a host name that the certificate contains",
        "verify-ca",
    ]);
    let less = format!("?sslmode=verify-ca&sslrootcert={ca}");
    prepare(&server, &less).code(0);
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = Server::start_tcp();
    let outcome = prepare(&server, "?sslmode=require");
    outcome
        .code(4)
        .says(&["does not support TLS", "enable `ssl` on the server"]);
    prepare(&server, "?sslmode=prefer").code(0);
}

#[test]
fn without_tls_a_server_that_wants_it_is_told_of() {
    let server = Server::start_tls(&Certificates::for_host(IP));
    let outcome = prepare(&server, "?sslmode=disable");
    outcome
        .code(4)
        .says(&["refused the login", "set `sslmode=require`"]);
}

#[test]
fn a_certificate_file_that_is_not_there_is_named() {
    let server = Server::start_tls(&Certificates::for_host(IP));
    let outcome = prepare(&server, "?sslmode=verify-full&sslrootcert=nowhere.pem");
    outcome.code(4).says(&[
        "cannot read `sslrootcert=",
        "/nowhere.pem`",
        "correct the path",
    ]);
}

#[test]
fn a_run_and_its_tests_use_it_from_any_folder() {
    let certificates = Certificates::for_host(IP);
    let server = Server::start_tls(&certificates);
    let query = "?sslmode=verify-full&sslrootcert=ca.pem";
    let project = project(&server, query);
    std::fs::copy(certificates.ca(), project.root().join("ca.pem")).expect("a copy");
    let before = server.databases();
    let run = FakeNextest::start(&project, "tls");
    for task in ["once", "shared", "begin"] {
        let mut command = child::command(&project, &run.exported, task).into_command();
        let output = command.current_dir("/").output().expect("a child");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
    }
    run.end();
    let mut after = server.databases();
    after.retain(|name| !name.contains("_template_"));
    assert_eq!(after, before);
}

#[test]
fn the_variables_of_libpq_count_too() {
    let certificates = Certificates::for_host(IP);
    let server = Server::start_tls(&certificates);
    let tool = |ca: &std::path::Path| {
        project(&server, "")
            .tool("prepare")
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", ca)
            .run()
    };
    tool(&certificates.ca()).code(0);
    tool(&Certificates::for_host(IP).ca()).code(4);
}

#[test]
fn the_session_is_encrypted() {
    let server = Server::start_tls(&Certificates::for_host(IP));
    let project = project(&server, "?sslmode=require");
    let run = FakeNextest::start(&project, "r");
    let sql = "SELECT count(*)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE ssl AND application_name LIKE 'kapsel-testdb keeper%'";
    poll_until(
        "the keeper is there",
        crate::support::PATIENCE,
        || match server.column_in("postgres", sql)[0].as_str() {
            "0" => Err("no encrypted session".to_owned()),
            _ => Ok(()),
        },
    );
    run.end();
}
