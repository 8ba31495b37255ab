//! The only access to the terminal: standard error for people, standard output for data, progress only on a terminal.

mod waiting;

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use kapsel_testdb_core::config::ServerConfig;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::DbName;
use kapsel_testdb_core::server::ServerKind;
use kapsel_testdb_core::template::{BuildEvent, BuildObserver};

use crate::screen::{self, FAILURE, WARNING, paint};

/// The narrowest and the widest screen, in columns.
const MIN_WIDTH: usize = 40;
const MAX_WIDTH: usize = 100;

/// Prints for people and for programs.
#[derive(Debug)]
pub struct Printer {
    quiet: bool,
    verbose: bool,
    bar: Mutex<Option<ProgressBar>>,
}

/// A screen that is drawn again and again in the same place of the terminal.
#[derive(Debug)]
pub struct LiveScreen {
    terminal: Term,
    lines: usize,
}

impl LiveScreen {
    /// On standard output; `None` if that is no terminal.
    pub fn open() -> Option<Self> {
        let terminal = Term::stdout();
        let lines = 0;
        terminal.is_term().then_some(Self { terminal, lines })
    }

    /// Replaces what it drew before. What does not fit is not drawn.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn draw(&mut self, text: &str) -> io::Result<()> {
        let room = usize::from(self.terminal.size().0.max(2)) - 1;
        let shown: String = text.split_inclusive('\n').take(room).collect();
        self.terminal.clear_last_lines(self.lines)?;
        self.lines = shown.lines().count();
        let shown = for_terminal(&shown, &io::stdout());
        self.terminal.write_str(&shown)
    }
}

/// Sends the library's log to standard error: warnings, more with `-v`, or as set by RUST_LOG. `with_waits`: shows what the command waits for.
pub fn start_log(verbose: u8, with_waits: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "kapsel_testdb=info,warn",
        _ => "kapsel_testdb=debug,info",
    };
    let named = std::env::var("RUST_LOG").unwrap_or_default();
    let named = Some(named).filter(|named| !named.is_empty());
    let named = named.and_then(|named| named.parse::<Targets>().ok());
    let filter = named.unwrap_or_else(|| level.parse().unwrap_or_default());
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(log)
        .with(with_waits.then(waiting::layer))
        .init();
}

impl Printer {
    /// A printer; `quiet` suppresses everything but errors and problems, `verbose` adds details.
    pub fn new(quiet: bool, verbose: u8) -> Self {
        Self {
            quiet,
            verbose: verbose > 0,
            bar: Mutex::new(None),
        }
    }

    /// Whether to print details.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// The width of a screen: that of the terminal, within limits.
    pub fn width(&self) -> usize {
        let terminal = Term::stdout();
        let columns = terminal.size_checked().map(|(_, columns)| columns);
        let columns = columns.map(usize::from).filter(|_| terminal.is_term());
        columns.map_or(screen::WIDTH, |columns| columns.clamp(MIN_WIDTH, MAX_WIDTH))
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            self.print_above_bar(text);
        }
    }

    /// A line that is printed only with `verbose`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.line(text);
        }
    }

    /// A line about a problem; printed even if `quiet`.
    pub fn problem(&self, text: &str) {
        self.print_above_bar(text);
    }

    /// Prints that the server is not running, which this command does not change; with the schema of a command's JSON also as data.
    pub fn not_running(&self, server: &ServerConfig, json_schema: Option<u32>) {
        self.line(ServerKind::of(server).not_running());
        if let Some(schema) = json_schema {
            self.data(&format!("{{\"schema\": {schema}, \"server\": null}}\n"));
        }
    }

    /// What could not be removed, and why.
    pub fn skipped(&self, name: &DbName, reason: &str) {
        let verb = paint(WARNING, "skipped");
        self.problem(&format!("{verb} {name}: {reason}"));
    }

    /// A warning.
    pub fn warn(&self, text: &str) {
        self.line(&format!("{} {text}", paint(WARNING.bold(), "warning:")));
    }

    /// The error that ends the command, with its sources.
    pub fn error(&self, error: &dyn std::error::Error) {
        self.finish_bar();
        let text = with_sources(error);
        waiting::above_spinner(|| {
            anstream::eprintln!("{} {text}", paint(FAILURE.bold(), "error:"));
        });
    }

    /// Data for programs, on standard output. A closed pipe is not an error.
    pub fn data(&self, text: &str) {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    /// A screen for people, on standard output. It loses its styles in a pipe, and where NO_COLOR or CLICOLOR=0 is set; CLICOLOR_FORCE keeps them.
    pub fn screen(&self, text: &str) {
        let _ = anstream::stdout().write_all(text.as_bytes());
    }

    fn print_above_bar(&self, text: &str) {
        let bar = self.bar.lock();
        match bar.as_deref() {
            Ok(Some(bar)) if !bar.is_hidden() => bar.println(for_terminal(text, &io::stderr())),
            _ => waiting::above_spinner(|| anstream::eprintln!("{text}")),
        }
    }

    fn finish_bar(&self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
            waiting::hide(false);
        }
    }

    fn start_bar(&self, steps: usize) {
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(steps as u64);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        waiting::hide(true);
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some(bar);
        }
    }
}

impl BuildObserver for Printer {
    fn event(&self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Started {
                version,
                place,
                idle_stop,
            } => {
                let stays = match idle_stop {
                    Some(idle) => format!("stops after {} s without use", idle.as_secs()),
                    None => "keeps running for the next run".to_owned(),
                };
                self.line(&format!(
                    "started PostgreSQL {version} in `{place}`; it {stays}; `kapsel-testdb server stop` stops it"
                ));
            }
            BuildEvent::Building {
                reasons,
                reused,
                steps,
            } => {
                let from = match reused {
                    0 => String::new(),
                    n => format!(" on top of {}", count(*n, "unchanged migration")),
                };
                let files = count(*steps, "file");
                self.line(&format!("building the template: {files}{from}"));
                for reason in *reasons {
                    self.line(&format!("  because {reason}"));
                }
                self.start_bar(*steps);
            }
            BuildEvent::Step { file } => {
                if let Ok(bar) = self.bar.lock()
                    && let Some(bar) = bar.as_ref()
                {
                    bar.inc(1);
                    bar.set_message((*file).to_owned());
                }
            }
            BuildEvent::Ran { file, took } => {
                self.detail(&format!("  ran {file} in {} ms", took.as_millis()));
            }
            BuildEvent::Restart => self.line(
                "building from the first migration instead, because the migrations need one session",
            ),
            BuildEvent::OtherOwner { owner, role } => self.warn(&format!(
                "a migration gave the database to the role `{owner}`; template and clones belong to `{role}` all the same, and `{owner}` has all \
                 privileges on them"
            )),
            BuildEvent::OtherDatabase { place, database } => self.warn(&format!(
                "{place} has changed the database `{database}` of this server, which it names, not the one that it runs in, and does so at each \
                 build; name that one: `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET …', current_database()); END $$`"
            )),
            BuildEvent::Built => self.finish_bar(),
        }
    }
}

/// The text with its styles, or without them where they are not wanted.
fn for_terminal(text: &str, stream: &impl RawStream) -> String {
    match AutoStream::choice(stream) {
        ColorChoice::Never => strip_str(text).to_string(),
        _ => text.to_owned(),
    }
}

/// The text of an error and its sources.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let cause = cause.to_string();
        // A transparent or quoting error repeats its source.
        if !text.ends_with(&cause) && !text.contains(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text.push_str(&format!("{colon}{cause}"));
        }
    }
    text
}

/// An error and its sources.
fn chain(error: &dyn std::error::Error) -> impl Iterator<Item = &dyn std::error::Error> {
    std::iter::successors(Some(error), |error| error.source())
}
