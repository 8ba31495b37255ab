//! What commands print on real servers, with the colors that a terminal gets, and without.

use anstream::adapter::strip_str;

use crate::support::{DeadRun, Project, Server};

/// A project whose screens are the same in every run.
struct Screens {
    project: Project,
    /// What differs from run to run, and what stands for it.
    names: Vec<(String, String)>,
}

impl Screens {
    fn of(project: Project, server: &Server) -> Self {
        let path = |path: &std::path::Path| path.display().to_string();
        let names = vec![
            (path(project.root()), "ROOT".to_owned()),
            (path(server.folder()), "SOCKETS".to_owned()),
        ];
        Self { project, names }
    }

    fn name(&mut self, what: &str, name: &str) {
        self.names.push((what.to_owned(), name.to_owned()));
    }

    /// What a command prints on a terminal.
    #[track_caller]
    fn colored(&self, words: &str, code: i32) -> String {
        let tool = self.project.tool(words).env("CLICOLOR_FORCE", "1");
        let outcome = tool.run();
        outcome.code(code);
        let mut text = format!("{}{}\n", outcome.stdout, outcome.talk().join("\n"));
        for (what, name) in &self.names {
            text = text.replace(what, name);
        }
        let lines = text.lines().map(|line| settled(line.trim_end()) + "\n");
        lines.collect::<String>().replace('\u{1b}', "ESC")
    }
}

/// The line without the time that something took, and without the version of the server.
fn settled(line: &str) -> String {
    let words = line.split(' ').collect::<Vec<_>>();
    let mut settled = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_time = words
            .get(at + 1)
            .is_some_and(|unit| *unit == "ms" || *unit == "s");
        let is_version = at > 0 && words[at - 1] == "PostgreSQL";
        settled.push(match *word {
            time if is_time && time.parse::<u64>().is_ok() => "N",
            _ if is_version => "VERSION",
            other if other.starts_with("app_template_") => "TEMPLATE",
            other => other,
        });
    }
    settled.join(" ")
}

/// The same without colors: only the codes are gone.
fn plain(colored: &str) -> String {
    strip_str(&colored.replace("ESC", "\u{1b}")).to_string()
}

#[test]
fn prepare_and_templates() {
    let server = Server::start();
    let project = Project::on(&server);
    let mut screens = Screens::of(project, &server);
    let first = screens.colored("prepare", 0);
    let template = server.databases_of("template").remove(0);
    screens.name(&template, "FIRST");
    let again = screens.colored("prepare", 0);
    let sql = "CREATE TABLE tags (id no_such_type);";
    screens.project.migration("0003_tags", sql);
    let failing = screens.colored("prepare", 5);
    insta::assert_snapshot!(
        "prepare_coloured",
        first.replace(&template, "FIRST") + &again + &failing
    );
    insta::assert_snapshot!("prepare_failing", plain(&failing));
    screens
        .project
        .migration("0003_tags", "CREATE TABLE tags (id int);");
    let why = screens.colored("template why", 0);
    let dropped = screens.colored("template drop --all", 0);
    insta::assert_snapshot!("templates_coloured", why + &dropped);
    screens.project.config("[template]\nseed = 1\n");
    insta::assert_snapshot!("unknown_key_coloured", screens.colored("prepare", 0));
    insta::assert_snapshot!("usage_coloured", screens.colored("prepare --no-such", 2));
}

#[test]
fn wait_and_sweep() {
    let server = Server::start();
    let project = Project::on(&server);
    let mut screens = Screens::of(project, &server);
    let dead = DeadRun::leave(&screens.project, "dead");
    let lock = dead.join();
    screens.name(&dead.clone_name(1), "CLONE");
    screens.name(&dead.clone_name(1).replace("_clone_", "_kept_"), "KEPT");
    screens.name(&dead.clone_name(2), "FOREIGN");
    screens.name(&dead.run, "RUN");
    let waits = screens.colored("wait --timeout 1", 8);
    insta::assert_snapshot!("wait_coloured", waits);
    insta::assert_snapshot!("wait", plain(&waits));
    drop(lock);
    server.create(&[dead.clone_name(1)]);
    server.execute(&format!("CREATE DATABASE {}", dead.clone_name(2)));
    let dry = screens.colored("sweep --no-wait --dry-run", 8);
    let swept = screens.colored("sweep --no-wait", 8);
    server.execute(&format!("DROP DATABASE {}", dead.clone_name(2)));
    let nothing = screens.colored("sweep --no-wait", 0);
    insta::assert_snapshot!("sweep_coloured", dry + &swept + &nothing);
}
