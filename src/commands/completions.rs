//! `kapsel-testdb completions`, and what a shell asks at each completion: clap knows commands and options, the server knows the tests with kept
//! databases. A completion prints no error and starts no server.

use std::ffi::OsStr;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use kapsel_testdb_core::config::{self, Layer};

use crate::args::Args;
use crate::commands::kept::find::{KeptDatabase, find_kept};
use crate::failure::Result;
use crate::printer::Printer;

const NAME: &str = "kapsel-testdb";
/// The variable by which a shell asks for completions.
const VARIABLE: &str = "COMPLETE";
/// A person waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);

pub fn run(shell: clap_complete::Shell, printer: &Printer) -> Result<ExitCode> {
    let name = shell.to_possible_value();
    let shells = Shells::builtins();
    let completer = name.and_then(|name| shells.completer(name.get_name()));
    let mut script = Vec::new();
    completer
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?
        .write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    printer.data(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks for completions, and exits. Otherwise returns at once.
pub fn answer_shell() {
    clap_complete::CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .bin(NAME)
        .complete();
}

/// The command line, with the tests that `kept` can name.
fn command() -> Command {
    let complete = |argument: Arg| match argument.get_id().as_str() {
        "test" | "tests" => argument.add(ArgValueCompleter::new(kept_tests)),
        _ => argument,
    };
    Args::command_line().mut_subcommand("kept", |kept| {
        let commands = ["psql", "dump", "diff", "drop"].iter();
        // Not `mut_arg`, which changes the order of positional arguments.
        commands.fold(kept, |kept, name| {
            kept.mut_subcommand(name, |command| command.mut_args(complete))
        })
    })
}

fn kept_tests(typed: &OsStr) -> Vec<CompletionCandidate> {
    let (Some(typed), Some(kept)) = (typed.to_str(), kept()) else {
        return Vec::new();
    };
    let names = kept.iter().filter_map(|one| matching_name(one, typed));
    names.map(CompletionCandidate::new).collect()
}

/// The test's name, or an end of it that begins with what was typed; the database's name if the test is unknown.
fn matching_name(kept: &KeptDatabase, typed: &str) -> Option<String> {
    let name = match &kept.claimant {
        Some(claimant) => claimant.test.clone(),
        None => kept.row.name.to_string(),
    };
    let starts = name
        .match_indices("::")
        .map(|(at, colons)| at + colons.len());
    let mut ends = std::iter::once(0).chain(starts).map(|at| &name[at..]);
    ends.find(|end| end.starts_with(typed)).map(str::to_owned)
}

/// The kept databases of the project in the current directory.
fn kept() -> Option<Vec<KeptDatabase>> {
    let root = config::find_root(&std::env::current_dir().ok()?);
    let config = config::load(&root, Layer::default()).ok()?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().ok()?;
    runtime.block_on(async {
        let found = tokio::time::timeout(TIMEOUT, find_kept(&config)).await;
        let (_, admin, kept) = found.ok()?.ok()??;
        admin.close().await;
        Some(kept)
    })
}
