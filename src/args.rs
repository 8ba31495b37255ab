//! The command line as clap sees it. Flags become the top layer of the configuration.

mod examples;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use kapsel_testdb_core::config::{self, Config, Layer};
use kapsel_testdb_core::platform::ProcessId;
use kapsel_testdb_core::server::local::idle::IdleStopJob;

use crate::export;
use crate::failure::Result;
use crate::printer::Printer;

/// PostgreSQL for test suites, prepared once per run.
#[derive(Debug, Parser)]
#[command(name = "kapsel-testdb", version, about, long_about = None, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// The command line, with examples.
    pub fn command_line() -> clap::Command {
        examples::add(Self::command())
    }

    /// Parses the command line of this process; prints the help or an error and exits if it asks for that.
    pub fn read() -> Self {
        let mut command = Self::command_line();
        let matches = command.get_matches_mut();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  unexpected error (doctor: a problem that will make tests fail)
  2  usage error (kept: no matching test, or several)
  3  configuration error
  4  server error
  5  template or migration error
  6  run directory error, or no current run
  7  export error
  8  something is in use, or could not be removed or stopped (wait: a run is still alive)
  9  a database differs from its template

`run` exits with the exit code of its command.";

/// Heading of the options that every command has.
const GLOBAL: &str = "Global options";

#[derive(Debug, clap::Args)]
pub struct Global {
    /// Workspace root directory [default: searched upward from the current directory]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Prefix of database names [default: `namespace`, else made from the name of the workspace root]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "NAME")]
    namespace: Option<String>,
    /// URL of a running server to use, without a password [default: DATABASE_URL, else `server.url`]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "URL")]
    url: Option<String>,
    /// Allow a server that is not on this machine [default: `server.allow_remote`]
    #[arg(long, global = true, help_heading = GLOBAL)]
    allow_remote: bool,
    /// Print only errors and problems
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// Print more; -vv prints debug output (RUST_LOG overrides both)
    #[arg(long, short, global = true, help_heading = GLOBAL, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The workspace root.
    pub fn root(&self) -> Result<PathBuf> {
        match &self.root {
            Some(root) => Ok(std::path::absolute(root)
                .with_context(|| format!("failed to resolve `{}`", root.display()))?),
            None => {
                let here =
                    std::env::current_dir().context("failed to find the current directory")?;
                Ok(config::find_root(&here))
            }
        }
    }

    /// The resolved configuration; prints a warning for each unknown key.
    pub fn config(&self, printer: &Printer) -> Result<Config> {
        let config = self.load()?;
        for (name, origin) in &config.unknown {
            printer.warn(&unknown_key(name, &origin.to_string()));
        }
        for variable in &config.unused_variables {
            printer.warn(&unused_variable(variable));
        }
        if let Some(message) = ambiguous_dotenv(&config) {
            printer.warn(&message);
        }
        if config.is_sqlx_toml_ignored {
            printer.warn(IGNORED_SQLX_TOML);
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

/// A message for an ignored key, with the most similar known key.
pub fn unknown_key(name: &str, origin: &str) -> String {
    // A variable's underscores may stand for dots.
    let plain = |text: &str| text.replace('.', "_");
    let distance = |key: &config::Key| strsim::damerau_levenshtein(&plain(&key.name), &plain(name));
    let nearest = config::KEYS
        .iter()
        .min_by_key(|key| distance(key))
        .filter(|key| distance(key) <= 4);
    let hint = nearest.map_or(String::new(), |key| {
        format!("; did you mean `{}`?", key.name)
    });
    format!("ignored the unknown key `{name}` in `{origin}`{hint}")
}

/// A message for settings of migrations that sqlx does not read.
pub const IGNORED_SQLX_TOML: &str = "ignored `sqlx.toml`, because the project's sqlx does: its feature `sqlx-toml` is off; turn it on, or remove `[migrate]` from the file";

/// A message for `.env` files of members that name different servers.
pub fn ambiguous_dotenv(config: &Config) -> Option<String> {
    let files = config.ambiguous_dotenv.iter();
    let files: Vec<String> = files
        .map(|path| format!("`{}`", config::shown_path(&config.root, path)))
        .collect();
    (!files.is_empty()).then(|| {
        format!(
            "ignored DATABASE_URL in {}: the files name different servers; set DATABASE_URL, or `server.url` in `{}`",
            files.join(", "),
            config::FILE
        )
    })
}

/// A message for a variable of libpq that has no effect.
pub fn unused_variable(variable: &str) -> String {
    let remedy = match variable {
        "PGSERVICE" => {
            "neither kapsel-testdb nor sqlx reads service files; put the host, the port and the user into the URL"
        }
        _ => "neither kapsel-testdb nor sqlx supports it; unset it, or use `sslmode` in the URL",
    };
    format!("ignored {variable}: {remedy}")
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare the server and the template; under nextest, also start a run
    Prepare(Prepare),
    /// Run a command in a run of its own; the run ends with the command
    Run(Run),
    /// Wait until all runs of this project on this host have ended, including their cleanup
    Wait {
        /// Maximum time to wait, in seconds
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Lease a database in the current run, for scripts and other languages
    Acquire(Acquire),
    /// Release a leased database
    Release(Release),
    /// Remove databases and run directories that dead runs left behind
    Sweep(Sweep),
    /// Show the server, templates, runs and connections
    Status(StatusArgs),
    /// List, open, dump, compare and drop the databases of failed tests
    #[command(subcommand)]
    Kept(KeptCommand),
    /// List, explain, build, drop, export and import templates
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Drop all databases of this project that no live run uses: templates, spares and kept databases, too
    Purge(Purge),
    /// Diagnose the test setup and suggest fixes
    Doctor(Doctor),
    /// Start, stop, inspect or open the managed server
    #[command(subcommand)]
    Server(ServerCommand),
    /// Show the resolved configuration and the origin of each value
    Config {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set up a project: a nextest setup script and a commented configuration file
    Init(Init),
    /// Print a shell completion script
    Completions {
        /// Shell that the script is for
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Keeper(KeeperArgs),
    #[command(hide = true)]
    Hold(Hold),
    #[command(hide = true)]
    IdleStop {
        #[arg(long)]
        order: IdleStopJob,
    },
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Start the server if it is not running
    Start,
    /// Stop the server and keep its data
    Stop {
        /// Stop the server even if runs are alive on it, or kapsel-testdb did not start it
        #[arg(long)]
        force: bool,
        /// Stop the managed servers with other settings and versions as well
        #[arg(long)]
        all: bool,
        /// Also remove the data of the managed server, kept databases included
        #[arg(long)]
        delete: bool,
    },
    /// Restart the server, with the binaries that are installed now
    Restart {
        /// Stop the server even if runs are alive on it, or kapsel-testdb did not start it
        #[arg(long)]
        force: bool,
    },
    /// Show the state, version, data directory and log file of the server
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the end of the server log
    Logs {
        /// Number of lines
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: usize,
    },
    /// Open psql on the managed or adopted server
    Psql {
        /// Arguments for psql
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
pub enum KeptCommand {
    /// List the kept databases and their tests, newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Open psql on a kept database
    Psql(KeptPsql),
    /// Dump a kept database as SQL, with pg_dump
    Dump(KeptDump),
    /// Compare a kept database with its template: schema and rows
    Diff(KeptDiff),
    /// Drop kept databases
    Drop(KeptDrop),
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List the templates of this project, the last used first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show whether the current template exists, what a build would run and why; with -v also its inputs
    Why {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build the current template if it is missing
    Build,
    /// Drop templates that no run uses, with their spares
    Drop(TemplateDrop),
    /// Write the current template into an archive, for a cache of CI; prints the file
    Export {
        /// Directory of the archive; it is created if it is missing [default: the current directory]
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Make a template of an archive instead of running the migrations
    Import {
        /// An archive, or a directory of archives: the one with the most migrations of this project is imported, if there is one
        #[arg(value_name = "FILE|DIR")]
        from: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["templates", "all"]))]
pub struct TemplateDrop {
    /// Names of templates, as `template list` prints them
    #[arg(value_name = "TEMPLATE")]
    pub templates: Vec<String>,
    /// Drop all templates of this project
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, clap::Args)]
pub struct Purge {
    /// Drop the databases; without it, only list them
    #[arg(long)]
    pub yes: bool,
    /// Also those of all other projects that use this server
    #[arg(long)]
    pub all_projects: bool,
}

#[derive(Debug, clap::Args)]
pub struct KeptTest {
    /// Test name, or its end, or a part of it between `::`; or the name of a kept database
    pub test: String,
    /// Attempt of the test, counted from 1 [default: the latest]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct KeptPsql {
    #[command(flatten)]
    pub test: KeptTest,
    /// Arguments for psql; after `--` if the first one is also a global option
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct KeptDump {
    #[command(flatten)]
    pub test: KeptTest,
    /// Output file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Arguments for pg_dump; after `--` if the first one is also a global option
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
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
    /// Tests, named as in `kept psql`; drops all kept databases of each test
    #[arg(value_name = "TEST")]
    pub tests: Vec<String>,
    /// Drop all kept databases of this project
    #[arg(long, conflicts_with = "attempt")]
    pub all: bool,
    /// Drop only databases of this attempt [default: all attempts]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Also drop databases that have open connections
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct Prepare {
    /// Print DATABASE_URL without password, of the persistent database, else of the maintenance database; only outside nextest
    /// [default: print nothing]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// Drop the persistent database and create it again, for example after a change of branches; only outside nextest
    #[arg(long)]
    pub reset: bool,
    /// Start no background process: each test creates and drops its own database [default: `run.keeper`]
    #[arg(long)]
    pub no_keeper: bool,
}

#[derive(Debug, clap::Args)]
pub struct Run {
    /// Start no background process: each test creates and drops its own database [default: `run.keeper`]
    #[arg(long)]
    pub no_keeper: bool,
    /// Command to run, with its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct Acquire {
    /// Output format of the connection variables
    #[arg(long, value_enum, default_value = "env")]
    pub format: FormatArg,
    /// Number of connections that will be open at the same time [default: the share of one test process]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Test name that `kept` shows if the database is kept [default: the nextest test]
    #[arg(long)]
    pub name: Option<String>,
    /// Name of the template, if the project has several [default: that of the package in CARGO_PKG_NAME, else the first one]
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Release the database when the process with this id ends [default: the calling process]
    #[arg(long)]
    pub pid: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct Release {
    /// Name of the database, as in PGDATABASE
    pub database: String,
    /// The test failed: keep the database for inspection
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
    pub slots_fd: Option<RawFd>,
    #[arg(long)]
    pub watch: ProcessId,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatArg {
    /// `export` lines, for `eval` in a shell
    Env,
    /// Lines of a `.env` file
    Dotenv,
    /// One JSON object
    Json,
    /// Lines for `>> "$GITHUB_ENV"`
    Github,
}

impl From<FormatArg> for export::Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Env => Self::Env,
            FormatArg::Dotenv => Self::Dotenv,
            FormatArg::Json => Self::Json,
            FormatArg::Github => Self::Github,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Draw the screen again every 2 s, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Debug, clap::Args)]
pub struct Sweep {
    /// Print what would be removed, but remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip quiet runs of other hosts instead of watching them for 30 s
    #[arg(long)]
    pub no_wait: bool,
    /// Also drop all spares: the clones that wait for the next run
    #[arg(long)]
    pub spares: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also measure every clone strategy on this server; starts a managed server if it is not running
    #[arg(long)]
    pub measure: bool,
}

#[derive(Debug, clap::Args)]
pub struct Init {
    /// Command of the setup script [default: kapsel-testdb prepare]
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
    /// nextest filterset of the tests that need a database [default: the packages that depend on kapsel-testdb, else all()]
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct KeeperArgs {
    /// A `KeeperOrder` as JSON
    #[arg(long)]
    pub order: String,
}

impl Global {
    /// Whether `--allow-remote` was given: `init` writes it into the configuration.
    pub fn allows_remote(&self) -> bool {
        self.allow_remote
    }
}
