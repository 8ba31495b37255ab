//! PgBouncer between tests and server: tests go through it, administrative work goes past it.

use crate::processes::child::{self, Holder};
use crate::runs::reuse;
use crate::support::{FakeNextest, PgBouncer, Project, Server};

/// Tests go through the pooler; `admin_url` leads past it.
fn project(server: &Server, pooler: &PgBouncer) -> Project {
    let mut project = Project::on(server);
    project.set("KAPSEL_TESTDB_SERVER_ADMIN_URL", &server.url());
    project.set("DATABASE_URL", &pooler.url());
    project
}

/// Through a transaction pooler older than 1.21, prepared statements of two connections to one database get in each other's way.
fn knows_prepared_statements() -> bool {
    let output = std::process::Command::new("pgbouncer")
        .arg("--version")
        .env("PATH", crate::support::PROGRAMS)
        .output()
        .expect("pgbouncer");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    let parts: Vec<u32> = version.split('.').flat_map(str::parse).collect();
    parts >= vec![1, 21]
}

fn only_templates(server: &Server, before: &[String]) {
    assert_eq!(server.transient_databases(), before);
}

#[test]
fn in_session_mode_every_isolation_works() {
    let server = Server::start();
    let pooler = PgBouncer::start(&server, "session", "");
    let project = project(&server, &pooler);
    let before = server.databases();
    let run = FakeNextest::start(&project, "r");
    for exported in [run.exported.as_str(), ""] {
        for task in ["once", "shared", "shared", "begin", "sandbox", "many"] {
            child::run(&project, exported, task).code(0);
        }
    }
    assert!(pooler.log().contains("app_clone_"), "{}", pooler.log());
    run.end();
    only_templates(&server, &before);
}

#[test]
fn in_transaction_mode_isolated_tests_work() {
    let server = Server::start();
    let more = match knows_prepared_statements() {
        true => "max_prepared_statements = 100",
        false => "",
    };
    let pooler = PgBouncer::start(&server, "transaction", more);
    let mut project = project(&server, &pooler);
    if !knows_prepared_statements() {
        project.set("KAPSEL_TESTDB_POOL_MAX_CONNECTIONS", "1");
    }
    let before = server.databases();
    let run = FakeNextest::start(&project, "r");
    for exported in [run.exported.as_str(), ""] {
        for task in ["touch", "once", "many"] {
            child::run(&project, exported, task).code(0);
        }
        if knows_prepared_statements() {
            for task in ["shared", "shared", "begin"] {
                child::run(&project, exported, task).code(0);
            }
        }
    }
    run.end();
    only_templates(&server, &before);
}

#[test]
fn what_the_pooler_keeps_open_is_dropped_all_the_same() {
    let server = Server::start();
    let pooler = PgBouncer::start(&server, "transaction", "server_idle_timeout = 600");
    let project = project(&server, &pooler);
    let run = FakeNextest::start(&project, "r");
    let holder = Holder::start(&project, &run.exported);
    holder.end();
    let counts = reuse::settled(&run, 1);
    assert_eq!((counts.recycled, counts.dropped), (0, 1), "{counts}");
    run.end();
    assert_eq!(server.databases_of("clone"), [""; 0]);
}

#[test]
fn a_failed_tests_database_is_kept_though_the_pooler_is_on_it() {
    let server = Server::start();
    let pooler = PgBouncer::start(&server, "session", "server_idle_timeout = 600");
    let project = project(&server, &pooler);
    let run = FakeNextest::start(&project, "r");
    child::run(&project, &run.exported, "panic").code(101);
    run.end();
    let kept = server.databases_of("kept");
    assert_eq!(kept.len(), 1, "{:?}", server.databases());
}

#[test]
fn a_template_can_be_built_and_cloned_again_behind_it() {
    let server = Server::start();
    let pooler = PgBouncer::start(&server, "transaction", "server_idle_timeout = 600");
    let project = project(&server, &pooler);
    let first = project.prepared();
    child::run(&project, "", "touch").code(0);
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    assert_ne!(project.prepared(), first);
    child::run(&project, "", "touch").code(0);
}

/// Nothing was made, no directory is left, and the remedy is named.
#[track_caller]
fn refused(server: &Server, project: &Project, before: &[String]) {
    for command in ["prepare", "sweep", "status"] {
        let outcome = project.run(command);
        outcome
            .code(4)
            .says(&["is a connection pooler", "`server.admin_url`"]);
    }
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_pooler_without_a_way_past_it_is_refused_before_any_harm() {
    let server = Server::start();
    let before = server.databases();
    for mode in ["transaction", "session"] {
        // What many set so that a driver's options pass: then they are accepted and dropped.
        for more in ["", "ignore_startup_parameters = extra_float_digits,options"] {
            let pooler = PgBouncer::start(&server, mode, more);
            let mut project = Project::on(&server);
            project.set("DATABASE_URL", &pooler.url());
            refused(&server, &project, &before);
        }
    }
}

#[test]
fn an_admin_url_that_is_a_pooler_too_is_refused() {
    let server = Server::start();
    let before = server.databases();
    let pooler = PgBouncer::start(&server, "transaction", "");
    let mut project = project(&server, &pooler);
    project.set("KAPSEL_TESTDB_SERVER_ADMIN_URL", &pooler.url());
    refused(&server, &project, &before);
}

#[test]
fn a_clone_that_is_gone_is_replaced_behind_a_pooler_too() {
    let server = Server::start();
    let pooler = PgBouncer::start(&server, "transaction", "");
    let project = project(&server, &pooler);
    let run = FakeNextest::start(&project, "r");
    run.kill_keeper();
    for name in server.databases_of("clone") {
        server.execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    }
    child::run(&project, &run.exported, "touch").code(0);
    project.run("sweep").code(0);
    drop(run.without_keeper());
}

#[test]
fn doctor_says_what_a_transaction_pooler_does_to_prepared_statements() {
    let server = Server::start();
    let session = PgBouncer::start(&server, "session", "");
    let transaction = PgBouncer::start(&server, "transaction", "");
    let outcome = project(&server, &session).run("doctor");
    assert_eq!(
        outcome
            .code(0)
            .stdout
            .matches("tests can connect to")
            .count(),
        1
    );
    if !knows_prepared_statements() {
        let outcome = project(&server, &transaction).run("doctor");
        for text in ["FAILS  test connection", "max_prepared_statements"] {
            assert!(outcome.code(1).stdout.contains(text), "{outcome:#?}");
        }
    }
    let mut elsewhere = project(&server, &session);
    elsewhere.set("KAPSEL_TESTDB_SERVER_ADMIN_URL", &Server::start().url());
    elsewhere.run("doctor").code(1);
}
