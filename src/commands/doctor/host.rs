//! Checks that need no server: configuration, runtime directory, keeper.

use kapsel_testdb_core::config::{Config, FILE, file_path};
use kapsel_testdb_core::protocol::Runtime;
use kapsel_testdb_core::server::ServerKind;
use kapsel_testdb_core::server::local::Local;
use kapsel_testdb_core::{env, platform};

use crate::args::{IGNORED_SQLX_TOML, ambiguous_dotenv, unknown_key, unused_variable};
use crate::commands::doctor::report::{Check, Level};

/// Checks everything that needs no server.
pub fn check(config: &Config) -> Vec<Check> {
    let mut checks = vec![file(config)];
    checks.extend(config.unknown.iter().map(|(name, origin)| {
        Check::new(
            Level::Note,
            "configuration",
            unknown_key(name, &origin.to_string()),
        )
    }));
    let unused = config.unused_variables.iter();
    checks.extend(unused.map(|variable| {
        let message = unused_variable(variable);
        Check::new(Level::Note, "configuration", message)
    }));
    let ambiguous = ambiguous_dotenv(config);
    checks.extend(ambiguous.map(|message| Check::new(Level::Note, "configuration", message)));
    if config.is_sqlx_toml_ignored {
        checks.push(Check::new(Level::Note, "configuration", IGNORED_SQLX_TOML));
    }
    checks.push(run_directory());
    checks.extend(login_session(config));
    if !config.keeper {
        let message = "`run.keeper` is false: each test creates and drops its own database";
        let check = Check::new(Level::Slow, "keeper", message);
        checks.push(check.with_fix("run.keeper = true"));
    }
    checks
}

fn file(config: &Config) -> Check {
    let named = std::env::var(env::CONFIG).ok();
    let path = file_path(&config.root, named.as_deref());
    let message = match path.is_file() {
        true => format!("`{}`, namespace `{}`", path.display(), config.namespace),
        false => format!(
            "no `{FILE}` in `{}`: defaults, namespace `{}`",
            config.root.display(),
            config.namespace
        ),
    };
    Check::ok("configuration", message)
}

/// systemd removes some directories when the user logs out, also those of a server that runs.
fn login_session(config: &Config) -> Option<Check> {
    let runtime = Runtime::open()
        .ok()
        .map(|runtime| runtime.path().to_path_buf());
    let managed = ServerKind::of(&config.server) == ServerKind::Local;
    let data = managed.then(|| Local::open(&config.server).ok()).flatten();
    let mut places = [runtime, data.map(|local| local.dir())]
        .into_iter()
        .flatten();
    let place = places.find(|place| platform::files_end_with_login(place))?;
    let message = format!(
        "systemd removes `{}` when the last login session of this user ends, with the runs, the managed server or the kept databases in it",
        place.display()
    );
    let check = Check::new(Level::Note, "login session", message);
    Some(check.with_fix("loginctl enable-linger"))
}

fn run_directory() -> Check {
    match Runtime::open() {
        Ok(runtime) => {
            let message = format!("`{}`, private", runtime.path().display());
            Check::ok("run directory", message)
        }
        Err(error) => Check::new(Level::Fails, "run directory", error.to_string()),
    }
}
