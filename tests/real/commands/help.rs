//! `--help` of the command and of every subcommand, as a person reads it.

use clap::Command;

/// Columns of the terminal.
const WIDTH: usize = 100;

/// The help of a command and of all commands below it, by name.
fn help_texts(command: &mut Command, name: &str, texts: &mut Vec<(String, String)>) {
    texts.push((name.to_owned(), command.render_long_help().to_string()));
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
            insta::assert_snapshot!(name, text);
        }
    });
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
