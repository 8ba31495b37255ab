//! `init` in a workspace: what it finds, and that the first `prepare` succeeds.

use crate::support::{BINARY, Project, Server};

fn workspace(server: &Server) -> Project {
    let mut project = Project::new("app");
    project.set("DATABASE_URL", &server.url());
    project.write("Cargo.toml", "[workspace]\nmembers = ['crates/*']\n");
    project.write("Cargo.lock", "");
    project.write(
        "crates/storage-pg/Cargo.toml",
        "[package]\nname = 'storage-pg'\n",
    );
    project.write("crates/api/Cargo.toml", "[package]\nname = 'api'\n");
    project
}

#[test]
fn the_first_prepare_finds_the_migrations_of_a_member() {
    let server = Server::start();
    let project = workspace(&server);
    let migration = "crates/storage-pg/migrations/0001_a.sql";
    project.write(migration, "CREATE TABLE a ();");
    project.write(
        "crates/api/Cargo.toml",
        "[package]\nname = 'api'\n[dev-dependencies]\nkapsel-testdb = '0.1'\n",
    );
    let command = format!("{BINARY} prepare");
    let init = project.tool("init --command").args([&command]).run();
    init.code(0)
        .says(&["migrations: `crates/storage-pg/migrations`"])
        .never_says("depends on `kapsel-testdb`");
    project.prepared();
    project.run("doctor").code(0);
}

#[test]
fn what_is_missing_is_reported_and_the_findings_of_doctor_end_the_output() {
    let server = Server::start();
    let project = workspace(&server);
    let init = project.run("init --command /no/such/kapsel-testdb");
    init.code(0).says(&[
        "warning: found no directory of migrations; create `migrations`, or set `template.migrations`",
        "warning: no package of the workspace depends on `kapsel-testdb`; add it to one: `cargo add --dev kapsel-testdb",
        "FAILS  program",
        "FAILS  template",
        "problems will make tests fail",
    ]);
    init.never_says("ok     ");
    project.write("crates/api/db/0001_a.sql", "");
    project.write("crates/storage-pg/db/0001_a.sql", "");
    project.run("init").code(0).says(&[
        "warning: found several directories of migrations: `crates/api/db`, `crates/storage-pg/db`; name one or more in `template.migrations`",
    ]);
}

#[test]
fn missing_migrations_are_a_finding_also_without_a_server() {
    let mut project = Project::new("app");
    project.run("doctor").code(1);
    project.set("DATABASE_URL", "postgres://me@%2Fnowhere/app");
    let outcome = project.run("doctor");
    let found = &outcome.code(1).stdout;
    assert!(found.contains("FAILS  template"), "{outcome:#?}");
    project.migration("0001_a", "CREATE TABLE a ();");
    project.run("doctor").never_says("FAILS  template");
}
