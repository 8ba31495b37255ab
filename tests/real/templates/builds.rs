//! Templates: whose they are, which ones stay, and what an interrupted DROP leaves.

use crate::support::{
    DeadRun, FakeNextest, Outcome, PATIENCE, Project, Server, poll_until, read_run,
};

fn unseal(server: &Server, template: &str) {
    server.execute(&format!("ALTER DATABASE {template} IS_TEMPLATE false"));
}

#[test]
fn another_roles_template_is_neither_used_nor_replaced() {
    let server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    unseal(&server, &template);
    server.execute(&format!("DROP DATABASE {template}"));
    server.execute("CREATE ROLE mallory");
    server.execute(&format!("CREATE DATABASE {template} OWNER mallory"));
    let outcome = project.run("prepare");
    outcome.code(5).says(&[
        &format!("the template `{template}` belongs to the role `mallory`, not to `app`"),
        "let its owner drop it",
        "`namespace`",
    ]);
    assert!(server.databases().contains(&template));
    assert!(server.databases_of("building").is_empty());
    assert!(project.run_dirs().is_empty());
}

#[test]
fn an_interrupted_drop_is_finished_and_the_template_built_again() {
    let server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    // PostgreSQL marks only what is unsealed: it refuses to drop a template.
    unseal(&server, &template);
    let mark = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{template}'");
    server.execute(&mark);
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["building the template: 2 files", &template]);
    project.run("prepare").code(0).says(&[" current,"]);
}

#[test]
fn a_template_that_somebody_opened_is_built_again() {
    let server = Server::start();
    let project = Project::on(&server);
    let template = project.prepared();
    server.execute(&format!("ALTER DATABASE {template} ALLOW_CONNECTIONS true"));
    project
        .run("prepare")
        .code(0)
        .says(&["building the template: 2 files"]);
    project.run("prepare").code(0).says(&[" current,"]);
}

#[test]
fn one_of_many_builds_and_all_use_it() {
    let server = Server::start();
    let project = Project::on(&server);
    project.migration("0003_slow", "SELECT pg_sleep(0.3);");
    let children: Vec<_> = (0..6).map(|_| project.tool("prepare").spawn()).collect();
    let outcomes: Vec<Outcome> = children.into_iter().map(Outcome::of).collect();
    for outcome in &outcomes {
        outcome.code(0);
    }
    let built = outcomes
        .iter()
        .filter(|o| o.stderr.contains("building the template"));
    assert_eq!(built.count(), 1, "{outcomes:#?}");
    assert_eq!(server.databases_of("template").len(), 1);
    assert!(server.databases_of("building").is_empty());
    assert!(project.run_dirs().is_empty());
}

#[test]
fn the_least_recently_used_go_but_none_that_is_in_use() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nkeep = 2\n");
    let run = FakeNextest::start(&project, "uses-the-oldest");
    let (_, in_use) = read_run(&run.dir);
    for n in 2..=4 {
        project.migration(
            "0001_users",
            &format!("CREATE TABLE users (id int, a{n} int);"),
        );
        project.run("prepare").code(0);
    }
    assert_eq!(server.databases_of("template").len(), 4);
    let dry = project.run("sweep --dry-run");
    dry.code(0);
    assert_eq!(server.databases_of("template").len(), 4);
    project.run("sweep").code(0);
    let left = server.databases_of("template");
    assert!(left.contains(&in_use), "{in_use} of {left:?}");
    assert!(left.len() <= 3, "{left:?}");
    run.end();
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("template").len(), 2);
}

#[test]
fn the_sweep_says_which_templates_it_drops() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nkeep = 1\n");
    project.prepared();
    project.migration("0001_users", "CREATE TABLE users (id int, more int);");
    project.prepared();
    let before = server.databases_of("template");
    let dry = project.run("sweep --dry-run");
    dry.code(0).says(&["would drop app_template_"]);
    let outcome = project.run("sweep");
    let left = server.databases_of("template");
    let gone = before.iter().find(|name| !left.contains(name));
    let gone = gone.expect("one is dropped");
    outcome.code(0).says(&[format!("dropped {gone}")]);
}

/// Says in a template's comment that it was last used then.
pub fn age(server: &Server, template: &str, used_at: u64) {
    let sql = format!(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{template}'"
    );
    let comment = server.column_in("postgres", &sql).remove(0);
    let mut info: serde_json::Value = serde_json::from_str(&comment).expect("JSON");
    info["used_at"] = used_at.into();
    server.execute(&format!("COMMENT ON DATABASE {template} IS '{info}'"));
}

#[test]
fn the_oldest_goes_first() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nkeep = 2\n");
    let mut templates = Vec::new();
    for n in 0..3 {
        project.migration(
            "0001_users",
            &format!("CREATE TABLE users (id int, a{n} int);"),
        );
        templates.push(project.prepared());
    }
    age(&server, &templates[0], 3_000);
    age(&server, &templates[1], 1_000);
    age(&server, &templates[2], 2_000);
    project.run("sweep").code(0);
    let left = server.databases_of("template");
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&templates[1]), "{templates:?}, {left:?}");
}

#[test]
fn an_interrupted_collection_is_finished() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nkeep = 1\n");
    let old = project.prepared();
    project.migration("0001_users", "CREATE TABLE users (id int, more int);");
    let new = project.prepared();
    age(&server, &old, 1_000);
    unseal(&server, &old);
    let mark = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{old}'");
    server.execute(&mark);
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("template"), [new]);
}

#[test]
fn a_sweep_never_takes_a_template_from_under_a_run() {
    let server = Server::start();
    let mut projects: Vec<Project> = (0..3).map(|_| Project::on(&server)).collect();
    let (first, others) = projects.split_first_mut().expect("three");
    for (n, project) in others.iter_mut().enumerate() {
        project.share_host_with(first);
        project.migration("0003_own", &format!("CREATE TABLE own_{n} (id int);"));
    }
    for project in &mut projects {
        project.config("[template]\nkeep = 1\n");
        project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    }
    std::thread::scope(|scope| {
        for project in &projects {
            scope.spawn(move || {
                for round in 0..3 {
                    let id = format!("{}-{round}", project.root().display());
                    DeadRun::leave_unread(project, &id.replace('/', "-"));
                    let sweep = project.run("sweep");
                    // A session of a dead `prepare` may need a moment to go.
                    assert!(matches!(sweep.code, 0 | 8), "{sweep:#?}");
                }
            });
        }
    });
    poll_until("everything is swept", PATIENCE, || {
        let sweep = projects[0].run("sweep");
        match (sweep.code, server.databases_of("shared").len()) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?}: {sweep:#?}")),
        }
    });
    assert!(projects[0].run_dirs().is_empty());
    assert!(server.databases_of("building").is_empty());
    assert_eq!(server.databases_of("template").len(), 1);
}

#[test]
fn database_level_settings_reach_the_clones() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''7s''', current_database()); END $$;";
    project.migration("0003_patience", sql);
    project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    DeadRun::leave(&project, "settings");
    let shared = server.databases_of("shared").remove(0);
    let timeout = server.column_in(&shared, "SELECT current_setting('lock_timeout')");
    assert_eq!(timeout, ["7s"]);
}
