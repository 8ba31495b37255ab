//! The real binary, run with a clean environment.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kapsel-testdb");

/// A command line that has not been run yet.
pub struct Tool {
    command: Command,
}

impl Tool {
    /// A program with nothing in its environment but `PATH`.
    pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(folder).stdin(Stdio::null());
        Self { command }
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Unsets a variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        Outcome::of(self.spawn())
    }

    /// Starts it; [`Outcome::of`] waits for it.
    pub fn spawn(mut self) -> Child {
        let command = self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    }

    /// The command itself.
    pub fn into_command(self) -> Command {
        self.command
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Data for programs.
    pub stdout: String,
    /// Text for people.
    pub stderr: String,
}

impl Outcome {
    /// Waits for a child.
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("a child to wait for");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Fails unless standard error holds each of these.
    #[track_caller]
    pub fn says<T: AsRef<str>>(&self, texts: &[T]) -> &Self {
        for text in texts {
            let text = text.as_ref();
            assert!(self.stderr.contains(text), "`{text}` is missing: {self:#?}");
        }
        self
    }

    /// Fails if anything that was printed holds this.
    #[track_caller]
    pub fn never_says(&self, text: &str) -> &Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!said, "`{text}` must not be there: {self:#?}");
        self
    }

    /// The lines of standard error, except those about waits, which only a busy machine has.
    pub fn talk(&self) -> Vec<&str> {
        let lines = self.stderr.lines();
        lines.filter(|l| !l.starts_with("waiting ")).collect()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
