//! `kapsel-testdb prepare`: config → server → template → run → export.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use kapsel_testdb_core::config::{Config, ExportUrl};
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::Daily;
use kapsel_testdb_core::run::{self, Identity, OpenRun, RunError, clone, spares};
use kapsel_testdb_core::server::ServerKind;
use kapsel_testdb_core::server::verify::{Requirements, one_line_summary, verify};
use kapsel_testdb_core::{env, platform, template};

use crate::args::Prepare;
use crate::commands::interrupt::{Signals, interruptible};
use crate::commands::pollution;
use crate::failure::{Failure, Result};
use crate::keeper::spawn;
use crate::printer::Printer;
use crate::{export, printer, sweep};

pub async fn run(config: &Config, args: Prepare, printer: &Printer) -> Result<ExitCode> {
    if args.reset {
        check_reset(config)?;
    }
    let mut signals = Signals::new()?;
    let nextest_env = std::env::var_os(env::NEXTEST_ENV).map(PathBuf::from);
    let prepared = async {
        match &nextest_env {
            Some(file) => under_nextest(config, &args, file, printer).await,
            None => outside_nextest(config, &args, printer).await,
        }
    };
    let prepared = interruptible(config, &mut signals, printer, prepared).await;
    if let (Err(failure), Some(file)) = (&prepared, &nextest_env)
        && config.export_url == ExportUrl::Off
        && failure.concerns_databases()
    {
        fail_in_tests(failure, file, printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    prepared?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves the failure to the tests that need a database: nextest would run no test at all if its setup script failed. With
/// `export.database_url` it has to, because tests that only read DATABASE_URL would connect to whatever it names.
fn fail_in_tests(failure: &Failure, nextest_env: &Path, printer: &Printer) -> Result<()> {
    let variables = export::for_unprepared(&printer::with_sources(failure));
    export::write_nextest(nextest_env, &variables)?;
    printer.error(failure);
    printer.problem("the tests that need a database fail with this error; the others run");
    Ok(())
}

/// Whether there is a persistent database to reset.
fn check_reset(config: &Config) -> Result<()> {
    let problem = if std::env::var_os(env::NEXTEST_ENV).is_some() {
        "`--reset` works only outside nextest"
    } else if config.persistent.is_none() {
        "`--reset` is for the persistent database, but `persistent.database` is not set"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(problem.to_owned()))
}

/// Starts the whole run. The keeper stays alive until nextest ends.
async fn under_nextest(
    config: &Config,
    args: &Prepare,
    nextest_env: &Path,
    printer: &Printer,
) -> Result<()> {
    let begun = Instant::now();
    export::check_writable(nextest_env)?;
    let id = std::env::var(env::NEXTEST_RUN_ID).unwrap_or_default();
    let identity = if id.is_empty() {
        Identity::Process
    } else {
        Identity::Nextest(&id)
    };
    let mut runs: Vec<OpenRun> = Vec::new();
    for (index, config) in config.per_template().iter().enumerate() {
        let threads = test_threads();
        let run = run::open_beside(runs.first(), config, identity, threads, printer);
        let mut run = run.await?;
        if index == 0 {
            warn(config, &run, false, printer);
            pollution::print_pending(&run.runtime, &config.namespace, None, printer);
        }
        if run.joined {
            clone::refresh_shared(&run.dir).await?;
        }
        let demand = adopt_spares(&mut run).await?;
        if config.export_url == ExportUrl::Shared && index == 0 {
            clone::ensure_shared(&mut run.admin, &run.dir, &run.file, None).await?;
        }
        if config.keeper && !args.no_keeper {
            spawn::spawn_keeper(&run, platform::nextest_ancestor(), config, demand)?;
        }
        printer.detail(&summary(&run, begun));
        runs.push(run);
    }
    if !config.keeper || args.no_keeper {
        // Without a keeper nothing else sweeps. An error here is no reason for tests to fail.
        let run = &mut runs[0];
        match sweep::sweep_local(&mut run.admin, &run.runtime, &run.file).await {
            Ok(report) => printer.detail(&report.to_string()),
            Err(error) => printer.warn(&format!("the sweep failed: {error}")),
        }
        super::idle::start_watch(config, printer);
    }
    let variables = export::for_runs(config, &runs, config.export_url)?;
    export::write_nextest(nextest_env, &variables)?;
    Ok(())
}

/// Adopts spares, as many as the first tests need, so that they are ready before the tests ask. Returns how many clones the last run used at the same
/// time. An error is no reason for the run to fail: tests create their own clones.
pub async fn adopt_spares(run: &mut OpenRun) -> Result<usize, RunError> {
    let first = platform::cores().min(run.file.threads);
    let adopted = spares::adopt_first(&mut run.admin, &run.dir, &run.file, first);
    match adopted.await {
        Ok(last_run) => Ok(last_run.clones),
        Err(RunError::Pg(error)) if error.code().is_some() => {
            tracing::warn!("failed to adopt spares: {error}");
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// Prepares only server and template: a run is never started from a shell, which may end at any moment.
async fn outside_nextest(config: &Config, args: &Prepare, printer: &Printer) -> Result<()> {
    let begun = Instant::now();
    let mut run = run::open(config, Identity::Process, test_threads(), printer).await?;
    printer.line(&summary(&run, begun));
    warn(config, &run, true, printer);
    pollution::print_pending(&run.runtime, &config.namespace, None, printer);
    for other in config.per_template().iter().skip(1) {
        let begun = Instant::now();
        let run = run::open(other, Identity::Process, test_threads(), printer).await?;
        printer.line(&summary(&run, begun));
        run.close().await;
    }
    let prepared = persistent(config, &mut run, args.reset, printer).await;
    let OpenRun {
        runtime,
        dir,
        server,
        admin,
        ..
    } = run;
    admin.close().await;
    run::close(&runtime, dir);
    super::idle::start_watch(config, printer);
    prepared?;
    if let Some(format) = args.format {
        let database = config
            .persistent
            .as_deref()
            .unwrap_or(&server.maintenance_database);
        if server.address.password.is_some() {
            printer.warn(
                "the printed URL contains no password; set PGPASSWORD or a passfile in addition",
            );
        }
        let variables = export::for_database(&server.address, database);
        printer.data(&export::format(&variables[..1].to_vec(), format.into())?);
    }
    Ok(())
}

/// Prints one line if the server makes tests slow or fail; under nextest not for every run.
fn warn(config: &Config, run: &OpenRun, always: bool, printer: &Printer) {
    let requirements = Requirements {
        threads: test_threads(),
        pool: config.pool.max_connections,
        base: &config.template.base,
        managed: run.server.kind == ServerKind::Local,
        limit: run.limit,
    };
    let Some(line) = one_line_summary(&verify(&run.server.facts, requirements)) else {
        return;
    };
    let warning = format!("{}: {line}\n", run.server.admin_address);
    let (runtime, namespace) = (&run.runtime, &config.namespace);
    if always || !runtime.is_noted(Daily::Warning, namespace, &warning) {
        printer.warn(&line);
        // If this fails, the warning is printed again next time.
        let _ = runtime.note(Daily::Warning, namespace, &warning);
    }
}

async fn persistent(
    config: &Config,
    run: &mut OpenRun,
    reset: bool,
    printer: &Printer,
) -> Result<(), RunError> {
    let Some(name) = &config.persistent else {
        return Ok(());
    };
    let migrated =
        template::migrate_persistent(&mut run.admin, &run.server, config, name, reset).await?;
    printer.line(&match (reset, migrated) {
        (true, n) => format!(
            "database `{name}` was reset: {} applied",
            count(n, "migration")
        ),
        (false, 0) => format!("database `{name}` is current"),
        (false, n) => format!("database `{name}`: {} applied", count(n, "migration")),
    });
    Ok(())
}

/// What a preparation did, in a line.
pub fn summary(run: &OpenRun, begun: Instant) -> String {
    let facts = &run.server.facts;
    format!(
        "{} PostgreSQL {} at {}, template {} {}, {} ms",
        run.server.kind.as_str(),
        facts.version(),
        run.server.address,
        run.template.name,
        if run.template.existed {
            "current"
        } else {
            "built"
        },
        begun.elapsed().as_millis()
    )
}

/// Number of tests that run at once: nextest's number of test threads, else the number of cores.
pub fn test_threads() -> usize {
    let threads = std::env::var(env::NEXTEST_TEST_THREADS).ok();
    threads
        .and_then(|t| t.parse().ok())
        .unwrap_or_else(platform::cores)
}
