//! The command line as clap sees it. Flags become the top layer of the configuration.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use super::output::Printer;
use crate::config::{self, Config, Layer};
use crate::export;
use crate::platform::ProcessId;
use crate::server::local::idle::IdleOrder;

/// PostgreSQL for test suites, prepared once per run.
#[derive(Debug, Parser)]
#[command(name = "kapsel-testdb", version, about, long_about = None, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 unexpected (doctor: something will fail), 2 usage (kept: no such test, or several), 3 configuration, 4 server, 5 template or migration, \
6 run directory, 7 export, 8 something could not be removed or stopped, or is in use (wait: a run is still alive), 9 a database is not as its template";

#[derive(Debug, clap::Args)]
pub struct Global {
    /// Workspace root [default: found from the current folder]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Prefix of the databases' names
    #[arg(long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Server to adopt, instead of DATABASE_URL
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// Allow a server that is not on this machine
    #[arg(long, global = true)]
    allow_remote: bool,
    /// Say only what went wrong
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say more; twice for everything (RUST_LOG decides in detail)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The workspace root.
    pub fn root(&self) -> Result<PathBuf> {
        match &self.root {
            Some(root) => std::path::absolute(root)
                .with_context(|| format!("failed to resolve `{}`", root.display())),
            None => {
                let here = std::env::current_dir().context("failed to find the current folder")?;
                Ok(config::find_root(&here))
            }
        }
    }

    /// The resolved configuration; keys that nobody knows are reported.
    pub fn config(&self, printer: &Printer) -> Result<Config> {
        let config = self.load()?;
        for (name, origin) in &config.unknown {
            printer.warn(&unknown_key(name, &origin.to_string()));
        }
        Ok(config)
    }

    /// The resolved configuration.
    pub fn load(&self) -> Result<Config> {
        let mut flags = Layer::default();
        if let Some(namespace) = &self.namespace {
            flags.flag("namespace", namespace.as_str());
        }
        if let Some(url) = &self.url {
            flags.flag("server.url", url.as_str());
        }
        if self.allow_remote {
            flags.flag("server.allow_remote", true);
        }
        Ok(config::load(&self.root()?, flags)?)
    }
}

/// Says that a key was ignored, and which one may have been meant.
pub fn unknown_key(name: &str, origin: &str) -> String {
    // A variable's underscores may stand for dots.
    let plain = |text: &str| text.replace('.', "_");
    let distance = |key: &config::Key| strsim::damerau_levenshtein(&plain(key.name), &plain(name));
    let nearest = config::KEYS
        .iter()
        .min_by_key(|key| distance(key))
        .filter(|key| distance(key) <= 4);
    let hint = nearest.map_or(String::new(), |key| {
        format!("; did you mean `{}`?", key.name)
    });
    format!("ignored the unknown key `{name}` in `{origin}`{hint}")
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get server and template ready; under nextest, also open the run
    Prepare(Prepare),
    /// Open a run for any command, and end it with the command
    Run(Run),
    /// Wait until this project's runs on this host are over, teardown included
    Wait {
        /// Longest time to wait, in seconds
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Lease a database in the current run, for scripts and other languages
    Acquire(Acquire),
    /// Give a leased database back
    Release(Release),
    /// Remove what dead runs left behind
    Sweep(Sweep),
    /// Show the server, templates, runs and connections
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List, open, dump, compare and drop the databases of failed tests
    #[command(subcommand)]
    Kept(Kept),
    /// Check everything that tests stand on, and say what mends what
    Doctor(Doctor),
    /// Start, stop, look at or open the managed server
    #[command(subcommand)]
    Server(Server),
    /// Show the resolved configuration and where each value comes from
    Config {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set a project up: nextest's setup script and a commented configuration
    Init(Init),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Keeper(Keeper),
    #[command(hide = true)]
    Hold(Hold),
    #[command(hide = true)]
    IdleStop {
        #[arg(long)]
        order: IdleOrder,
    },
}

#[derive(Debug, Subcommand)]
pub enum Server {
    /// Start it, unless it runs
    Start,
    /// Stop it; its data stays
    Stop {
        /// Stop it under live runs, too
        #[arg(long)]
        force: bool,
    },
    /// Stop it and start it again: with the binaries that are installed now
    Restart {
        /// Stop it under live runs, too
        #[arg(long)]
        force: bool,
    },
    /// Show whether it runs, where its data and log are, and its version
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the end of its log
    Logs {
        /// How many lines
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: usize,
    },
    /// Open psql on it, or on the adopted server
    Psql {
        /// What psql is told
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Kept {
    /// Show whose databases are kept, the newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Open psql on a test's database
    Psql(KeptPsql),
    /// Print a test's database as SQL, with pg_dump
    Dump(KeptDump),
    /// Show how a test's database differs from its template: schema and rows
    Diff(KeptDiff),
    /// Drop tests' databases
    Drop(KeptDrop),
}

#[derive(Debug, clap::Args)]
pub struct KeptTest {
    /// The test's name, its end or a part of it between `::`; or the database's name
    pub test: String,
    /// Which attempt's database [default: the latest]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct KeptPsql {
    #[command(flatten)]
    pub test: KeptTest,
    /// What psql is told
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct KeptDump {
    #[command(flatten)]
    pub test: KeptTest,
    /// Write into a file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What pg_dump is told
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct KeptDiff {
    #[command(flatten)]
    pub test: KeptTest,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["tests", "all"]))]
pub struct KeptDrop {
    /// The tests' names, as with `kept psql`: each drops all databases of its test
    #[arg(value_name = "TEST")]
    pub tests: Vec<String>,
    /// All kept databases of this project
    #[arg(long, conflicts_with = "attempt")]
    pub all: bool,
    /// Only those of this attempt
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Also those that somebody is connected to
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct Prepare {
    /// Print DATABASE_URL, without a password: of the persistent database, else of the maintenance database (only by hand)
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Do without the background process: tests make and drop their databases by themselves
    #[arg(long)]
    pub no_keeper: bool,
}

#[derive(Debug, clap::Args)]
pub struct Run {
    /// Do without the background process: tests make and drop their databases by themselves
    #[arg(long)]
    pub no_keeper: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct Acquire {
    /// How to print the variables that lead to the database
    #[arg(long, value_enum, default_value = "env")]
    pub format: Format,
    /// Connections that will be open on the database at once [default: a test process's part]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// What `kept` calls the database if it is kept [default: nextest's test]
    #[arg(long)]
    pub name: Option<String>,
    /// Process whose end gives the database back [default: the one that calls]
    #[arg(long)]
    pub pid: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct Release {
    /// Name of the database, as in PGDATABASE
    pub database: String,
    /// The test failed: keep the database for a look
    #[arg(long)]
    pub failed: bool,
}

#[derive(Debug, clap::Args)]
pub struct Hold {
    #[arg(long)]
    pub dir: PathBuf,
    #[arg(long)]
    pub name: String,
    #[arg(long)]
    pub entry_fd: RawFd,
    #[arg(long)]
    pub tokens_fd: Option<RawFd>,
    #[arg(long)]
    pub watch: ProcessId,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// For a shell's `eval`
    Env,
    /// For a `.env` file
    Dotenv,
    /// One JSON object
    Json,
    /// For `>> "$GITHUB_ENV"`
    Github,
}

impl From<Format> for export::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Env => Self::Env,
            Format::Dotenv => Self::Dotenv,
            Format::Json => Self::Json,
            Format::Github => Self::Github,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Sweep {
    /// Say what would be removed, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave quiet runs of other hosts instead of watching them for 30 s
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also time each way to make a clone on this server (starts a managed one)
    #[arg(long)]
    pub measure: bool,
}

#[derive(Debug, clap::Args)]
pub struct Init {
    /// Command of the setup script
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
    /// nextest filterset of the tests that need a database
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Keeper {
    #[arg(long)]
    pub dir: PathBuf,
    #[arg(long)]
    pub lock_fd: RawFd,
    #[arg(long)]
    pub keeper_fd: RawFd,
    #[arg(long)]
    pub watch: Option<ProcessId>,
    #[arg(long)]
    pub templates: usize,
    #[arg(long)]
    pub idle: Option<IdleOrder>,
}

impl Global {
    /// Whether `--allow-remote` was given: `init` writes it into the configuration.
    pub fn allows_remote(&self) -> bool {
        self.allow_remote
    }
}
