//! Ends a run. The keeper calls this when the tests have ended; without a keeper, the process that opened the run does.
//!
//! Order: take the `flock` of the run directory exclusive (no process of the run lives on this host); take the run lock exclusive (no session of the
//! run exists); check the shared clone for pollution; preserve the databases of tests that failed or died; drop the rest; remove the directory. A
//! crash at any step leaves the directory, and with it everything that the sweep needs to continue.

use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::error::backoff;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{DbName, DeadRunDir, RunDir, RunFile, Runtime};
use kapsel_testdb_core::run::end::Ending;
use kapsel_testdb_core::run::spares::Legacy;
use kapsel_testdb_core::run::{RunError, clone, end, kept};
use kapsel_testdb_core::template;

use crate::keeper::locks::{Locks, VERIFY_INTERVAL};
use crate::{pollution, sweep};

/// How long the teardown waits for test processes after SIGTERM. After that, the sweep removes the run.
pub const TERMINATE_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of a teardown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeardownOutcome {
    /// The run has ended and everything is removed.
    Clean,
    /// Another process sweeps the run; this process dropped nothing.
    FencedOff,
    /// Test processes are alive, sessions hold the run lock, or databases could not be dropped: the sweep removes the rest.
    LeftToSweep,
}

/// A run that is about to end, with the session that holds its locks.
#[derive(Debug)]
pub struct Teardown {
    /// The runtime directory.
    pub runtime: Runtime,
    /// The run directory; its lock is held shared.
    pub dir: RunDir,
    /// The contents of `run.json`.
    pub file: RunFile,
    /// The run lock and the template's lock, shared.
    pub locks: Locks,
    /// How many templates are kept.
    pub templates: usize,
    /// What the run leaves for the next one.
    pub legacy: Legacy<'static>,
    /// A signal that shortens the wait for test processes to [`TERMINATE_TIMEOUT`].
    pub terminate: Option<Signal>,
}

impl Teardown {
    /// Ends the run. Waits at most `timeout` for test processes that are still alive.
    ///
    /// # Errors
    /// The server or the run directory is not usable; the sweep removes the rest.
    pub async fn run(self, timeout: Duration) -> Result<TeardownOutcome, RunError> {
        let Self {
            runtime,
            dir,
            file,
            mut locks,
            templates,
            legacy,
            terminate,
        } = self;
        let counts = RunDir::reuse_counts(dir.path());
        tracing::info!("clones: {counts}");
        let dead = win_directory_lock(dir, timeout, terminate, &mut locks, &file);
        let dead = match dead.await {
            Ok(dead) => dead,
            Err(end) => return Ok(end),
        };
        let Some(mut admin) = win_run_lock(locks.into_admin(), &file).await? else {
            return Ok(TeardownOutcome::LeftToSweep);
        };
        let visited = match pollution::SharedClone::of_ending(&dead, &file) {
            Some(shared) => shared.inspect(&mut admin, &runtime).await,
            None => None,
        };
        let other_templates = dead.templates();
        let (namespace, run) = (&file.namespace, &file.run);
        let legacy = Legacy {
            visited: visited.as_ref(),
            ..legacy
        };
        let ending = Ending {
            force: true,
            legacy: Some((&file, legacy)),
        };
        let removal = end::remove(&mut admin, &runtime, namespace, run, dead, ending).await?;
        tracing::info!("left {} spares", removal.spares);
        for name in &removal.kept {
            tracing::info!("kept `{name}`");
        }
        let left = removal.skipped;
        for skipped in &left {
            tracing::warn!("did not drop `{}`: {}", skipped.name, skipped.reason);
        }
        admin
            .unlock(LockKey::run(&file.namespace, &file.run))
            .await?;
        if !removal.kept.is_empty() {
            kept::enforce_limits(&mut admin, &file.namespace, file.keep).await?;
        }
        release_templates(&mut admin, &runtime, &file, &other_templates, templates).await?;
        admin.close().await;
        Ok(if left.is_empty() {
            TeardownOutcome::Clean
        } else {
            TeardownOutcome::LeftToSweep
        })
    }
}

/// Takes the lock of the run directory exclusive, or gives up after `timeout`. Meanwhile it verifies the run lock, which live test processes rely on.
async fn win_directory_lock(
    mut dir: RunDir,
    mut timeout: Duration,
    mut terminate: Option<Signal>,
    locks: &mut Locks,
    file: &RunFile,
) -> Result<DeadRunDir, TeardownOutcome> {
    let started = Instant::now();
    let mut verified = started;
    for attempt in 0.. {
        match dir.end() {
            Ok(dead) => return Ok(dead),
            Err(_) if started.elapsed() >= timeout => break,
            Err(returned) => dir = returned,
        }
        if verified.elapsed() > VERIFY_INTERVAL {
            if !locks.verify().await && !locks.reacquire(&dir, file).await {
                return Err(TeardownOutcome::FencedOff);
            }
            verified = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff(attempt)) => {}
            () = wait_for_signal(&mut terminate) => {
                terminate = None;
                timeout = timeout.min(started.elapsed() + TERMINATE_TIMEOUT);
            }
        }
    }
    Err(TeardownOutcome::LeftToSweep)
}

async fn wait_for_signal(terminate: &mut Option<Signal>) {
    match terminate {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Converts the run lock from shared to exclusive, or gives up. Sessions of killed clients may need a moment to end.
async fn win_run_lock(mut admin: Admin, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let run = LockKey::run(&file.namespace, &file.run);
    if admin.verify().await.is_ok() {
        admin.unlock_shared(run).await?;
    } else {
        admin = clone::connect(file, "keeper", RetryLimits::RUNNING).await?;
    }
    let won = end::win_run_lock(&mut admin, &file.namespace, &file.run).await?;
    Ok(won.then_some(admin))
}

/// Records the use of the templates, frees their locks, and collects templates that are no longer used.
async fn release_templates(
    admin: &mut Admin,
    runtime: &Runtime,
    file: &RunFile,
    other_templates: &[DbName],
    keep: usize,
) -> Result<(), RunError> {
    for name in other_templates.iter().chain([&file.template]) {
        if let Err(error) = template::mark_used(admin, name).await {
            tracing::warn!("{error}");
        }
        // If the session was lost meanwhile, the lock is not held; the server then only warns.
        admin.unlock_shared(LockKey::template(name)).await?;
    }
    sweep::collect_templates(admin, runtime, &file.namespace, keep, false).await?;
    Ok(())
}
