//! Dead runs of this host: what can be dropped is, also when it resists; what cannot is listed with the reason.

use crate::support::{DeadRun, Project, Server};

/// A dead run with one clone.
fn leftover(server: &Server, project: &Project) -> (DeadRun, String) {
    let run = DeadRun::leave(project, "dead");
    let name = run.clone_name(1);
    server.create(&[&name]);
    (run, name)
}

#[test]
fn a_session_delays_the_drop_to_a_later_sweep() {
    let server = Server::start();
    let project = Project::on(&server);
    let (run, name) = leftover(&server, &project);
    let session = server.session_of_role(&name);
    let outcome = project.run("sweep");
    outcome
        .code(8)
        .says(&[&format!("skipped {name}"), "connected", "later sweep"]);
    assert!(server.databases().contains(&name));
    assert!(run.dir.exists());
    let json = project.run("sweep --json").code(8).json();
    assert_eq!(json["skipped"][0]["database"], name.as_str());
    session.close();
    server.wait_for_sessions(&name, 0);
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
    assert!(!server.databases().contains(&name));
    assert!(!run.dir.exists());
}

#[test]
fn what_belongs_to_another_role_is_listed_with_its_owner() {
    let server = Server::start();
    let project = Project::on(&server);
    let (run, name) = leftover(&server, &project);
    let foreign = run.clone_name(2);
    server.execute("CREATE ROLE mallory");
    server.execute(&format!("CREATE DATABASE {foreign} OWNER mallory"));
    let outcome = project.run("sweep");
    outcome.code(8).says(&[
        &format!("dropped {name}"),
        &format!("skipped {foreign}"),
        "`mallory`",
    ]);
    assert!(!server.databases().contains(&name));
    assert!(server.databases().contains(&foreign));
}

#[test]
fn a_prepared_transaction_is_rolled_back_first() {
    let server = Server::start();
    let project = Project::on(&server);
    let (run, name) = leftover(&server, &project);
    let mut session = server.session_of_role(&name);
    session.execute("CREATE TABLE t (id int)");
    session.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s ours'");
    session.close();
    server.wait_for_sessions(&name, 0);
    // Another database's must stay.
    server.create(&["app"]);
    server.execute_in(
        "app",
        "BEGIN; CREATE TABLE t (id int); PREPARE TRANSACTION 'theirs'",
    );
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
    assert!(!run.dir.exists());
    let left = server.column_in("app", "SELECT gid FROM pg_prepared_xacts");
    assert_eq!(left, ["theirs"]);
    server.execute_in("app", "ROLLBACK PREPARED 'theirs'");
}

#[test]
fn another_roles_prepared_transaction_is_a_reason_not_a_failure() {
    let server = Server::start();
    let project = Project::on(&server);
    let (_, name) = leftover(&server, &project);
    let sql = "BEGIN; CREATE TABLE t (id int); PREPARE TRANSACTION 'a superuser''s'";
    server.execute_in(&name, sql);
    let outcome = project.run("sweep");
    outcome
        .code(8)
        .says(&[&format!("skipped {name}"), "prepared transaction"]);
    server.execute_in(&name, "ROLLBACK PREPARED 'a superuser''s'");
    project.run("sweep").code(0);
    assert!(!server.databases().contains(&name));
}

#[test]
fn an_interrupted_drop_is_finished() {
    let server = Server::start();
    let project = Project::on(&server);
    let (run, name) = leftover(&server, &project);
    let mark = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'");
    server.execute(&mark);
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
    assert!(!server.databases().contains(&name));
    assert!(!run.dir.exists());
}

#[test]
fn a_half_built_template_is_unsealed_and_dropped() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    let name = run.clone_name(1).replace("_clone_", "_building_");
    server.create(&[&name]);
    let seal = format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false");
    server.execute(&seal);
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {name}")]);
    assert_eq!(server.databases_of("template"), [run.template]);
    assert!(server.databases_of("building").is_empty());
}

#[test]
fn a_failed_tests_database_is_kept_and_then_expires() {
    let server = Server::start();
    let project = Project::on(&server);
    let (run, name) = leftover(&server, &project);
    std::fs::write(run.dir.join("failed").join(&name), "").expect("an entry");
    project.run("sweep").code(0);
    let kept = name.replace("_clone_", "_kept_");
    assert_eq!(server.databases_of("kept"), std::slice::from_ref(&kept));
    assert!(!server.databases().contains(&name));
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("kept"), std::slice::from_ref(&kept));
    project.config("[keep]\nmax = 0\n");
    project
        .run("sweep")
        .code(0)
        .says(&[format!("dropped {kept}")]);
    assert!(server.databases_of("kept").is_empty());
}

#[test]
fn a_kept_database_that_somebody_looks_at_stays() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    let kept = run.clone_name(1).replace("_clone_", "_kept_");
    server.create(&[&kept]);
    project.config("[keep]\nmax = 0\n");
    let session = server.session_of_role(&kept);
    project
        .run("sweep")
        .code(8)
        .says(&[format!("skipped {kept}")]);
    session.close();
    server.wait_for_sessions(&kept, 0);
    project.run("sweep").code(0);
    assert!(server.databases_of("kept").is_empty());
}

#[test]
fn a_dead_run_of_another_version_keeps_its_failed_databases() {
    let server = Server::start();
    let project = Project::on(&server);
    let of_others = [
        r#"{"protocol": 99, "namespace": "app", "something": "else"}"#,
        "no JSON",
    ];
    for (number, run_json) in of_others.iter().enumerate() {
        let run = DeadRun::leave(&project, &format!("dead{number}"));
        let names = [run.clone_name(1), run.clone_name(2)];
        server.create(&names);
        std::fs::write(run.dir.join("failed").join(&names[0]), "").expect("an entry");
        std::fs::write(run.dir.join("run.json"), run_json).expect("run.json");
        let kept = names[0].replace("_clone_", "_kept_");
        project.run("sweep --dry-run --no-wait").says(&[
            format!("would keep {kept}"),
            format!("would drop {}", names[1]),
        ]);
        project
            .run("sweep --no-wait")
            .code(0)
            .says(&[format!("kept {kept}"), format!("dropped {}", names[1])]);
        assert!(server.databases_of("kept").contains(&kept));
        assert!(!run.dir.exists());
    }
}

#[test]
fn a_run_of_another_version_without_databases_here_is_another_servers() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    for run_json in [r#"{"protocol": 99, "namespace": "other"}"#, "no JSON"] {
        std::fs::write(run.dir.join("run.json"), run_json).expect("run.json");
        project.run("sweep --no-wait").code(0);
        assert!(run.dir.exists());
    }
}

#[test]
fn a_run_directory_without_its_files_is_removed() {
    let server = Server::start();
    let project = Project::on(&server);
    project.prepared();
    let empty = project.beside("rt/runs/000000000000001");
    std::fs::create_dir(&empty).expect("a folder");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let stranger = project.beside("rt/runs/not-a-run");
    std::fs::create_dir(&stranger).expect("a folder");
    project.run("sweep").code(0);
    assert!(!empty.exists() && stranger.exists());
}

#[test]
fn two_sweeps_at_once_do_the_work_once() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = DeadRun::leave(&project, "dead");
    let names: Vec<String> = (1..=6).map(|n| run.clone_name(n)).collect();
    server.create(&names);
    let sweeps: Vec<_> = (0..3).map(|_| project.tool("sweep").spawn()).collect();
    for sweep in sweeps {
        crate::support::Outcome::of(sweep).code(0);
    }
    assert!(server.databases_of("clone").is_empty());
    assert!(!run.dir.exists());
}
