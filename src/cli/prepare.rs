//! `kapsel-testdb prepare`: config → server → template → run → export.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use super::args::Prepare;
use super::output::Printer;
use crate::config::{Config, ExportUrl};
use crate::run::{self, Identity, OpenRun, RunError, clone, spawn};
use crate::{env, export, platform, sweep, template};

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
    if run.joined {
        clone::refresh_shared(&run.dir).await?;
    }
    if config.export_url == ExportUrl::Shared {
        clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
    }
    if config.keeper && !args.no_keeper {
        spawn::spawn_keeper(&run, platform::nextest_ancestor(), config)?;
    } else {
        // Nobody else will: the helpers only drop their own.
        let report = sweep::sweep_local(&run.runtime, &run.file).await?;
        printer.detail(&report.to_string());
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
        if run.server.managed {
            "managed"
        } else {
            "adopted"
        },
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
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(4, |n| n.get()))
}
