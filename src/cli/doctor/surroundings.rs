//! Configuration, run directory, keeper: what is on this machine whatever the server is.

use super::report::{Check, Level};
use crate::cli::args::unknown_key;
use crate::config::{Config, FILE, file_path};
use crate::env;
use crate::run_dir::Runtime;

/// Looks at everything that needs no server.
pub fn look(config: &Config) -> Vec<Check> {
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
        let says = "`run.keeper` is off: each test makes and drops its own database";
        let check = Check::new(Level::Slow, "keeper", says);
        checks.push(check.mend("run.keeper = true"));
    }
    checks
}

fn file(config: &Config) -> Check {
    let named = std::env::var(env::CONFIG).ok();
    let path = file_path(&config.root, named.as_deref());
    let says = match path.is_file() {
        true => format!("`{}`, namespace `{}`", path.display(), config.namespace),
        false => format!(
            "no `{FILE}` in `{}`: defaults, namespace `{}`",
            config.root.display(),
            config.namespace
        ),
    };
    Check::ok("configuration", says)
}

fn run_directory() -> Check {
    match Runtime::open() {
        Ok(runtime) => {
            let says = format!("`{}`, private", runtime.path().display());
            Check::ok("run directory", says)
        }
        Err(error) => Check::new(Level::Fails, "run directory", error.to_string()),
    }
}
