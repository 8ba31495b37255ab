//! Ends a run: whoever opened it or keeps it calls this when its tests are over.
//!
//! Order: the run directory's flock exclusive (no process of the run lives on this host), the run lock exclusive (no session of it
//! lives anywhere), then what tests committed into the shared clone is looked for, the databases of tests that failed or died are
//! preserved, the rest is dropped, and the directory goes last. A crash at any step leaves the directory, and with it everything that
//! the sweep needs to go on from there.

use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;

use super::locks::{Locks, VERIFY};
use super::{RunError, clone, kept};
use crate::name::DbName;
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::pg::error::backoff;
use crate::pg::lock::LockKey;
use crate::run_dir::{DeadRunDir, RunDir, RunFile, Runtime};
use crate::{pollution, sweep, template};

/// How long the teardown waits for killed clients' sessions to free the run lock.
const LAST_SESSIONS: Duration = Duration::from_secs(10);

/// How long the teardown waits for test processes once it was told to end: after that the rest is left to the sweep.
pub const STRAGGLERS: Duration = Duration::from_secs(10);

/// How a run's keeper ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The run is over and nothing is left.
    Clean,
    /// Somebody else swept the run: nothing was dropped here.
    FencedOff,
    /// Test processes still live, or sessions still hold the run lock: the sweep will remove what is left.
    LeftToSweep,
}

/// A run that is about to end, and the session that holds its locks.
#[derive(Debug)]
pub struct Ending {
    /// The runtime folder.
    pub runtime: Runtime,
    /// The run directory, held shared.
    pub dir: RunDir,
    /// What `run.json` says.
    pub file: RunFile,
    /// The run lock and the template's lock, shared.
    pub locks: Locks,
    /// How many templates stay.
    pub templates: usize,
    /// Shortens the wait for test processes to [`STRAGGLERS`].
    pub hurry: Option<Signal>,
}

impl Ending {
    /// Ends the run, waiting at most `patience` for test processes that outlive who started them.
    ///
    /// # Errors
    /// The server or the run directory cannot be used; the sweep will remove what is left.
    pub async fn run(self, patience: Duration) -> Result<End, RunError> {
        let Self {
            runtime,
            dir,
            file,
            mut locks,
            templates,
            hurry,
        } = self;
        let last = last_on_this_host(dir, patience, hurry, &mut locks, &file);
        let dead = match last.await {
            Ok(dead) => dead,
            Err(end) => return Ok(end),
        };
        let Some(mut admin) = last_on_the_server(locks.into_admin(), &file).await? else {
            return Ok(End::LeftToSweep);
        };
        if let Some(shared) = pollution::Shared::of_ending(&dead, &file) {
            shared.judge(&mut admin, &runtime).await;
        }
        let removal = sweep::drop_run(&mut admin, &file.namespace, &file.run, &dead, true).await?;
        for name in &removal.kept {
            tracing::info!("kept `{name}`");
        }
        let left = removal.skipped;
        for skipped in &left {
            tracing::warn!("`{}` stays: {}", skipped.name, skipped.reason);
        }
        let others = dead.templates();
        if left.is_empty() {
            dead.remove(&runtime.gate()?)?;
        }
        admin
            .unlock(LockKey::run(&file.namespace, &file.run))
            .await?;
        if !removal.kept.is_empty() {
            kept::bound(&mut admin, &file.namespace, file.keep).await?;
        }
        tend_templates(&mut admin, &runtime, &file, &others, templates).await?;
        admin.close().await;
        Ok(if left.is_empty() {
            End::Clean
        } else {
            End::LeftToSweep
        })
    }
}

/// Wins the run directory's lock exclusive, or gives up after `patience`. Whoever still lives relies on the run lock meanwhile.
async fn last_on_this_host(
    mut dir: RunDir,
    mut patience: Duration,
    mut hurry: Option<Signal>,
    locks: &mut Locks,
    file: &RunFile,
) -> Result<DeadRunDir, End> {
    let begun = Instant::now();
    let mut verified = begun;
    for attempt in 0.. {
        match dir.end() {
            Ok(dead) => return Ok(dead),
            Err(_) if begun.elapsed() >= patience => break,
            Err(back) => dir = back,
        }
        if verified.elapsed() > VERIFY {
            if !locks.verify().await && !locks.take_back(&dir, file).await {
                return Err(End::FencedOff);
            }
            verified = Instant::now();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff(attempt)) => {}
            () = told(&mut hurry) => {
                hurry = None;
                patience = patience.min(begun.elapsed() + STRAGGLERS);
            }
        }
    }
    Err(End::LeftToSweep)
}

async fn told(hurry: &mut Option<Signal>) {
    match hurry {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Turns the run lock from shared to exclusive, or gives up. Killed clients' sessions may need a moment to go.
async fn last_on_the_server(mut admin: Admin, file: &RunFile) -> Result<Option<Admin>, RunError> {
    let run = LockKey::run(&file.namespace, &file.run);
    if admin.verify().await.is_ok() {
        admin.unlock_shared(run).await?;
    } else {
        admin = clone::connect(file, "keeper", Patience::RUNNING).await?;
    }
    let begun = Instant::now();
    while !admin.try_lock(run).await? {
        if begun.elapsed() > LAST_SESSIONS {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Some(admin))
}

/// Notes that the templates were used, lets go of them, and collects the ones that nobody uses any more.
async fn tend_templates(
    admin: &mut Admin,
    runtime: &Runtime,
    file: &RunFile,
    others: &[DbName],
    keep: usize,
) -> Result<(), RunError> {
    for name in others.iter().chain([&file.template]) {
        if let Err(error) = template::mark_used(admin, name).await {
            tracing::warn!("{error}");
        }
        // Not held where the session was lost meanwhile: that is a warning of the server's.
        admin.unlock_shared(LockKey::template(name)).await?;
    }
    sweep::collect_templates(admin, runtime, &file.namespace, keep, false).await?;
    Ok(())
}
