//! The life of templates: what the commands print about them, and what drops them.

use crate::support::{DeadRun, FakeNextest, PATIENCE, Project, Server, poll_until};

/// Makes a template look as if it was last used so many days ago.
fn age(server: &Server, template: &str, days: u64) {
    let used = format!(
        "(extract(epoch FROM now())::int8 - {})",
        days * 24 * 60 * 60
    );
    let sql = format!(
        "DO $$ BEGIN EXECUTE format('COMMENT ON DATABASE {template} IS %L', (SELECT jsonb_set(shobj_description(oid, 'pg_database')::jsonb, '{{used_at}}', \
         to_jsonb({used}))::text FROM pg_database WHERE datname = '{template}')); END $$"
    );
    server.execute(&sql);
}

#[test]
fn list_and_why_tell_what_is_there_and_what_a_build_would_do() {
    let server = Server::start();
    let project = Project::on(&server);
    project.run("template list").code(0).says(&["no templates"]);
    let outcome = project.run("template why");
    outcome.code(0);
    assert!(outcome.stdout.contains(
        " must be built: 2 steps\n  because the server has no template of this project\n"
    ));
    project.run("template build").code(0).says(&[" built,"]);
    let first = server.databases_of("template").remove(0);
    let outcome = project.run("template why");
    assert_eq!(
        outcome.stdout,
        format!("{first} is on the server: the next run builds nothing\n")
    );
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    let outcome = project.run("template why");
    let (name, rest) = outcome.stdout.split_once(' ').expect("words");
    assert_eq!(
        rest,
        format!("must be built: 1 step on top of {first}\n  because migration 3 tags is new\n")
    );
    let why = project.run("template why --json").json()["templates"][0].clone();
    assert_eq!(
        (&why["exists"], &why["missing_steps"]),
        (&false.into(), &1.into())
    );
    assert_eq!(
        (&why["template"], &why["starts_from"]),
        (&name.into(), &first.as_str().into())
    );
    project.run("template build").code(0);
    let list = project.run("template list --json").json();
    let of = |index: usize, field: &str| list["templates"][index][field].clone();
    assert_eq!(
        (of(0, "template"), of(0, "current"), of(0, "steps")),
        (name.into(), true.into(), 3.into())
    );
    assert_eq!(
        (of(1, "template"), of(1, "current"), of(1, "steps")),
        (first.as_str().into(), false.into(), 2.into())
    );
    let outcome = project.run("template list");
    assert!(
        outcome.stdout.lines().all(|line| line.len() <= 80),
        "{outcome:#?}"
    );
    assert!(
        outcome
            .stdout
            .lines()
            .nth(1)
            .is_some_and(|line| line.ends_with("current"))
    );
}

#[test]
fn a_template_in_use_is_not_dropped_and_others_go_with_their_spares() {
    let server = Server::start();
    let project = Project::on(&server);
    let nextest = FakeNextest::start(&project, "uses-it");
    let template = server.databases_of("template").remove(0);
    let drop = format!("template drop {template}");
    project
        .run(&drop)
        .code(8)
        .says(&[format!("skipped {template}: a run uses it")]);
    nextest.end();
    poll_until("a spare", PATIENCE, || {
        match server.databases_of("spare").len() {
            0 => Err("there is none".to_owned()),
            _ => Ok(()),
        }
    });
    project
        .run(&drop)
        .code(0)
        .says(&[format!("dropped {template}")]);
    assert!(server.databases_of("template").is_empty());
    assert!(server.databases_of("spare").is_empty());
    project
        .run(&drop)
        .code(2)
        .says(&["there is no template", "template list"]);
}

#[test]
fn purge_drops_everything_that_is_not_in_use() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let mut other = Project::named("other", &server);
    other.share_host_with(&project);
    for project in [&mut project, &mut other] {
        project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", "shared");
    }
    other.prepared();
    let nextest = FakeNextest::start(&project, "alive");
    let dead = DeadRun::leave(&project, "dead");
    let kept = dead.clone_name(2).replace("_clone_", "_kept_");
    server.create(&[dead.clone_name(1), kept.clone()]);
    // A name that is not in the grammar.
    server.create(&["app_template_of_somebody"]);
    let before = server.databases();
    project.run("purge").code(0).says(&[
        format!("would drop {kept}"),
        "run it again with --yes".to_owned(),
    ]);
    assert_eq!(server.databases(), before);
    project
        .run("purge --yes")
        .code(8)
        .says(&["its run is alive", "a run uses it"]);
    let left = server.databases();
    assert!(!left.contains(&kept) && !left.contains(&dead.clone_name(1)));
    nextest.end();
    let outcome = project.run("purge --yes");
    outcome.code(0).never_says("skipped");
    let mut lines: Vec<&str> = outcome.stderr.lines().collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count, "each database once: {outcome:#?}");
    assert!(outcome.stderr.contains("app_spare_"), "{outcome:#?}");
    let ours = |name: &&String| name.starts_with("app_") && *name != "app_template_of_somebody";
    let left = server.databases();
    assert_eq!(left.iter().find(ours), None);
    assert!(left.contains(&"app_template_of_somebody".to_owned()));
    assert!(left.iter().any(|name| name.starts_with("other_template_")));
    project.run("purge --yes --all-projects").code(0);
    assert!(
        !server
            .databases()
            .iter()
            .any(|name| name.starts_with("other_"))
    );
}

#[test]
fn a_sweep_drops_templates_of_other_projects_that_nobody_uses_any_more() {
    let server = Server::start();
    let project = Project::on(&server);
    let gone = Project::named("gone", &server);
    let old = gone.prepared();
    gone.migration("0003_more", "CREATE TABLE more (id int);");
    let young = gone.prepared();
    age(&server, &old, 31);
    age(&server, &young, 29);
    let line = "1 database that other projects left on the server (gone)";
    let outcome = project.run("sweep --dry-run");
    outcome.code(0).says(&[&format!("would drop {line}")]);
    assert!(server.databases().contains(&old));
    project
        .run("sweep")
        .code(0)
        .says(&[&format!("dropped {line}")]);
    assert!(!server.databases().contains(&old));
    assert!(server.databases().contains(&young));
    project.run("sweep").code(0).never_says("other projects");
}

#[test]
fn a_run_does_the_same_once_a_day_and_the_next_command_tells() {
    let server = Server::start();
    let project = Project::on(&server);
    let gone = Project::named("gone", &server);
    let old = gone.prepared();
    age(&server, &old, 31);
    let nextest = FakeNextest::start(&project, "first");
    let notices = project.beside("rt/notices-app");
    poll_until("the keeper has left a notice", PATIENCE, || {
        match notices.exists() {
            false => Err("there is none".to_owned()),
            true => Ok(()),
        }
    });
    assert!(!server.databases().contains(&old));
    nextest.end();
    let outcome = project.run("prepare");
    outcome
        .code(0)
        .says(&["dropped 1 database that other projects left on the server (gone)"]);
    project.run("prepare").code(0).never_says("other projects");
}
