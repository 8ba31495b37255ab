//! The keeper's workers: each runs one job on one session, and returns the session with the result if it is still usable.

use std::time::Duration;

use tokio::sync::Semaphore;

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::protocol::{DbName, EntryState, Kind, ReuseEvent, RunDir, RunFile};
use kapsel_testdb_core::run::renew::{Means, Settled};
use kapsel_testdb_core::run::{RunError, clone, kept, renew, spares};
use kapsel_testdb_core::sqlstate;

use crate::keeper::plan::Job;
use crate::pollution;

/// How long a clone that must be cleaned waits for the extra session before it is dropped instead.
const EXTRA_SESSION_TIMEOUT: Duration = Duration::from_millis(200);

/// A finished job, and its session if that is still usable.
pub struct FinishedJob {
    pub job: Job,
    pub admin: Option<Admin>,
    pub result: Result<Done, RunError>,
}

/// What a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Nothing that the keeper has to know.
    Other,
    /// A database was dropped or made ready again.
    Settled,
    /// A database must be dropped.
    Unfit,
    /// So many spares were adopted.
    Adopted(usize),
}

/// Runs a job on an existing session or on a new one.
pub async fn work(
    job: Job,
    admin: Option<Admin>,
    dir: &RunDir,
    file: &RunFile,
    extra: &Semaphore,
) -> FinishedJob {
    let mut admin = match connected(admin, file).await {
        Ok(admin) => admin,
        Err(error) => {
            return FinishedJob {
                job,
                admin: None,
                result: Err(error),
            };
        }
    };
    let result = match &job {
        Job::Create => create_and_warm(&mut admin, dir, file, extra).await,
        Job::Adopt(count) => adopt(&mut admin, dir, file, *count).await,
        Job::Preserve(name) => preserve(&mut admin, dir, file, name).await,
        Job::Settle(name) => settle(&mut admin, dir, file, name, extra).await,
        Job::Drop(name) => drop_unfit(&mut admin, dir, name).await,
    };
    let admin = result.is_ok().then_some(admin);
    FinishedJob { job, admin, result }
}

/// The worker's session, or a new one that holds the run lock. If this process dies, the server still finishes a `CREATE DATABASE` of the session;
/// the lock prevents the removal of the run until then.
async fn connected(admin: Option<Admin>, file: &RunFile) -> Result<Admin, RunError> {
    if let Some(admin) = admin {
        return Ok(admin);
    }
    let admin = clone::try_admin(file, "keeper", RetryLimits::RUNNING).await?;
    admin.ok_or_else(|| RunError::FencedOff(file.run.clone()))
}

/// Inspects the shared clone of a finished round. Needs the extra session besides the worker's.
async fn inspect(
    shared: pollution::SharedClone<'_>,
    admin: &mut Admin,
    dir: &RunDir,
    extra: &Semaphore,
) {
    let _session = extra.acquire().await;
    shared.inspect(admin, dir.runtime()).await;
}

/// Preserves the clone of a failed test, and enforces the limits, because many tests of one run may fail.
async fn preserve(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
) -> Result<Done, RunError> {
    kept::preserve(admin, dir.entries(), name, Some(file.keep)).await?;
    kept::enforce_limits(admin, &file.namespace, file.keep).await?;
    Ok(Done::Other)
}

/// Recycles a released database. If the run does not recycle, drops it. A clone that its client has not cleaned needs a session of its own.
async fn settle(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
    extra: &Semaphore,
) -> Result<Done, RunError> {
    if let Some(shared) = pollution::SharedClone::of_round(dir, file, name) {
        inspect(shared, admin, dir, extra).await;
    }
    let is_cleaned = dir.entries().cleaning(EntryState::Released, name).is_some();
    let session = if is_cleaned {
        None
    } else {
        // A sweep may need it for half a minute.
        tokio::time::timeout(EXTRA_SESSION_TIMEOUT, extra.acquire())
            .await
            .ok()
    };
    let means = Means {
        connect: session.is_some(),
        drop: file.recycle.is_none(),
    };
    Ok(match renew::settle(admin, dir, file, name, means).await? {
        Settled::Done => Done::Settled,
        Settled::Unfit => Done::Unfit,
    })
}

async fn drop_unfit(admin: &mut Admin, dir: &RunDir, name: &DbName) -> Result<Done, RunError> {
    renew::drop_unfit(admin, dir, name).await?;
    Ok(Done::Settled)
}

async fn adopt(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    count: usize,
) -> Result<Done, RunError> {
    let adopted = spares::adopt_more(admin, dir, file, count).await?;
    Ok(Done::Adopted(adopted))
}

/// Creates a clone. If the extra session is free, connects to the clone once.
async fn create_and_warm(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    extra: &Semaphore,
) -> Result<Done, RunError> {
    let name = clone::create_new(admin, file, Kind::Clone).await?;
    let offered = warm_and_offer(admin, dir, file, extra, &name).await;
    clone::drop_unless_recorded(admin, &name, offered).await?;
    dir.note_reuse(ReuseEvent::Created);
    Ok(Done::Other)
}

async fn warm_and_offer(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    extra: &Semaphore,
    name: &DbName,
) -> Result<(), RunError> {
    if let Ok(_session) = extra.try_acquire()
        && let Err(error) = clone::warm(file, name).await
    {
        tracing::info!("failed to warm `{name}`: {error}");
    }
    let baseline = clone::baseline(admin, file, name).await?;
    dir.offer(name, baseline.as_ref())?;
    Ok(())
}

/// Whether the server rejected the statement for a permanent reason, so that a retry would fail too.
pub fn is_permanent(error: &RunError) -> bool {
    // Class 53: insufficient resources; class 57: operator intervention (shutdown, cancel).
    code_of(error).is_some_and(|code| !code.starts_with("53") && !code.starts_with("57"))
}

/// Whether the server would also refuse the next database: the template, the privilege or disk space is missing.
pub fn prevents_creation(error: &RunError) -> bool {
    const REASONS: [&str; 3] = [
        sqlstate::INVALID_CATALOG_NAME,
        sqlstate::INSUFFICIENT_PRIVILEGE,
        sqlstate::DISK_FULL,
    ];
    code_of(error).is_some_and(|code| REASONS.contains(&code.as_str()))
}

fn code_of(error: &RunError) -> Option<String> {
    match error {
        RunError::Pg(error) => error.code(),
        _ => None,
    }
}
