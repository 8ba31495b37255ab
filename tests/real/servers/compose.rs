//! A service of a compose file as the server, on a real engine: brought up once, found again, and what is said where it cannot be.

use std::path::Path;

use crate::processes::child;
use crate::support::{BINARY, Composed, Outcome, Project, Server, one_service};

const PUBLISHED: &str = "ports: ['127.0.0.1::5432']";
const PASSWORD: &str = "environment: { POSTGRES_PASSWORD: secret }";

/// The settings that a compose file gives to `postgres`, as name and value.
fn settings(file: &str) -> Vec<(&str, &str)> {
    let lines = file.lines().map(str::trim);
    let words: Vec<&str> = lines.filter_map(|l| l.strip_prefix("- ")).collect();
    let settings = words.windows(2).filter(|pair| pair[0] == "-c");
    settings
        .filter_map(|pair| pair[1].split_once('='))
        .collect()
}

#[test]
fn the_shipped_file_is_brought_up_once_with_every_setting_it_names() {
    let Some(mut project) = Composed::shipped() else {
        return;
    };
    project.record();
    let said = project.run("prepare");
    said.code(0).says(&[
        "compose PostgreSQL 1",
        &format!("at {}", project.published()),
        " built,",
    ]);
    said.never_says("kapsel ");
    assert_eq!(project.ups(), 1);

    // The second one asks nothing; without the note it asks, and still brings nothing up.
    let calls = project.calls();
    project.run("prepare").code(0).says(&[" current,"]);
    assert_eq!(project.calls(), calls);
    project.forget();
    project.run("prepare").code(0).says(&[" current,"]);
    assert_ne!(project.calls(), calls);
    assert_eq!(project.ups(), 1);

    let script = r#"eval "$("$0" acquire)" && psql -qtAc "INSERT INTO users VALUES (7) RETURNING id" && "$0" release "$PGDATABASE""#;
    let lease = project.tool("run -- sh -c").args([script, BINARY]).run();
    assert_eq!(lease.code(0).stdout.trim(), "7", "{lease:#?}");

    let file = include_str!("../../../docker-compose.yml");
    let mut session = project.session();
    let named = settings(file);
    assert!(named.len() > 10, "{named:?}");
    for (name, value) in named {
        assert_eq!(session.column(&format!("SHOW {name}")), [value], "{name}");
    }
    session.close();
}

/// On the version that the other tests run on: scripts/test-matrix has 16, which the shipped file starts.
#[test]
fn this_version_knows_every_setting_of_the_shipped_file() {
    let named = settings(include_str!("../../../docker-compose.yml"));
    let words: Vec<String> = named.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = Server::start_with(&words);
    for (name, value) in named {
        let shown = server.column_in("postgres", &format!("SHOW {name}"));
        assert_eq!(shown, [value], "{name}");
    }
}

#[test]
fn a_file_of_the_users_own_with_another_service_user_port_and_secret() {
    let Some(mut project) = Composed::with(&format!(
        "{}  web:\n    image: $KAPSEL_TESTDB_IMAGE\n    command: ['sleep', '1000']\n",
        one_service(
            "db",
            &[
                "command: ['postgres', '-p', '6000', '-c', 'max_connections=17']",
                "environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD_FILE: /secret, POSTGRES_DB: shop }",
                "volumes: ['./secret:/secret:ro']",
                "ports: ['6000']",
            ],
        )
    )) else {
        return;
    };
    std::fs::rename(
        project.root().join("docker-compose.yml"),
        project.root().join("stack.yml"),
    )
    .expect("renamed");
    project.write("secret", "p:a\\ss'w=ord\n");
    let variable = |key: &str| format!("KAPSEL_TESTDB_SERVER_COMPOSE_{key}");
    project
        .run("prepare")
        .code(4)
        .says(&["found no compose file", "`server.compose_file`"]);
    project.set(&variable("FILE"), "stack.yml");
    project.set(&variable("PORT"), "6000");
    project.run("prepare").code(4).says(&[
        "stack.yml",
        "`db`, `web`",
        "none is named `postgres`",
        "`server.compose_service`",
    ]);
    project.set(&variable("SERVICE"), "pg");
    project
        .run("prepare")
        .code(4)
        .says(&["has no service `pg`, only `db`, `web`"]);
    project.set(&variable("SERVICE"), "db");
    project
        .run("prepare")
        .code(0)
        .says(&["compose PostgreSQL", " at shop@127.0.0.1:"]);
    let json = project.run("status --json").json();
    assert_eq!(json["server"]["kind"], "compose");
    assert_eq!(json["server"]["managed"], true);
    assert_eq!(json["server"]["max_connections"], 17);
}

/// Setup scripts, and test processes without one.
#[test]
fn many_who_come_at_once_bring_up_one() {
    let Some(mut project) = Composed::service("postgres", &[PASSWORD, PUBLISHED]) else {
        return;
    };
    project.record();
    let tools = [
        project.tool("prepare"),
        child::command(&project, "", "once"),
        project.tool("prepare"),
    ];
    let children = tools.map(|tool| tool.spawn());
    let outcomes = children.map(Outcome::of);
    for outcome in &outcomes {
        outcome.code(0);
    }
    outcomes[0].says(&["compose PostgreSQL"]);
    assert_eq!(project.ups(), 1);
}

#[test]
fn what_we_brought_up_is_stopped_and_started_again_with_its_data() {
    let Some(project) = Composed::service("db", &[PASSWORD, PUBLISHED]) else {
        return;
    };
    project.run("server stop").code(0).says(&["is not running"]);
    let template = project.prepared();
    project
        .run("server stop")
        .code(0)
        .says(&["stopped the service `db`"]);
    for (command, code) in [
        ("status", 0),
        ("sweep", 0),
        ("kept list", 0),
        ("server psql", 4),
    ] {
        let outcome = project.run(command);
        outcome
            .code(code)
            .says(&["the compose service is not running"]);
    }
    let again = project.run("prepare");
    again.code(0).says(&[&format!("{template} current")]);

    // Who runs already counts as the user's own.
    project.forget();
    project.run("server stop").code(8).says(&[
        "did not start the service `db`",
        "stop db`",
        "--force",
    ]);
    project.run("prepare").code(0);
    project
        .run("server stop")
        .code(8)
        .says(&["did not start the service"]);
    project
        .run("server stop --force")
        .code(0)
        .says(&["stopped the service `db`"]);
}

/// The new container has the old one's volume, and with it the old password.
#[test]
fn a_volume_with_another_password_is_named_at_once() {
    // With a name: docker-compose 1 leaves the old container's anonymous volumes behind where the engine no longer tells an image's
    // `ContainerConfig`.
    let volume = "volumes: ['data:/var/lib/postgresql/data']";
    let file = |password: &str| {
        let service = one_service("db", &[password, volume, PUBLISHED]);
        format!("{service}volumes: {{ data: {{}} }}\n")
    };
    let Some(project) = Composed::with(&file(PASSWORD)) else {
        return;
    };
    project.prepared();
    project.run("server stop").code(0);
    let changed = file("environment: { POSTGRES_PASSWORD: changed }");
    project.write("docker-compose.yml", &changed);
    let refused = project.run("prepare");
    refused.code(4).says(&["service `db` rejected", "down -v"]);
    refused.never_says("changed");
}

#[test]
fn a_port_that_is_not_published_is_named_with_the_remedy() {
    let Some(project) = Composed::service("db", &[PASSWORD]) else {
        return;
    };
    project.run("prepare").code(4).says(&[
        "the service `db` does not publish its port 5432",
        "`docker-compose.yml`",
        "ports: [\"127.0.0.1::5432\"]",
        "`server.compose_port`",
    ]);
}

#[test]
fn a_container_that_ends_is_told_with_its_log() {
    let Some(project) = Composed::service("db", &[PUBLISHED]) else {
        return;
    };
    project.run("prepare").code(4).says(&[
        "the container of the service `db` stopped",
        "superuser password is not specified",
    ]);
}

#[test]
fn a_service_without_a_server_is_given_up_in_time_with_its_log() {
    let lines = [
        "command: ['sh', '-c', 'echo no server here; exec sleep 1000']",
        PUBLISHED,
        "stop_grace_period: 0s",
    ];
    let Some(mut project) = Composed::service("db", &lines) else {
        return;
    };
    project.set("KAPSEL_TESTDB_SERVER_START_TIMEOUT_SECS", "1");
    project.run("prepare").code(4).says(&[
        "`db` at `postgres@127.0.0.1:",
        "was not ready within 1 s",
        "raise `server.start_timeout_secs`",
        "no server here",
    ]);
}

#[test]
fn an_engine_that_does_not_answer_or_is_elsewhere_is_named() {
    let Some(mut project) = Composed::service("db", &[PASSWORD, PUBLISHED]) else {
        return;
    };
    let dead = format!("unix://{}", project.beside("dead.sock").display());
    project.set("DOCKER_HOST", &dead);
    project
        .run("prepare")
        .code(4)
        .says(&["does not respond", "start it", "DOCKER_HOST"]);
    project.set("DOCKER_HOST", "tcp://192.0.2.1:2375");
    project.run("prepare").code(4).says(&[
        "the container engine is on another machine, `192.0.2.1`",
        "KAPSEL_TESTDB_ALLOW_REMOTE=1",
    ]);
}

#[test]
fn without_any_tool_all_that_was_tried_is_named() {
    let mut project = Project::new("app");
    project.write("compose.yaml", &one_service("db", &[]));
    project.set("KAPSEL_TESTDB_SERVER_MODE", "compose");
    let empty = project.beside("empty");
    std::fs::create_dir(&empty).expect("a folder");
    project.set("PATH", &empty.to_string_lossy());
    project.run("prepare").code(4).says(&[
        "found no compose tool",
        "`docker compose version` (not installed)",
        "`docker-compose version` (not installed)",
        "`podman compose version` (not installed)",
        "`server.compose_command`",
    ]);
    project.set("KAPSEL_TESTDB_SERVER_COMPOSE_COMMAND", "nerdctl,compose");
    let outcome = project.run("prepare");
    outcome.code(4).says(&["`nerdctl compose version` (not"]);
    outcome.never_says("podman compose");
    assert!(!Path::new(&project.state_dir()).exists());
}
