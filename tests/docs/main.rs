//! Documents that are generated from the code: the commands from clap, the keys from `defaults.toml`. A test fails if a document is out of date;
//! `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};
use kapsel_testdb_core::config::KEYS;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

fn assert_current(document: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("the first marker");
    let (_, after) = rest.split_once(END).expect("the second marker");
    let current = format!("{before}{BEGIN}\n{generated}\n{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, current).expect("written");
    } else {
        assert!(
            text == current,
            "{document} is out of date: run `UPDATE_DOCS=1 cargo test --test docs`"
        );
    }
}

#[test]
fn the_table_of_keys_is_current() {
    let mut text = String::from("| key | default | description |\n|---|---|---|\n");
    for key in KEYS.iter() {
        let default = match key.value {
            Some(_) => format!("`{}`", key.default),
            None => key.default.clone(),
        };
        let list = match (key.list, key.table) {
            (true, _) => " A list.",
            (_, true) => " A table.",
            _ => "",
        };
        let about = key.about.replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {default} | {about}{list} |", key.name);
    }
    assert_current("docs/CONFIGURATION.md", &text);
}

#[test]
fn the_reference_of_commands_is_current() {
    let mut root = kapsel_testdb_cli::command_line();
    root.build();
    let mut text = String::new();
    for command in visible(&root) {
        section(&mut text, "kapsel-testdb", command, 3);
    }
    text.push_str("### Global options\n\n");
    options(
        &mut text,
        root.get_arguments().filter(|a| a.is_global_set()),
    );
    assert_current("docs/COMMANDS.md", text.trim_end_matches('\n'));
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let shown = |c: &&Command| !c.is_hide_set() && c.get_name() != "help";
    command.get_subcommands().filter(shown)
}

fn section(text: &mut String, parent: &str, command: &Command, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string);
    let short = name.trim_start_matches("kapsel-testdb ");
    let _ = writeln!(text, "{} {short}\n", "#".repeat(level));
    let _ = writeln!(text, "{}.\n", about.unwrap_or_default());
    if visible(command).next().is_some() {
        for inner in visible(command) {
            section(text, &name, inner, level + 1);
        }
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    let _ = writeln!(text, "```text\n{usage}\n```\n");
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines = examples.lines().skip(1).map(str::trim_start);
        let lines: Vec<&str> = lines.collect();
        let _ = writeln!(text, "```sh\n{}\n```\n", lines.join("\n"));
    }
    let own = |a: &&Arg| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help";
    if command.get_arguments().any(|a| own(&a)) {
        options(text, command.get_arguments().filter(own));
    }
}

fn options<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| argument | description |\n|---|---|\n");
    for argument in arguments {
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<String> = values.iter().map(|v| format!("<{v}>")).collect();
        let takes = argument.get_action().takes_values();
        let value = if takes {
            values.join(" ")
        } else {
            String::new()
        };
        let short = argument.get_short().map(|c| format!("-{c}"));
        let long = argument.get_long().map(|l| format!("--{l}"));
        let flags: Vec<String> = short.into_iter().chain(long).collect();
        let name = format!("{} {value}", flags.join(", "));
        let mut about = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let possible: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|_| takes)
            .map(|v| format!("`{}`", v.get_name()))
            .collect();
        if !possible.is_empty() {
            let _ = write!(about, ": {}", possible.join(", "));
        }
        let defaults = argument.get_default_values();
        if let Some(default) = defaults.first().filter(|_| takes) {
            let _ = write!(about, " [default: {}]", default.to_string_lossy());
        }
        let _ = writeln!(
            text,
            "| `{}` | {} |",
            name.trim(),
            about.replace('|', "\\|")
        );
    }
    text.push('\n');
}
