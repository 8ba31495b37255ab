//! `run`, `wait`, `acquire` and `release`: runs for everything that is not nextest.

use kapsel_testdb_core::platform::{self, Signal};

use crate::support::{Outcome, PATIENCE, Project, Server, poll_until};

#[track_caller]
fn nothing_is_left(project: &Project, server: &Server) {
    let mut names = server.transient_databases();
    names.retain(|name| name.starts_with("app_"));
    assert_eq!(names, [""; 0]);
    assert!(project.run_dirs().is_empty(), "{:?}", project.run_dirs());
}

/// The project and a `psql` of the server's own version on its PATH.
fn project(server: &Server) -> Project {
    let mut project = Project::on(server);
    let binaries = crate::support::binaries();
    let path = std::env::var("PATH").unwrap_or_default();
    project.set("PATH", &format!("{}:{path}", binaries.dir.display()));
    project.set("T", crate::support::BINARY);
    project
}

#[test]
fn run_leads_a_command_to_a_database_and_hands_on_its_exit_code() {
    let server = Server::start();
    let project = project(&server);
    for (flags, keeper) in [("", "true"), ("--no-keeper", "false")] {
        let script = r#"psql "$DATABASE_URL" -Atc "SELECT count(*), current_database() FROM users"; psql -Atc "SELECT 1"; exit 7"#;
        let outcome = project
            .tool(&format!("run {flags} --"))
            .args(["sh", "-c", script])
            .run();
        outcome.code(7);
        assert!(
            outcome.stdout.starts_with("0|app_shared_"),
            "keeper {keeper}: {outcome:?}"
        );
        assert!(
            outcome.stdout.ends_with("\n1\n"),
            "keeper {keeper}: {outcome:?}"
        );
        nothing_is_left(&project, &server);
    }
    let outcome = project.tool("run").args(["--", "/no/such/program"]).run();
    outcome.code(127).says(&["/no/such/program"]);
    nothing_is_left(&project, &server);
}

#[test]
fn run_passes_signals_on_and_reports_them_as_a_shell_does() {
    let server = Server::start();
    let project = project(&server);
    let started = project.beside("started");
    let script = r#"trap 'echo told; exit 3' TERM; : > "$0"; while :; do sleep 0.01; done"#;
    let child = project
        .tool("run --")
        .args(["sh", "-c", script])
        .args([&started])
        .spawn();
    poll_until("the command runs", PATIENCE, || match started.exists() {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    });
    platform::signal(child.id(), Signal::TERM).expect("told");
    let outcome = Outcome::of(child);
    outcome.code(3);
    assert_eq!(outcome.stdout, "told\n");
    let killed = project
        .tool("run --")
        .args(["sh", "-c", "kill -9 $$"])
        .run();
    killed.code(128 + 9);
    nothing_is_left(&project, &server);
}

#[test]
fn run_can_be_interrupted_while_the_run_ends() {
    let server = Server::start();
    let project = project(&server);
    let stopped = project.beside("stopped");
    // A keeper that does not get on.
    let script = r#"until pid=$(cat "$KAPSEL_TESTDB_RUN_DIR/keeper.pid" 2>/dev/null); do sleep 0.01; done
        kill -STOP "$pid"; echo "$pid $$" > "$0.new"; mv "$0.new" "$0""#;
    let tool = project.tool("run --").args(["sh", "-c", script]);
    let mut child = tool.args([&stopped]).spawn();
    let [keeper, command]: [u32; 2] = poll_until("the keeper is stopped", PATIENCE, || {
        let text = std::fs::read_to_string(&stopped).map_err(|e| e.to_string())?;
        let pids: Vec<u32> = text.split_whitespace().flat_map(str::parse).collect();
        pids.try_into().map_err(|_| text)
    });
    poll_until(
        "the command is over",
        PATIENCE,
        || match platform::process_exists(command) {
            false => Ok(()),
            true => Err("not yet".to_owned()),
        },
    );
    // One that comes too early was for the command.
    poll_until("it has ended", PATIENCE, || {
        match child.try_wait().expect("a child") {
            Some(_) => Ok(()),
            None => {
                platform::signal(child.id(), Signal::TERM).expect("told");
                Err("it waits".to_owned())
            }
        }
    });
    let outcome = Outcome::of(child);
    outcome
        .code(0)
        .says(&["interrupted", "the keeper ends the run"]);
    platform::signal(keeper, Signal::CONT).expect("told");
    project.run("wait").code(0);
    nothing_is_left(&project, &server);
}

#[test]
fn a_killed_run_leaves_nothing_that_the_keeper_or_a_sweep_does_not_remove() {
    let server = Server::start();
    let project = project(&server);
    for flags in ["", "--no-keeper"] {
        let started = project.beside(&format!("started{flags}"));
        let script = r#"echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60"#;
        let tool = project.tool(&format!("run {flags} --"));
        let mut child = tool.args(["sh", "-c", script]).args([&started]).spawn();
        let sleeper: u32 = poll_until("the command runs", PATIENCE, || {
            let text = std::fs::read_to_string(&started).map_err(|e| e.to_string())?;
            text.trim().parse().map_err(|_| text)
        });
        child.kill().expect("a child to kill");
        child.wait().expect("a killed child");
        platform::signal(sleeper, Signal::KILL).expect("a command to kill");
        project.run("wait").code(0);
        project.run("sweep --no-wait").code(0);
        nothing_is_left(&project, &server);
    }
}

#[test]
fn scripts_lease_and_release_databases_and_keep_failed_ones() {
    let server = Server::start();
    let project = project(&server);
    let script = r#"set -e
        eval "$("$T" acquire)"; one=$PGDATABASE; psql -qc "INSERT INTO users VALUES (1)"
        eval "$("$T" acquire)"; two=$PGDATABASE; psql -qc "INSERT INTO users VALUES (2)"
        test "$one" != "$two"
        "$T" release "$one"
        "$T" release --failed "$two"
        code=0; "$T" release "$one" || code=$?; test "$code" = 6
        eval "$("$T" acquire)"; psql -Atc "SELECT count(*) FROM users"
        echo "$two""#;
    for flags in ["", "--no-keeper"] {
        let tool = project.tool(&format!("run {flags} --"));
        let outcome = tool.args(["sh", "-c", script]).run();
        outcome.code(0).says(&["is not leased in this run"]);
        let (count, kept) = outcome.stdout.trim().split_once('\n').expect("two lines");
        assert_eq!(count, "0");
        let kept = kept.replace("_clone_", "_kept_");
        assert_eq!(server.column_in(&kept, "SELECT id::text FROM users"), ["2"]);
        // The last lease was never released: it ended with the script that had called `acquire`.
        project.run("wait").code(0);
        project.run("sweep --no-wait").code(0);
        server.execute(&format!("DROP DATABASE \"{kept}\""));
        nothing_is_left(&project, &server);
    }
    project
        .run("acquire")
        .code(6)
        .says(&["KAPSEL_TESTDB_RUN_DIR", "run -- COMMAND"]);
}

/// The process that a lease lives with.
#[cfg(target_os = "linux")]
fn owner_of(database: &str) -> String {
    let holder = |process: std::fs::DirEntry| {
        let words = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let words: Vec<&str> = words.split('\0').collect();
        let watched = words.iter().position(|word| *word == "--watch")? + 1;
        let owner = words.get(watched)?.split(':').next()?;
        words.contains(&database).then(|| owner.to_owned())
    };
    poll_until("a process holds the lease", PATIENCE, || {
        let processes = std::fs::read_dir("/proc").expect("the processes");
        let found = processes.flatten().find_map(holder);
        found.ok_or_else(|| format!("no holder of {database}"))
    })
}

#[test]
#[cfg(target_os = "linux")]
fn a_lease_lives_as_long_as_the_shell_that_asked_for_it() {
    let server = Server::start();
    let project = project(&server);
    // `$(exec …)` is a process whose parent is the shell, or the subshell in parentheses.
    let script = r#"tell() { echo "$PGDATABASE $(exec sh -c 'echo $PPID')" >> "$0.new"; }
        eval "$("$T" acquire)"; tell
        eval "$("$T" acquire | tee /dev/null)"; tell
        eval "$("$T" acquire | cat | cat)"; tell
        eval "$(cd / && "$T" acquire; true)"; tell
        variables=$("$T" acquire | cat); eval "$variables"; tell
        ( eval "$("$T" acquire | tee /dev/null)"; tell; mv "$0.new" "$0"; read -r _ ); true"#;
    for shell in ["sh", "bash"] {
        let told = project.beside(shell);
        let tool = project.tool("run --").args([shell, "-c", script]);
        let mut command = tool.args([&told]).into_command();
        command.stdin(std::process::Stdio::piped());
        let mut child = command.spawn().expect("a run");
        let text = poll_until("the script has its databases", PATIENCE, || {
            std::fs::read_to_string(&told).map_err(|e| e.to_string())
        });
        assert_eq!(text.lines().count(), 6, "{text}");
        for line in text.lines() {
            let (database, owner) = line.split_once(' ').expect("two words");
            assert_eq!(owner_of(database), owner, "{shell}: {text}");
        }
        drop(child.stdin.take());
        assert!(child.wait().expect("a run").success(), "{shell}");
    }
    nothing_is_left(&project, &server);
}

#[test]
fn a_lease_that_begins_while_its_run_ends_is_not_kept() {
    let server = Server::start();
    let project = project(&server);
    for _ in 0..10 {
        let tool = project.tool("run --");
        let script = r#""$T" acquire > /dev/null; true"#;
        tool.args(["sh", "-c", script]).run().code(0);
    }
    nothing_is_left(&project, &server);
}

/// A watcher or a shell may run for hours.
#[test]
fn run_reports_migrations_and_seeds_that_change_while_its_command_runs() {
    let server = Server::start();
    let project = project(&server);
    project.config("[template]\nseeds = [\"seed.sql\"]\n");
    project.write("seed.sql", "INSERT INTO users VALUES (1);");
    let (started, printed) = (project.beside("started"), project.beside("printed"));
    let script = r#": > "$0"
        for text in "migration 3 tags is new" "seed seed.sql was edited" "match the run's template again"; do
            : > "$0-$(printf %s "$text" | tr -d ' .')"
            for n in $(seq 1800); do grep -q "$text" "$1" && break; sleep 0.1; done
            grep -q "$text" "$1" || exit 9
        done"#;
    let mut command = project
        .tool("run --")
        .args(["sh", "-c", script])
        .args([&started, &printed])
        .into_command();
    command.stderr(std::fs::File::create(&printed).expect("a file"));
    let mut child = command.spawn().expect("a run");
    let wait = |suffix: &str| {
        let path = project.beside(&format!("started-{suffix}"));
        poll_until("the command has come so far", PATIENCE, || {
            match path.exists() {
                true => Ok(()),
                false => Err(std::fs::read_to_string(&printed).unwrap_or_default()),
            }
        });
    };
    wait("migration3tagsisnew");
    project.migration("0003_tags", "CREATE TABLE tags (id int);");
    wait("seedseedsqlwasedited");
    std::fs::remove_file(project.root().join("migrations/0003_tags.sql")).expect("a file");
    project.write("seed.sql", "INSERT INTO users VALUES (2);");
    wait("matchtherun'stemplateagain");
    project.write("seed.sql", "INSERT INTO users VALUES (1);");
    let status = child.wait().expect("a run");
    let printed = std::fs::read_to_string(printed).expect("what it printed");
    assert!(status.success(), "{printed}");
    assert!(printed.contains("run the command again"), "{printed}");
    nothing_is_left(&project, &server);
}
