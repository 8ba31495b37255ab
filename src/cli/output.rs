//! The only door to the terminal: standard error for people, standard output for data, progress only on a terminal.

#![expect(
    clippy::print_stderr,
    reason = "everybody else prints through this module"
)]

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::config::ServerConfig;
use crate::server::ServerKind;
use crate::template::{Event, Observer};

/// Prints for people and for programs.
#[derive(Debug)]
pub struct Printer {
    quiet: bool,
    verbose: bool,
    bar: Mutex<Option<ProgressBar>>,
}

/// Sends the library's log to standard error: warnings, more with `-v`, or as RUST_LOG says.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "kapsel_testdb=info,warn",
        _ => "kapsel_testdb=debug,info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}

impl Printer {
    /// A printer that says only what went wrong where `quiet`, and details where `verbose`.
    pub fn new(quiet: bool, verbose: u8) -> Self {
        Self {
            quiet,
            verbose: verbose > 0,
            bar: Mutex::new(None),
        }
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            self.above_the_bar(text);
        }
    }

    /// A line for people who asked for details.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.line(text);
        }
    }

    /// A line on what was not done or went wrong: said even where `quiet`.
    pub fn problem(&self, text: &str) {
        self.above_the_bar(text);
    }

    /// Tells that the server does not run, and that this is no occasion to start it; as `json` to programs, too.
    pub fn not_running(&self, server: &ServerConfig, json: bool) {
        self.line(ServerKind::of(server).not_running());
        if json {
            self.data("{\"schema\": 1, \"server\": null}\n");
        }
    }

    /// Something that is not as it should be, but does not stop us.
    pub fn warn(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

    /// The error that ends the command, with its whole chain.
    pub fn error(&self, error: &anyhow::Error) {
        self.finish_bar();
        let mut text = String::new();
        for cause in error.chain() {
            let cause = cause.to_string();
            // A transparent or quoting error repeats its source.
            if !text.ends_with(&cause) && !text.contains(&cause) {
                let colon = if text.is_empty() { "" } else { ": " };
                text.push_str(&format!("{colon}{cause}"));
            }
        }
        eprintln!("error: {text}");
    }

    /// Data for programs, on standard output. A closed pipe is no error.
    pub fn data(&self, text: &str) {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    fn above_the_bar(&self, text: &str) {
        let bar = self.bar.lock();
        match bar.as_deref() {
            Ok(Some(bar)) if !bar.is_hidden() => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }

    fn finish_bar(&self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
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
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some(bar);
        }
    }
}

impl Observer for Printer {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Waiting { holders } => self.line(&format!(
                "waiting for another build: {}",
                holders.join(", ")
            )),
            Event::Building { why, reused, steps } => {
                let from = match reused {
                    0 => String::new(),
                    n => format!(" on top of {n} migrations that have not changed"),
                };
                let files = if *steps == 1 { "file" } else { "files" };
                self.line(&format!("building the template: {steps} {files}{from}"));
                for reason in *why {
                    self.line(&format!("  because {reason}"));
                }
                self.start_bar(*steps);
            }
            Event::Step { file } => {
                self.detail(&format!("  running {file}"));
                if let Ok(bar) = self.bar.lock()
                    && let Some(bar) = bar.as_ref()
                {
                    bar.inc(1);
                    bar.set_message((*file).to_owned());
                }
            }
            Event::Built => self.finish_bar(),
        }
    }
}
