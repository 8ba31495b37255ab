//! `kapsel-testdb prepare`: config → server → template → run → export.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::args::Prepare;
use super::output::Printer;
use super::pollution;
use crate::config::{Config, ExportUrl};
use crate::run::{self, Identity, OpenRun, RunError, clone, spawn};
use crate::run_dir::write_atomically;
use crate::server::ServerKind;
use crate::server::verify::{Wanted, in_one_line, verify};
use crate::{connections, env, export, platform, sweep, template};

pub async fn run(config: &Config, args: Prepare, printer: &Printer) -> Result<ExitCode> {
    match std::env::var_os(env::NEXTEST_ENV).map(PathBuf::from) {
        Some(file) => under_nextest(config, &args, file, printer).await?,
        None => by_hand(config, &args, printer).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole run: the keeper lives on until nextest ends.
async fn under_nextest(
    config: &Config,
    args: &Prepare,
    nextest_env: PathBuf,
    printer: &Printer,
) -> Result<()> {
    let begun = Instant::now();
    export::check_writable(&nextest_env)?;
    let id = std::env::var(env::NEXTEST_RUN_ID).unwrap_or_default();
    let identity = if id.is_empty() {
        Identity::Process
    } else {
        Identity::Nextest(&id)
    };
    let mut run = run::open(config, identity, test_threads(), printer).await?;
    warn(config, &run, false, printer);
    pollution::tell(&run.runtime, &config.namespace, None, printer);
    if run.joined {
        clone::refresh_shared(&run.dir).await?;
    }
    if config.export_url == ExportUrl::Shared {
        clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
    }
    if config.keeper && !args.no_keeper {
        spawn::spawn_keeper(&run, platform::nextest_ancestor(), config)?;
    } else {
        // Nobody else will: the helpers only drop their own. What others left is no reason for tests to fail.
        match sweep::sweep_local(&run.runtime, &run.file).await {
            Ok(report) => printer.detail(&report.to_string()),
            Err(error) => printer.warn(&format!("the sweep failed: {error}")),
        }
        super::idle::leave_watch(config, printer);
    }
    let variables = export::for_run(&run.dir, &run.file, config.export_url);
    export::write_nextest(&nextest_env, &variables)?;
    printer.detail(&summary(&run, begun));
    Ok(())
}

/// Server and template only: a run comes from nextest or from a test process, never from a shell that may end at once.
async fn by_hand(config: &Config, args: &Prepare, printer: &Printer) -> Result<()> {
    let begun = Instant::now();
    let mut run = run::open(config, Identity::Process, test_threads(), printer).await?;
    printer.line(&summary(&run, begun));
    warn(config, &run, true, printer);
    pollution::tell(&run.runtime, &config.namespace, None, printer);
    let prepared = persistent(config, &mut run, printer).await;
    let OpenRun {
        runtime,
        dir,
        server,
        admin,
        ..
    } = run;
    admin.close().await;
    run::close(&runtime, dir);
    super::idle::leave_watch(config, printer);
    prepared?;
    if let Some(format) = args.format {
        let database = config
            .persistent
            .as_deref()
            .unwrap_or(&server.maintenance_database);
        if server.address.password.is_some() {
            printer.warn("no password is ever printed: set PGPASSWORD or a passfile beside this");
        }
        let variables = export::for_database(&server.address, database);
        printer.data(&export::format(&variables[..1].to_vec(), format.into())?);
    }
    Ok(())
}

/// How long a warning that a run has printed is not printed again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// One line where the server makes tests slow or fail; under nextest not at every run.
fn warn(config: &Config, run: &OpenRun, always: bool, printer: &Printer) {
    // What is wrong with the runtime folder was said when the run was opened.
    let Ok(limit) = connections::limit(&run.runtime, &run.server, Some(&run.file.run)) else {
        return;
    };
    let wanted = Wanted {
        threads: test_threads(),
        pool: config.pool.max_connections,
        base: &config.template.base,
        managed: run.server.kind == ServerKind::Local,
        limit,
    };
    let Some(line) = in_one_line(&verify(&run.server.facts, wanted)) else {
        return;
    };
    let said = format!("{}: {line}\n", run.server.admin_address);
    let path = run
        .runtime
        .path()
        .join(format!("warned-{}", config.namespace));
    let fresh = || {
        let age = path.metadata().ok()?.modified().ok()?.elapsed().ok()?;
        Some(age < AGAIN && std::fs::read_to_string(&path).ok()? == said)
    };
    if always || fresh() != Some(true) {
        printer.warn(&line);
        // Where it cannot be noted it is said again.
        let _ = write_atomically(&path, &said);
    }
}

async fn persistent(config: &Config, run: &mut OpenRun, printer: &Printer) -> Result<(), RunError> {
    let Some(name) = &config.persistent else {
        return Ok(());
    };
    let applied = template::keep_current(&mut run.admin, &run.server, config, name).await?;
    printer.line(&match applied {
        0 => format!("database `{name}` is current"),
        n => format!("database `{name}`: {n} migrations run"),
    });
    Ok(())
}

fn summary(run: &OpenRun, begun: Instant) -> String {
    let facts = &run.server.facts;
    format!(
        "{} PostgreSQL {} at {}, template {} {}, {} ms",
        run.server.kind.as_str(),
        facts.version(),
        run.server.address,
        run.template.name,
        if run.template.current {
            "current"
        } else {
            "built"
        },
        begun.elapsed().as_millis()
    )
}

/// Tests that run at once: nextest's figure, else one per core.
pub fn test_threads() -> usize {
    let told = std::env::var(env::NEXTEST_TEST_THREADS).ok();
    told.and_then(|t| t.parse().ok())
        .unwrap_or_else(platform::cores)
}
