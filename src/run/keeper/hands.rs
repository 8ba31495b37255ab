//! What the keeper's hands do: one job on one session, which comes back with the result where it is still good.

use tokio::sync::Semaphore;

use super::plan::Job;
use crate::name::{DbName, Kind};
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::pg::error::code;
use crate::pollution;
use crate::run::{RunError, clone, kept};
use crate::run_dir::{RunDir, RunFile, Runtime};

/// A finished job, and the session that did it if it is still good.
pub struct Done {
    pub job: Job,
    pub admin: Option<Admin>,
    pub result: Result<Option<DbName>, RunError>,
}

/// Does a job, on a session that is there or on a new one.
pub async fn work(
    job: Job,
    admin: Option<Admin>,
    dir: &RunDir,
    file: &RunFile,
    spare: &Semaphore,
) -> Done {
    let connected = match admin {
        Some(admin) => Ok(admin),
        None => clone::connect(file, "keeper", Patience::RUNNING).await,
    };
    let mut admin = match connected {
        Ok(admin) => admin,
        Err(error) => {
            return Done {
                job,
                admin: None,
                result: Err(error.into()),
            };
        }
    };
    let result = match &job {
        Job::Shared => clone::ensure_shared(&mut admin, dir, file, None)
            .await
            .map(Some),
        Job::Create => create_and_warm(&mut admin, file, spare).await.map(Some),
        Job::Preserve(name) => preserve(&mut admin, dir, file, name).await,
        Job::Drop(name) => {
            if let Some(shared) = pollution::Shared::of_round(dir, file, name) {
                judge(shared, &mut admin, dir, spare).await;
            }
            clone::drop_released(&mut admin, dir, file, name)
                .await
                .map(|()| None)
                .map_err(RunError::from)
        }
    };
    let admin = result.is_ok().then_some(admin);
    Done { job, admin, result }
}

/// Looks at the shared clone of a round that is over, with the spare session besides the hand's.
async fn judge(shared: pollution::Shared<'_>, admin: &mut Admin, dir: &RunDir, spare: &Semaphore) {
    let _session = spare.acquire().await;
    let base = dir.path().ancestors().nth(2).unwrap_or(dir.path());
    match Runtime::open_at(base) {
        Ok(runtime) => shared.judge(admin, &runtime).await,
        Err(error) => tracing::warn!("{error}"),
    }
}

/// Preserves a failed test's clone. Many tests may fail in one run: the bounds hold meanwhile.
async fn preserve(
    admin: &mut Admin,
    dir: &RunDir,
    file: &RunFile,
    name: &DbName,
) -> Result<Option<DbName>, RunError> {
    let kept = kept::preserve(admin, dir.entries(), name).await?;
    kept::bound(admin, &file.namespace, file.keep).await?;
    Ok(kept)
}

/// Makes a clone and, where the spare session is free, connects to it once.
async fn create_and_warm(
    admin: &mut Admin,
    file: &RunFile,
    spare: &Semaphore,
) -> Result<DbName, RunError> {
    let name = clone::create_new(admin, file, Kind::Clone).await?;
    if let Ok(_session) = spare.try_acquire()
        && let Err(error) = clone::warm(file, &name).await
    {
        tracing::info!("`{name}` is offered cold: {error}");
    }
    Ok(name)
}

/// Whether the server refused this very statement, so that the next attempt would fail as well.
pub fn is_lasting(error: &RunError) -> bool {
    // Class 53: out of resources; class 57: shut down, cancelled.
    code_of(error).is_some_and(|code| !code.starts_with("53") && !code.starts_with("57"))
}

/// Whether the server would refuse the next database as well: there is no template, no right, or no room, which others need.
pub fn ends_making(error: &RunError) -> bool {
    const REASONS: [&str; 3] = [
        code::INVALID_CATALOG_NAME,
        code::INSUFFICIENT_PRIVILEGE,
        code::DISK_FULL,
    ];
    code_of(error).is_some_and(|code| REASONS.contains(&code.as_str()))
}

fn code_of(error: &RunError) -> Option<String> {
    match error {
        RunError::Pg(error) => error.code(),
        _ => None,
    }
}
