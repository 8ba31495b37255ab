//! Checks that need no server: configuration, runtime directory, keeper.

use kapsel_testdb_core::config::{Config, FILE, file_path};
use kapsel_testdb_core::env;
use kapsel_testdb_core::protocol::Runtime;

use crate::args::unknown_key;
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
    checks.push(run_directory());
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

fn run_directory() -> Check {
    match Runtime::open() {
        Ok(runtime) => {
            let message = format!("`{}`, private", runtime.path().display());
            Check::ok("run directory", message)
        }
        Err(error) => Check::new(Level::Fails, "run directory", error.to_string()),
    }
}
