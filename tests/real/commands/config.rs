//! Configuration: what is wrong is named with its place and exit code 3; what is right says where it came from.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Project, Server};

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let cases: &[(&str, &[&str])] = &[
        (
            "namespace = \"app\"\n[pool\nmax = 1\n",
            &[
                ".config/kapsel-testdb.toml",
                "not valid TOML",
                "line 2",
                "column",
            ],
        ),
        (
            "[pool]\nmax_connections = \"many\"\n",
            &[
                "`pool.max_connections = \"many\"`",
                ".config/kapsel-testdb.toml",
                "whole number",
            ],
        ),
        (
            "[pool]\nmax_connections = 0\n",
            &["`pool.max_connections = 0`", "from 1 to 10000"],
        ),
        (
            "[keep]\nfailed = \"yes\"\n",
            &[
                "`keep.failed = \"yes\"`",
                ".config/kapsel-testdb.toml",
                "true or false",
            ],
        ),
        (
            "[template]\nseeds = \"seeds.sql\"\n",
            &["`template.seeds = \"seeds.sql\"`", "list of strings"],
        ),
        (
            "[server]\nmode = \"remote\"\n",
            &[
                "`server.mode = \"remote\"`",
                "\"auto\", \"adopt\", \"local\" or \"compose\"",
            ],
        ),
        (
            "[server]\nversion = \"17.2\"\n",
            &["`server.version = \"17.2\"`", "a major version such as"],
        ),
        (
            "[server]\nmode = \"adopt\"\n",
            &["DATABASE_URL", "`server.url`"],
        ),
        (
            "namespace = \"My-App\"\n",
            &["My-App", "1 to 16 of a-z and 0-9"],
        ),
        (
            "namespace = \"\"\n",
            &["namespace", "1 to 16 of a-z and 0-9"],
        ),
        (
            "[server]\nurl = \"mysql://me:hunter2@h/d\"\n",
            &["`mysql:`", "`postgres:`", ".config/kapsel-testdb.toml"],
        ),
    ];
    for (text, says) in cases {
        let project = Project::new("app");
        project.config(text);
        for command in ["config", "prepare", "sweep", "status"] {
            project
                .run(command)
                .code(3)
                .says(says)
                .never_says("hunter2");
        }
        assert!(project.run_dirs().is_empty(), "{text}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let cases = [
        (
            "KAPSEL_TESTDB_POOL_MAX_CONNECTIONS",
            "abc",
            "`pool.max_connections = \"abc\"`",
        ),
        (
            "KAPSEL_TESTDB_SERVER_ALLOW_REMOTE",
            "maybe",
            "`server.allow_remote = \"maybe\"`",
        ),
        (
            "KAPSEL_TESTDB_ALLOW_REMOTE",
            "2",
            "`server.allow_remote = 2`",
        ),
        ("DATABASE_URL", "mysql://me:hunter2@h/d", "`mysql:`"),
        (
            "DATABASE_URL",
            "postgres://me:hunter2@h:99999/d",
            "invalid port",
        ),
        (
            "DATABASE_URL",
            "postgres://me:hunter2@h/d?sslmode=maybe",
            "`sslmode=maybe`",
        ),
        (
            "KAPSEL_TESTDB_SERVER_URL",
            "me:hunter2@h/d",
            "expected `postgres",
        ),
        (
            "DATABASE_URL",
            "postgres://me:hunter2@h/d?schema=app",
            "the parameter `schema`",
        ),
        (
            "KAPSEL_TESTDB_SERVER_ADMIN_URL",
            "postgres://me:hunter2@h/d?port=five",
            "`port`",
        ),
        (
            "DATABASE_URL",
            "postgres://me:hunter2@one,two/d",
            "several hosts",
        ),
    ];
    for (name, value, shown) in cases {
        let project = Project::new("app");
        let outcome = project.tool("prepare").env(name, value).run();
        outcome.code(3).says(&[name, shown]).never_says("hunter2");
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_variable_that_completes_the_url_is_checked_as_the_url_is() {
    for (name, value) in [
        ("PGPORT", "five"),
        ("PGPORT", "5432,5433"),
        ("PGSSLMODE", "verify_full"),
    ] {
        let project = Project::new("app");
        let tool = project.tool("prepare").env(name, value);
        let outcome = tool.env("DATABASE_URL", "postgres://me@h/d").run();
        outcome.code(3).says(&[name, "DATABASE_URL", "expected"]);
        // The URL's own values make it irrelevant.
        let url = "postgres://me@h:5432/d?sslmode=disable";
        let tool = project.tool("config").env(name, value);
        tool.env("DATABASE_URL", url).run().code(0);
    }
}

#[test]
fn a_service_file_is_reported_as_ignored() {
    let project = Project::new("app");
    let tool = project.tool("config").env("PGSERVICE", "shop");
    let outcome = tool.env("DATABASE_URL", "postgres://me@h/d").run();
    outcome.code(0).says(&["ignored PGSERVICE", "into the URL"]);
    // A managed server is not found through libpq's variables.
    let tool = project.tool("config").env("PGSERVICE", "shop");
    tool.run().code(0).never_says("PGSERVICE");
}

#[test]
fn a_relative_path_in_a_variable_is_refused() {
    let server = Server::start();
    let before = server.databases();
    for name in [
        "KAPSEL_TESTDB_RUNTIME_DIR",
        "KAPSEL_TESTDB_RUN_DIR",
        "XDG_RUNTIME_DIR",
        "XDG_CACHE_HOME",
        "TMPDIR",
        "PGPASSFILE",
    ] {
        let project = Project::on(&server);
        for command in ["prepare", "run -- true", "sweep"] {
            let outcome = project.tool(command).env(name, "some/where").run();
            outcome
                .code(3)
                .says(&[name, "`some/where`", "make it absolute"]);
        }
        assert!(!project.root().join("some").exists(), "{name}");
    }
    let project = Project::on(&server);
    let acquire = project.tool("acquire").env("KAPSEL_TESTDB_RUN_DIR", "rt");
    acquire.run().says(&["KAPSEL_TESTDB_RUN_DIR", "absolute"]);
    assert_eq!(server.databases(), before);
}

/// Paths of the configuration start at the root, wherever the command and the server run.
#[test]
fn a_relative_path_of_the_configuration_starts_at_the_root() {
    let mut project = Project::new("app");
    project.migration("0001_users", "CREATE TABLE users (id int PRIMARY KEY);");
    project.set("KAPSEL_TESTDB_SERVER_STATE_DIR", "../s");
    project.run("run -- true").code(0);
    assert!(project.managed_dir().is_some());
}

#[test]
fn a_file_that_is_named_must_exist() {
    let project = Project::new("app");
    let tool = project
        .tool("config")
        .env("KAPSEL_TESTDB_CONFIG", "/nowhere/c.toml");
    tool.run().code(3).says(&["`/nowhere/c.toml`"]);
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_one() {
    let project = Project::new("app");
    project.config("[pool]\nmax_conections = 3\n[nonsense]\nkey = 1\n");
    let outcome = project.run("config");
    outcome.code(0).says(&[
        "warning: ignored the unknown key `pool.max_conections`",
        ".config/kapsel-testdb.toml",
        "did you mean `pool.max_connections`?",
        "`nonsense.key`",
    ]);
    assert!(!project.run("config -q").stderr.contains("warning"));
}

#[test]
fn each_value_comes_with_its_origin() {
    let mut project = Project::new("app");
    project.config("[pool]\nmax_connections = 7\nacquire_timeout_secs = 8\n[keep]\nmax = 3\n");
    project.set("KAPSEL_TESTDB_POOL_ACQUIRE_TIMEOUT_SECS", "9");
    let outcome = project.run("config --namespace other");
    outcome.code(0);
    let line = |key: &str| -> Vec<String> {
        let line = outcome.stdout.lines().find(|l| l.starts_with(key));
        let words = line.unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect()
    };
    assert_eq!(line("keep.failed "), ["keep.failed", "true", "default"]);
    let file = ".config/kapsel-testdb.toml";
    assert_eq!(line("pool.max_c"), ["pool.max_connections", "7", file]);
    assert_eq!(line("keep.max "), ["keep.max", "3", file]);
    assert_eq!(line("namespace"), ["namespace", "\"other\"", "flag"]);
    let variable = "KAPSEL_TESTDB_POOL_ACQUIRE_TIMEOUT_SECS";
    assert_eq!(line("pool.a"), ["pool.acquire_timeout_secs", "9", variable]);
}

#[test]
fn json_tells_the_same() {
    let mut project = Project::new("app");
    project.set("DATABASE_URL", "postgres://me:hunter2@localhost/db");
    let outcome = project.run("config --json --allow-remote");
    outcome.code(0).never_says("hunter2");
    let json = outcome.json();
    assert_eq!(json["schema"], 2);
    assert_eq!(json["namespace"], "app");
    let keys = &json["keys"];
    assert_eq!(
        keys["server.url"]["value"],
        "postgres://me@localhost:5432/db"
    );
    assert_eq!(keys["server.url"]["origin"], "environment");
    assert_eq!(keys["server.url"]["source"], "DATABASE_URL");
    assert_eq!(keys["server.allow_remote"]["value"], true);
    assert_eq!(keys["server.allow_remote"]["origin"], "flag");
    assert_eq!(keys["template.keep"]["value"], 8);
    assert_eq!(keys["template.keep"]["origin"], "default");
    assert_eq!(keys["template.seeds"]["value"], serde_json::json!([]));
    assert!(keys["server.bin_dir"]["value"].is_null());
    assert_eq!(
        keys["server.bin_dir"]["default"],
        "PATH and the usual places"
    );
    assert_eq!(
        keys["template.keep"]["variable"],
        "KAPSEL_TESTDB_TEMPLATE_KEEP"
    );
}

#[test]
fn the_url_of_the_env_file_is_used() {
    let server = Server::start();
    let project = Project::on(&server);
    project.write(
        ".env",
        &format!("OTHER=1\nDATABASE_URL=\"{}\"\n", server.url()),
    );
    let prepare = project.tool("prepare").env_remove("DATABASE_URL").run();
    prepare.code(0).says(&["adopted PostgreSQL"]);
    assert_eq!(server.databases_of("template").len(), 1);
    let config = project
        .tool("config --json")
        .env_remove("DATABASE_URL")
        .run();
    let origin = config.json()["keys"]["server.url"]["source"].clone();
    assert!(origin.as_str().is_some_and(|o| o.ends_with("/app/.env")));
    // The environment is above the file.
    let config = project.run("config --json");
    assert_eq!(
        config.json()["keys"]["server.url"]["source"],
        "DATABASE_URL"
    );
}

#[test]
fn the_env_file_of_a_member_names_the_server_unless_another_one_differs() {
    let server = Server::start();
    let mut project = Project::on(&server);
    project.set("DATABASE_URL", "");
    project.write("Cargo.toml", "[workspace]\nmembers = ['crates/*']\n");
    let url = server.url();
    project.write("crates/api/.env", &format!("DATABASE_URL={url}\n"));
    project.run("prepare").code(0).says(&["adopted PostgreSQL"]);
    project.write("crates/worker/.env", &format!("DATABASE_URL={url}\n"));
    let outcome = project.run("config --json");
    let origin = outcome.json()["keys"]["server.url"]["source"].clone();
    assert!(
        origin
            .as_str()
            .is_some_and(|o| o.ends_with("/app/crates/api/.env")),
        "{outcome:#?}"
    );
    project.write("crates/worker/.env", "DATABASE_URL=postgres://me@h/d\n");
    let outcome = project.run("config");
    outcome.code(0).says(&[
        "warning: ignored DATABASE_URL in `crates/api/.env`, `crates/worker/.env`: the files name different servers; set DATABASE_URL",
    ]);
    // What the workspace itself names counts first.
    project.config("[server]\nurl = 'postgres://me@h/d'\n");
    let outcome = project.run("config");
    outcome.code(0).never_says("ignored");
}

#[test]
fn the_root_is_found_from_a_folder_below_it() {
    let project = Project::new("app");
    project.config("[keep]\nmax = 3\n");
    project.write("member/src/lib.rs", "");
    let root = project.root().to_str().expect("UTF-8");
    let member = project.root().join("member/src");
    let mut command = project.tool("config --json").into_command();
    let output = command.current_dir(member).output().expect("it runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["root"], root);
    let from_elsewhere = project.run(&format!("config --json --root {root}"));
    assert_eq!(from_elsewhere.json()["keys"]["keep.max"]["value"], 3);
}

#[test]
fn a_named_file_is_looked_for_from_the_root() {
    let project = Project::new("app");
    project.write("Cargo.lock", "");
    project.write("ci/kapsel.toml", "[keep]\nmax = 3\n");
    let tool = project
        .tool("config --json")
        .env("KAPSEL_TESTDB_CONFIG", "ci/kapsel.toml");
    let mut command = tool.into_command();
    let below = project.root().join("ci");
    let output = command.current_dir(below).output().expect("it runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["keys"]["keep.max"]["value"], 3);
}

#[test]
fn a_place_for_run_directories_must_be_private() {
    let server = Server::start();
    let mut project = Project::on(&server);
    let before = server.databases();
    let open = project.beside("open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("its mode");
    let link = project.beside("link");
    std::os::unix::fs::symlink(project.beside("home"), &link).expect("a link");
    let missing = project.beside("no/such/parent");
    for (path, why) in [
        (&open, "other users can access it"),
        (&link, "symbolic link"),
        (&missing, "No such file"),
    ] {
        let path = path.to_string_lossy();
        project.set("KAPSEL_TESTDB_RUNTIME_DIR", &path);
        for command in ["prepare", "sweep"] {
            let outcome = project.run(command);
            outcome.code(6).says(&[&format!("`{path}`"), why]);
        }
    }
    assert_eq!(server.databases(), before);
}

#[test]
fn no_directory_above_it_may_be_writable_for_everybody() {
    let server = Server::start();
    let project = Project::on(&server);
    let before = server.databases();
    let open = project.beside("open");
    fs::create_dir(&open).expect("a directory");
    let mode = |mode| fs::set_permissions(&open, fs::Permissions::from_mode(mode));
    mode(0o777).expect("its mode");
    let below = |name: &str| open.join(name).display().to_string();
    let above = format!("`{}` above it is writable", open.display());
    for command in ["prepare", "sweep"] {
        let tool = project.tool(command);
        let outcome = tool.env("KAPSEL_TESTDB_RUNTIME_DIR", below("rt")).run();
        outcome.code(6).says(&[&above, "KAPSEL_TESTDB_RUNTIME_DIR"]);
    }
    let managed = project.tool("prepare").env_remove("DATABASE_URL");
    let managed = managed.env("KAPSEL_TESTDB_SERVER_STATE_DIR", below("s"));
    managed.run().code(4).says(&[&above, "`server.state_dir`"]);
    assert_eq!(fs::read_dir(&open).expect("entries").count(), 0);
    assert_eq!(server.databases(), before);
    // A sticky directory lets only owners rename their entries.
    mode(0o1777).expect("its mode");
    let tool = project.tool("prepare");
    let tool = tool.env("KAPSEL_TESTDB_RUNTIME_DIR", below("rt"));
    tool.run().code(0);
}

#[test]
fn usage_errors_have_a_code_of_their_own() {
    let project = Project::new("app");
    for words in ["", "prepar", "prepare --format yaml", "sweep --force"] {
        project.run(words).code(2);
    }
    project.run("--help").code(0);
    project.run("--version").code(0);
}
