//! Tests that name their migrations: which template their clones are made from, who builds it, who keeps it, what is said.

use std::path::Path;

use kapsel_testdb::testing::{self, TestPlan};
use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::support::{DeadRun, FakeNextest, Outcome, Project, Server, Tool};

/// What the child's attribute says: `inferred`, `none`, `folder <path>`, `compiled <path>` or `fixture <path>`.
const SAYS: &str = "KT_SAYS";
/// The directory that the child was compiled in.
const PACKAGE: &str = "KT_PACKAGE";
/// Makes the child fail.
const FAILS: &str = "KT_FAILS";

#[test]
#[ignore = "a child process of the other tests"]
#[expect(
    clippy::print_stdout,
    reason = "the test that started this process reads it"
)]
fn child() {
    let Ok(says) = std::env::var(SAYS) else {
        return;
    };
    let code = testing::run(
        plan(&says),
        |pool: PgPool| async move {
            let sql = "SELECT coalesce(string_agg(c.relname, ' ' ORDER BY c.relname), 'none') || ' in ' || current_database() \
                   FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND c.relname <> '_sqlx_migrations'";
            let said: String = sqlx::query_scalar(sql)
                .fetch_one(&pool)
                .await
                .expect("an answer");
            println!("tables: {said}");
            assert!(std::env::var(FAILS).is_err(), "as told");
        },
        |_| None,
    );
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

fn plan(says: &str) -> TestPlan {
    let leak = |text: &str| -> &'static str { text.to_owned().leak() };
    let package = std::env::var(PACKAGE);
    let plan = TestPlan::new(leak(package.as_deref().unwrap_or("/nowhere")));
    match says.split_once(' ').unwrap_or((says, "")) {
        ("inferred", _) => plan,
        ("none", _) => plan.without_migrations(),
        ("folder", path) => plan.migrations(leak(path)),
        ("fixture", path) => plan.fixtures(&[leak(path)]),
        ("compiled", path) => plan.migrator(compiled(Path::new(path))),
        other => unreachable!("{other:?}"),
    }
}

/// As `sqlx::migrate!` would have compiled it in some time ago.
fn compiled(folder: &Path) -> &'static Migrator {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime.expect("a runtime").block_on(Migrator::new(folder));
    Box::leak(Box::new(read.expect("migrations")))
}

/// A test process of a package in a folder below the root.
pub fn command(project: &Project, exported: &str, package: &str, says: &str) -> Tool {
    let binary = std::env::current_exe().expect("this test binary");
    let tool = project
        .program(binary)
        .args([
            "processes::schemas::child",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("CARGO_MANIFEST_DIR", project.root().join(package))
        .env(SAYS, says);
    let variables = exported.lines().filter_map(|line| line.split_once('='));
    variables.fold(tool, |tool, (name, value)| tool.env(name, value))
}

/// Runs it; it must pass. The tables that it found, and its database.
#[track_caller]
pub fn tables(project: &Project, exported: &str, package: &str, says: &str) -> (String, String) {
    told(&command(project, exported, package, says).run())
}

#[track_caller]
fn told(outcome: &Outcome) -> (String, String) {
    outcome.code(0);
    let lines = outcome.stdout.lines();
    let mut said = lines.filter_map(|line| line.split_once("tables: "));
    let (_, said) = said.next_back().unwrap_or_else(|| panic!("{outcome:#?}"));
    let (tables, database) = said.split_once(" in ").expect("a database");
    (tables.to_owned(), database.to_owned())
}

/// Two packages beside the workspace's migrations: `with` has its own, `without` has none.
fn packages(project: &Project) {
    project.write(
        "with/migrations/0001_here.sql",
        "CREATE TABLE here (id int);",
    );
    project.write("without/Cargo.toml", "");
}

#[test]
fn a_package_with_migrations_of_its_own_has_a_template_of_its_own() {
    let server = Server::start();
    let project = Project::on(&server);
    packages(&project);
    let run = FakeNextest::start(&project, "packages");
    for (package, says) in [
        (".", "inferred"),
        ("without", "inferred"),
        ("with", "folder ../migrations"),
        (".", "folder migrations"),
        (".", "compiled migrations"),
    ] {
        let says = match says.strip_prefix("compiled ") {
            Some(folder) => format!("compiled {}", project.root().join(folder).display()),
            None => says.to_owned(),
        };
        let (found, _) = tables(&project, &run.exported, package, &says);
        assert_eq!(found, "posts users", "{package} {says}");
    }
    assert_eq!(server.databases_of("template").len(), 1, "the run's");
    let (found, database) = tables(&project, &run.exported, "with", "inferred");
    assert_eq!(found, "here");
    let (same, _) = tables(&project, &run.exported, ".", "folder with/migrations");
    assert_eq!(same, "here");
    let (none, _) = tables(&project, &run.exported, "with", "none");
    assert_eq!(none, "none");
    let templates = server.databases_of("template");
    assert_eq!(templates.len(), 3, "{templates:?}");
    let fingerprint = database.split('_').nth(2).expect("a fingerprint");
    assert!(templates.contains(&format!("app_template_{fingerprint}")));
    // Calls are not of any package.
    crate::processes::child::run(&project, &run.exported, "once").code(0);
    run.end();
    assert!(server.databases_of("clone").is_empty());
}

/// A debugger starts the test program, without a variable of cargo, in any directory.
fn debugged(project: &Project) -> Tool {
    let binary = std::env::current_exe().expect("this test binary");
    let script = r#"cd / && exec "$0" processes::schemas::child --exact --ignored --nocapture"#;
    let tool = project.program("sh").args(["-c", script]).args([binary]);
    tool.env(SAYS, "inferred").env_remove("DATABASE_URL")
}

#[test]
fn a_program_that_a_debugger_starts_finds_its_project() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config(&format!("[server]\nurl = '{}'\n", server.url()));
    project.write("crates/app/Cargo.toml", "");
    let package = project.root().join("crates/app");
    let (found, _) = told(&debugged(&project).env(PACKAGE, &package).run());
    assert_eq!(found, "posts users");
    // A variable names the root, whatever the package.
    let tool = debugged(&project).env("KAPSEL_TESTDB_ROOT", project.root());
    let (found, _) = told(&tool.env(PACKAGE, "/nowhere").run());
    assert_eq!(found, "posts users");
    let tool = debugged(&project).env("KAPSEL_TESTDB_ROOT", "relative");
    let outcome = tool.run();
    assert_ne!(outcome.code, 0);
    outcome.says(&["the path in KAPSEL_TESTDB_ROOT is relative"]);
}

#[test]
fn the_runs_migrations_are_its_template_with_its_seeds_however_they_are_named() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nseeds = [\"seed.sql\"]\n");
    project.write("seed.sql", "CREATE TABLE seeded ();");
    project.write(
        "copy/0001_users.sql",
        "CREATE TABLE users (id int PRIMARY KEY);",
    );
    project.write(
        "copy/0002_posts.sql",
        "CREATE TABLE posts (id int PRIMARY KEY);",
    );
    let run = DeadRun::leave(&project, "seeds");
    let compiled = format!("compiled {}", project.root().join("copy").display());
    for says in ["inferred", "folder migrations", "folder copy", &compiled] {
        let (found, _) = tables(&project, &run.exported, ".", says);
        assert_eq!(found, "posts seeded users", "{says}");
    }
    let (none, _) = tables(&project, &run.exported, ".", "none");
    assert_eq!(none, "none");
    // Clones of the run's own template wait for its next test.
    let ready = std::fs::read_dir(run.dir.join("ready")).expect("the directory");
    assert_eq!(server.databases_of("clone").len(), ready.count());
    project.run("sweep --no-wait").code(0);
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn one_of_many_builds_another_template() {
    let server = Server::start();
    let project = Project::on(&server);
    packages(&project);
    project.write("with/migrations/0002_slow.sql", "SELECT pg_sleep(0.3);");
    let run = FakeNextest::start(&project, "parallel");
    let children: Vec<_> = (0..8)
        .map(|_| command(&project, &run.exported, "with", "inferred").spawn())
        .collect();
    for child in children {
        assert_eq!(told(&Outcome::of(child)).0, "here");
    }
    assert_eq!(server.databases_of("template").len(), 2);
    assert!(server.databases_of("building").is_empty());
    run.end();
    assert!(server.databases_of("clone").is_empty());
}

#[test]
fn another_template_is_not_collected_under_its_run_and_goes_like_any_other_afterwards() {
    let server = Server::start();
    let project = Project::on(&server);
    project.config("[template]\nkeep = 1\n");
    packages(&project);
    let run = FakeNextest::start(&project, "collected");
    tables(&project, &run.exported, "with", "inferred");
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("template").len(), 2);
    tables(&project, &run.exported, "with", "inferred");
    run.end();
    project.run("sweep").code(0);
    assert_eq!(server.databases_of("template").len(), 1);
}

#[test]
fn a_failed_tests_database_is_kept_whatever_its_template() {
    let server = Server::start();
    let project = Project::on(&server);
    packages(&project);
    let run = FakeNextest::start(&project, "kept");
    let failed = command(&project, &run.exported, "with", "inferred").env(FAILS, "1");
    failed.run().code(101).says(&["kapsel-testdb kept psql"]);
    run.end();
    let kept = server.databases_of("kept");
    assert_eq!(kept.len(), 1);
    let sql = "SELECT to_regclass('here')::text";
    assert_eq!(server.column_in(&kept[0], sql), ["here"]);
}

#[test]
fn without_a_run_a_process_has_the_same_templates() {
    let server = Server::start();
    let project = Project::on(&server);
    packages(&project);
    project.write(".config/kapsel-testdb.toml", "");
    for (package, says, found) in [
        ("with", "inferred", "here"),
        ("without", "inferred", "posts users"),
        (".", "none", "none"),
    ] {
        assert_eq!(tables(&project, "", package, says).0, found);
    }
    assert_eq!(server.databases_of("template").len(), 3);
    assert!(server.databases_of("clone").is_empty());
    assert!(project.run_dirs().is_empty());
}

#[test]
fn a_migrator_that_was_compiled_too_early_says_recompile() {
    let server = Server::start();
    let project = Project::on(&server);
    let users = "CREATE TABLE users (id int PRIMARY KEY);";
    project.write(
        "edited/0001_users.sql",
        "CREATE TABLE users (id bigint PRIMARY KEY);",
    );
    project.write(
        "edited/0002_posts.sql",
        "CREATE TABLE posts (id int PRIMARY KEY);",
    );
    project.write("fewer/0001_users.sql", users);
    project.write("unrelated/0007_users.sql", users);
    let run = FakeNextest::start(&project, "stale");
    let of = |folder: &str| {
        let says = format!("compiled {}", project.root().join(folder).display());
        command(&project, &run.exported, ".", &says).run()
    };
    for (folder, said, found) in [
        ("edited", "migration 1 users was edited", "posts users"),
        ("fewer", "migration 2 posts is new", "users"),
    ] {
        // The second time the template is there.
        for _ in 0..2 {
            let outcome = of(folder);
            outcome.says(&["recompile", said, "its own template"]);
            assert_eq!(told(&outcome).0, found);
        }
    }
    let outcome = of("unrelated");
    outcome.never_says("recompile");
    assert_eq!(told(&outcome).0, "users");
    let outcome = of("migrations");
    outcome.never_says("recompile");
}

#[test]
fn a_fixture_that_fails_is_named_and_the_database_kept() {
    let server = Server::start();
    let project = Project::on(&server);
    let run = FakeNextest::start(&project, "fixture");
    project.write("fixtures/good.sql", "INSERT INTO users VALUES (1);\n");
    tables(&project, &run.exported, ".", "fixture fixtures/good.sql");
    let text = "INSERT INTO users VALUES (1);\nINSERT INTO posts\n  VALUES ('x');\n";
    project.write("fixtures/bad.sql", text);
    let outcome = command(&project, &run.exported, ".", "fixture fixtures/bad.sql").run();
    outcome.code(101).says(&[
        "the fixture `fixtures/bad.sql` failed: invalid input syntax for type integer: \"x\" (SQLSTATE 22P02)\n",
        " --> fixtures/bad.sql:3:11\n",
        "3 |   VALUES ('x');\n  |           ^^^\n",
        "kapsel-testdb kept psql",
    ]);
    let outcome = command(&project, &run.exported, ".", "fixture fixtures/gone.sql").run();
    outcome.code(101).says(&["`fixtures/gone.sql`"]);
    run.end();
    let kept = server.databases_of("kept");
    assert_eq!(kept.len(), 2);
    for database in kept {
        assert!(
            server
                .column_in(&database, "SELECT id::text FROM users")
                .is_empty()
        );
    }
}

#[test]
fn a_migration_of_another_template_that_fails_is_named() {
    let server = Server::start();
    let project = Project::on(&server);
    project.write(
        "with/migrations/0001_here.sql",
        "CREATE TABLE here (id int);\nSELECT nowhere;\n",
    );
    let run = FakeNextest::start(&project, "fails");
    let outcome = command(&project, &run.exported, "with", "inferred").run();
    outcome
        .code(101)
        .says(&["0001_here.sql` failed: ", "0001_here.sql:2:", "nowhere"]);
    run.end();
    assert!(server.databases_of("building").is_empty());
    assert!(server.databases_of("clone").is_empty());
}
