//! Passwords: never in anything that is printed, exported or readable by others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{DeadRun, FakeNextest, Project, ROLE, Server};

const PASSWORD: &str = "s3cret:@\\pw";
const ENCODED: &str = "s3cret%3A%40%5Cpw";

fn project(server: &Server, password: &str) -> Project {
    let mut project = Project::on(server);
    project.set(
        "DATABASE_URL",
        &server.url_of(&format!("{ROLE}:{password}")),
    );
    project
}

#[test]
fn a_wrong_password_is_refused_and_never_repeated() {
    let server = Server::start_scram(PASSWORD);
    let before = server.databases();
    let project = project(&server, "hunter2");
    for command in ["prepare", "prepare -vv", "sweep", "status --json"] {
        let outcome = project.run(command);
        outcome
            .code(4)
            .says(&[
                "refused the login",
                "password authentication failed",
                "correct the user or the password",
            ])
            .never_says("hunter2");
    }
    assert_eq!(server.databases(), before);
    assert!(project.run_dirs().is_empty());
}

#[test]
fn no_password_at_all_is_refused_as_a_login() {
    let server = Server::start_scram(PASSWORD);
    let project = Project::on(&server);
    let outcome = project.run("prepare");
    outcome.code(4).says(&["password"]);
}

#[test]
fn the_password_may_come_from_where_libpq_looks() {
    let server = Server::start_scram(PASSWORD);
    let project = Project::on(&server);
    project
        .tool("prepare")
        .env("PGPASSWORD", PASSWORD)
        .run()
        .code(0);
    let passfile = project.beside("passfile");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    fs::write(&passfile, format!("127.0.0.1:*:*:{ROLE}:{escaped}\n")).expect("a passfile");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("its mode");
    project
        .tool("prepare")
        .env("PGPASSFILE", passfile)
        .run()
        .code(0);
}

#[test]
fn by_hand_it_is_not_printed() {
    let server = Server::start_scram(PASSWORD);
    let project = project(&server, ENCODED);
    for format in ["env", "dotenv", "json", "github"] {
        let outcome = project.run(&format!("prepare -vv --format {format}"));
        outcome.code(0).never_says("s3cret");
    }
    project.run("status --json").code(0).never_says("s3cret");
    project.run("config --json").code(0).never_says("s3cret");
}

#[test]
fn a_run_has_it_in_its_passfile_and_nowhere_else() {
    let server = Server::start_scram(PASSWORD);
    for url in ["off", "admin", "shared"] {
        let mut project = project(&server, ENCODED);
        project.set("KAPSEL_TESTDB_EXPORT_DATABASE_URL", url);
        let run = DeadRun::leave(&project, url);
        run.outcome.never_says("s3cret");
        assert!(!run.exported.contains("s3cret"), "{}", run.exported);
        for entry in fs::read_dir(&run.dir).expect("the run directory").flatten() {
            let mode = entry.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let holds = text.contains("s3cret");
            assert_eq!(holds, entry.file_name() == "pgpass", "{:?}", entry.path());
        }
        let exports_passfile = run.exported.contains("PGPASSFILE=");
        assert_eq!(exports_passfile, url != "off", "{}", run.exported);
        project.run("sweep").code(0);
        assert!(project.run_dirs().is_empty());
    }
}

#[test]
fn the_passfile_of_a_run_names_its_server() {
    let server = Server::start_scram(PASSWORD);
    let project = project(&server, ENCODED);
    let run = DeadRun::leave(&project, "passfile");
    let text = fs::read_to_string(run.dir.join("pgpass")).expect("the passfile");
    let begin = format!("127.0.0.1:{}:*:{ROLE}:", server.port());
    assert!(text.starts_with(&begin), "the passfile is for every host");
    assert_eq!(text.lines().count(), 1);
    project.run("sweep").code(0);
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    let server = Server::start_scram(PASSWORD);
    let project = Project::on(&server);
    for login in [format!("{ROLE}:{ENCODED}@"), format!("{ROLE}@")] {
        let address = format!("127.0.0.1:{}/postgres", server.port());
        let query = if login.contains(':') {
            String::new()
        } else {
            format!("?password={ENCODED}")
        };
        let url = format!("postgres://{login}{address}{query}");
        for command in ["prepare", "sweep", "run -- true"] {
            let words = format!("--url {url} {command}");
            project
                .run(&words)
                .code(3)
                .says(&["`--url` contains a password", "DATABASE_URL", "PGPASSWORD"])
                .never_says("s3cret");
        }
    }
    let words = format!("prepare --url {}", server.url());
    let tool = project.tool(&words).env("PGPASSWORD", PASSWORD);
    tool.run().code(0);
}

#[test]
fn a_keeper_works_with_it_and_takes_it_along() {
    let server = Server::start_scram(PASSWORD);
    let before = server.databases();
    let project = project(&server, ENCODED);
    let run = FakeNextest::start(&project, "keeper");
    assert!(!run.exported.contains("s3cret"), "{}", run.exported);
    run.end();
    let mut after = server.databases();
    after.retain(|name| !name.contains("_template_"));
    assert_eq!(after, before);
    let logs = fs::read_dir(project.beside("rt/logs")).expect("the keepers' logs");
    for log in logs.flatten() {
        let text = fs::read_to_string(log.path()).expect("a log");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read_are_never_repeated() {
    let project = Project::new("app");
    let broken = "DATABASE_URL=postgres://u:hun ter2@localhost/x\n";
    project.write(".env", broken);
    let outcome = project.run("config");
    outcome.code(3).says(&[".env", "DATABASE_URL", "quotes"]);
    outcome.never_says("ter2");
    project.write(".env", "OTHER=a b c hunter2\n");
    project.run("config").code(0).never_says("hunter2");
    project.config("[server]\nurl = \"postgres://u:hunter2@localhost/x\n");
    let outcome = project.run("config");
    outcome.code(3).says(&["kapsel-testdb.toml", "line 2"]);
    outcome.never_says("hunter2");
}
