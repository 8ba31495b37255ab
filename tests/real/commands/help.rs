//! `--help` of the command and of every subcommand, as a person reads it.

use anstream::adapter::strip_str;
use clap::Command;

/// Columns of the terminal.
const WIDTH: usize = 80;

/// The help of a command and of all commands below it, by name.
fn help_texts(command: &mut Command, name: &str, texts: &mut Vec<(String, String)>) {
    let help = command.render_long_help();
    let plain = help.to_string();
    assert_eq!(
        strip_str(&help.ansi().to_string()).to_string(),
        plain,
        "{name}"
    );
    texts.push((name.to_owned(), plain));
    for inner in command.get_subcommands_mut() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            let name = format!("{name}-{}", inner.get_name());
            help_texts(inner, &name, texts);
        }
    }
}

#[test]
fn help_is_as_reviewed() {
    let mut command = kapsel_testdb_cli::command_line().term_width(WIDTH);
    command.build();
    let mut texts = Vec::new();
    help_texts(&mut command, "kapsel-testdb", &mut texts);
    insta::with_settings!({ snapshot_path => "snapshots/help", prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, text) in texts {
            // The examples are not wrapped, so they must be short enough.
            let long = text.lines().find(|line| line.chars().count() > WIDTH);
            assert_eq!(long, None, "{name}");
            insta::assert_snapshot!(name, text);
        }
        let colored = command.render_long_help().ansi().to_string();
        insta::assert_snapshot!("kapsel-testdb-coloured", colored.replace('\u{1b}', "ESC"));
    });
}

#[test]
fn every_command_has_two_examples_that_are_valid() {
    let mut root = kapsel_testdb_cli::command_line();
    root.build();
    let mut all = Vec::new();
    examples(&root, "kapsel-testdb", &mut all);
    for (path, lines) in all {
        assert_eq!(lines.len(), 2, "`{path}`");
        for line in lines {
            let start = line.find(&path);
            let start = start.unwrap_or_else(|| panic!("`{line}` is no example of `{path}`"));
            // What a shell does with its output does not matter.
            let end = line[start..]
                .find([')', '>', '|'])
                .map_or(line.len(), |end| start + end);
            let words = line[start..end]
                .split_whitespace()
                .map(|word| word.trim_matches(['\'', '"']));
            let parsed = kapsel_testdb_cli::command_line().try_get_matches_from(words);
            assert!(parsed.is_ok(), "`{line}`: {parsed:?}");
            assert!(line.chars().count() <= 80, "`{line}`");
        }
    }
}

/// The examples below the help of each command that has no commands of its own.
fn examples(command: &Command, path: &str, all: &mut Vec<(String, Vec<String>)>) {
    let shown = |inner: &&Command| !inner.is_hide_set() && inner.get_name() != "help";
    if command.get_subcommands().any(|inner| shown(&inner)) {
        for inner in command.get_subcommands().filter(shown) {
            examples(inner, &format!("{path} {}", inner.get_name()), all);
        }
        return;
    }
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let lines = help.lines().skip(1).filter(|line| !line.starts_with("  #"));
    all.push((
        path.to_owned(),
        lines.map(|line| line.trim().to_owned()).collect(),
    ));
}

#[test]
fn every_option_and_command_has_a_help_text() {
    fn check(command: &Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "`{name}`");
        for argument in command.get_arguments() {
            let id = argument.get_id();
            let text = argument.get_help().map(ToString::to_string);
            let text = text.unwrap_or_else(|| panic!("`{name}` has no help for `{id}`"));
            assert!(!text.ends_with('.'), "`{name}` `{id}`: {text}");
        }
        let shown = |inner: &&Command| !inner.is_hide_set() && inner.get_name() != "help";
        command.get_subcommands().filter(shown).for_each(check);
    }
    let mut command = kapsel_testdb_cli::command_line();
    command.build();
    check(&command);
}
