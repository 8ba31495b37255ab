//! Two examples for each command, printed below its help.

use clap::Command;

/// A command line, and what it does.
pub type Example = (&'static str, &'static str);

/// Command, examples.
const EXAMPLES: &[(&str, [Example; 2])] = &[
    (
        "prepare",
        [
            (
                "kapsel-testdb prepare",
                "build the template before the tests",
            ),
            (
                "kapsel-testdb prepare --format dotenv > .env",
                "for `sqlx::query!` and psql",
            ),
        ],
    ),
    (
        "run",
        [
            (
                "kapsel-testdb run -- cargo test",
                "a run for another test runner",
            ),
            (
                "kapsel-testdb run -- psql -c '\\dt'",
                "psql on the run's shared clone",
            ),
        ],
    ),
    (
        "template list",
        [
            (
                "kapsel-testdb template list",
                "which template is current, and how large all are",
            ),
            (
                "kapsel-testdb template list --json | jq '.templates | length'",
                "for scripts",
            ),
        ],
    ),
    (
        "template why",
        [
            (
                "kapsel-testdb template why",
                "what the next run would build, and why",
            ),
            (
                "kapsel-testdb template why -v",
                "also everything that the template depends on",
            ),
        ],
    ),
    (
        "template build",
        [
            (
                "kapsel-testdb template build",
                "build it ahead of the next run",
            ),
            (
                "kapsel-testdb template build -v",
                "with the time of each migration",
            ),
        ],
    ),
    (
        "template drop",
        [
            (
                "kapsel-testdb template drop app_template_0123456789abc",
                "one template and its spares",
            ),
            (
                "kapsel-testdb template drop --all",
                "build everything afresh in the next run",
            ),
        ],
    ),
    (
        "template export",
        [
            (
                "kapsel-testdb template export --output .kapsel-templates",
                "into a directory that CI caches",
            ),
            (
                "kapsel-testdb template export",
                "into the current directory",
            ),
        ],
    ),
    (
        "template import",
        [
            (
                "kapsel-testdb template import .kapsel-templates",
                "the best archive of a restored cache",
            ),
            (
                "kapsel-testdb template import shop.kapsel-template",
                "one archive",
            ),
        ],
    ),
    (
        "purge",
        [
            ("kapsel-testdb purge", "list what it would drop"),
            (
                "kapsel-testdb purge --yes --all-projects",
                "before `pg_upgrade`",
            ),
        ],
    ),
    (
        "wait",
        [
            ("kapsel-testdb wait", "the last step of a CI job"),
            ("kapsel-testdb wait --timeout 300", "if the server is slow"),
        ],
    ),
    (
        "acquire",
        [
            (
                "eval \"$(kapsel-testdb acquire)\"",
                "in a shell script: psql uses the database",
            ),
            (
                "kapsel-testdb acquire --format json",
                "for a test in another language",
            ),
        ],
    ),
    (
        "release",
        [
            (
                "kapsel-testdb release \"$PGDATABASE\"",
                "the test has passed",
            ),
            (
                "kapsel-testdb release --failed \"$PGDATABASE\"",
                "keep its database",
            ),
        ],
    ),
    (
        "sweep",
        [
            ("kapsel-testdb sweep --dry-run", "what would be removed"),
            (
                "kapsel-testdb sweep --spares",
                "also the clones for the next run",
            ),
        ],
    ),
    (
        "status",
        [
            ("kapsel-testdb status -v", "with names and details"),
            ("kapsel-testdb status --watch", "until Ctrl-C"),
        ],
    ),
    (
        "kept list",
        [
            ("kapsel-testdb kept list", "what failed, and why"),
            (
                "kapsel-testdb kept list -v",
                "with databases and whole messages",
            ),
        ],
    ),
    (
        "kept psql",
        [
            (
                "kapsel-testdb kept psql charges_once",
                "a shell on its database",
            ),
            (
                "kapsel-testdb kept psql charges_once -c '\\dt'",
                "one command of psql",
            ),
        ],
    ),
    (
        "kept dump",
        [
            (
                "kapsel-testdb kept dump charges_once -o charges.sql",
                "into a file",
            ),
            (
                "kapsel-testdb kept dump charges_once --data-only",
                "without the schema",
            ),
        ],
    ),
    (
        "kept diff",
        [
            ("kapsel-testdb kept diff charges_once", "what the test did"),
            (
                "kapsel-testdb kept diff charges_once --attempt 1",
                "what its first attempt did",
            ),
        ],
    ),
    (
        "kept drop",
        [
            ("kapsel-testdb kept drop charges_once", "of one test"),
            ("kapsel-testdb kept drop --all", "of this project"),
        ],
    ),
    (
        "doctor",
        [
            ("kapsel-testdb doctor", "what is wrong, and the fix"),
            (
                "kapsel-testdb doctor --measure",
                "how long a clone takes, and why",
            ),
        ],
    ),
    (
        "server start",
        [
            ("kapsel-testdb server start", "before the first test"),
            ("kapsel-testdb server start -v", "with details"),
        ],
    ),
    (
        "server stop",
        [
            ("kapsel-testdb server stop", "its data stay"),
            (
                "kapsel-testdb server stop --all",
                "also those with other settings",
            ),
        ],
    ),
    (
        "server restart",
        [
            (
                "kapsel-testdb server restart",
                "after an upgrade of PostgreSQL",
            ),
            (
                "kapsel-testdb server restart --force",
                "although runs are alive",
            ),
        ],
    ),
    (
        "server status",
        [
            ("kapsel-testdb server status", "version, place, log file"),
            ("kapsel-testdb server status --json", "for a script"),
        ],
    ),
    (
        "server logs",
        [
            ("kapsel-testdb server logs", "the last 50 lines"),
            ("kapsel-testdb server logs -n 500", "more of them"),
        ],
    ),
    (
        "server psql",
        [
            ("kapsel-testdb server psql", "a shell on the server"),
            ("kapsel-testdb server psql -c '\\l'", "one command of psql"),
        ],
    ),
    (
        "config",
        [
            ("kapsel-testdb config", "every key, and where it is set"),
            ("kapsel-testdb config --json", "for a script"),
        ],
    ),
    (
        "init",
        [
            ("kapsel-testdb init", "in the workspace root"),
            (
                "kapsel-testdb init --filter 'package(shop)'",
                "if only some tests need a database",
            ),
        ],
    ),
    (
        "completions",
        [
            (
                "source <(kapsel-testdb completions bash)",
                "in ~/.bashrc; zsh likewise",
            ),
            ("kapsel-testdb completions fish | source", "in config.fish"),
        ],
    ),
];

/// Adds the examples of each command to its help.
pub fn add(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let mut names = path.split(' ');
        let name = names.next().unwrap_or_default();
        let help = help(examples);
        command.mut_subcommand(name, |command| match names.next() {
            Some(inner) => command.mut_subcommand(inner, |command| command.after_help(help)),
            None => command.after_help(help),
        })
    })
}

/// Fits 80 columns: what an example does is above it.
fn help(examples: &[Example]) -> String {
    let lines = examples
        .iter()
        .map(|(line, what)| format!("  # {what}\n  {line}"));
    let lines: Vec<String> = lines.collect();
    format!("Examples:\n{}", lines.join("\n"))
}
