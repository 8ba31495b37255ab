//! `server.test_role`: tests on the managed server connect as a role that is no superuser.

use crate::processes::child;
use crate::support::{FakeNextest, PATIENCE, Project, Server, Session, poll_until};

const SECURED: &str = "CREATE TABLE users (id int PRIMARY KEY);
    INSERT INTO users VALUES (1), (20);
    ALTER TABLE users ENABLE ROW LEVEL SECURITY;
    CREATE POLICY small ON users USING (id < 10);
    GRANT SELECT, INSERT ON users TO tester;
    CREATE TABLE secret (id int);";

/// Fails unless it runs as `tester`, sees what the policy allows, and lacks the other grants.
const CHECK: &str = "DO $$ BEGIN
    ASSERT current_user = 'tester', current_user;
    ASSERT (SELECT array_agg(id) FROM users) = '{1}', 'the policy applies';
    INSERT INTO users VALUES (2);
    BEGIN
        PERFORM FROM secret;
        RAISE 'it may read the table';
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    END $$";

fn project() -> Project {
    let project = Project::new("app");
    project.migration("0001_users", SECURED);
    project.config("[server]\ntest_role = 'tester'\n");
    project
}

#[test]
fn tests_are_subject_to_policies_and_grants() {
    let mut project = project();
    project.set(child::SQL, CHECK);
    // Without a setup script.
    child::run(&project, "", "own-sql").code(0);
    // In a run, whose keeper has the rights to clean the clones.
    let run = FakeNextest::start(&project, "role");
    for _ in 0..3 {
        child::run(&project, &run.exported, "own-sql").code(0);
        child::run(&project, &run.exported, "shared-sql");
    }
    let counts = poll_until("a clone was recycled", PATIENCE, || {
        let status = project.run("status --json").code(0).json();
        let reuse = status["runs"][0]["clones"].clone();
        match reuse["recycled"].as_u64() {
            Some(1..) => Ok(reuse),
            _ => Err(status.to_string()),
        }
    });
    assert_eq!(
        counts["reasons"]["rights"],
        serde_json::Value::Null,
        "{counts}"
    );
    run.end();
    let outcome = project.run("doctor");
    for text in ["tests connect as `tester`", "no superuser"] {
        assert!(outcome.stdout.contains(text), "{outcome:#?}");
    }
}

#[test]
fn an_existing_role_is_used_if_it_is_no_superuser() {
    let project = project();
    project.run("server start").code(0);
    let mut session = Session::open(&project.managed_options());
    session.execute("ALTER ROLE tester NOLOGIN");
    project.prepared();
    session.execute("ALTER ROLE tester SUPERUSER");
    let outcome = project.run("prepare");
    outcome.code(4).says(&[
        "`tester`",
        "`server.test_role`",
        "is a superuser",
        "NOSUPERUSER",
    ]);
}

#[test]
fn doctor_says_what_tests_connect_as() {
    let project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int);");
    project.prepared();
    let outcome = project.run("doctor");
    for text in [
        "the superuser `postgres`",
        "row-level security",
        "`server.test_role`",
    ] {
        let words: Vec<&str> = outcome.code(0).stdout.split_whitespace().collect();
        assert!(words.join(" ").contains(text), "{outcome:#?}");
    }
    // Elsewhere the key has no effect.
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[server]\ntest_role = 'tester'\nsettings = { work_mem = '9MB' }\n");
    let outcome = project.run("doctor");
    for text in [
        "`app`, which is no superuser",
        "`server.settings` (work_mem)",
    ] {
        let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
        assert!(words.join(" ").contains(text), "{outcome:#?}");
    }
}
