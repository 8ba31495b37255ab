//! The session on the server that a test process needs only where nothing is ready, or where there is no keeper: it holds the run lock. Where
//! it is lost, the next work makes it again.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Session, lock};
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::run::clone;
use crate::run_dir::{RunDir, RunFile};
use crate::testing::{TestDbError, background};

/// How often a test process looks whether the run still has its keeper: well within the 30 s after which a silent run counts as
/// dead on other hosts.
const WATCH_KEEPER: Duration = Duration::from_secs(10);

impl Session {
    /// Everybody alive in a run holds its lock; while the keeper does so for us, we need not. Where it is gone, this process takes
    /// the lock itself and verifies it, so that a test that talks to no server for a while does not look dead to other hosts.
    /// A task of the test's runtime, which ends with it (the next connect starts another): a thread would cost each test 60 us.
    pub(in crate::testing) fn watch_keeper(&self) {
        if self.is_own() {
            return;
        }
        let mut watch = lock(&self.watch);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if watch.as_ref().is_some_and(|watch| !watch.is_finished()) {
            return;
        }
        let (file, path) = (self.file.clone(), self.path.clone());
        let slot = self.inner().admin.clone();
        *watch = Some(runtime.spawn(async move {
            while background::tick(WATCH_KEEPER).await {
                if has_keeper(&path) {
                    continue;
                }
                let held = background::run(hold_lock(slot.clone(), file.clone())).await;
                if let Err(error) = held {
                    tracing::warn!("no keeper, and the run lock cannot be held: {error}");
                }
            }
        }));
    }

    pub(super) async fn administer<T, F>(&self, work: F) -> Result<T, TestDbError>
    where
        T: Send + 'static,
        F: Work<T>,
    {
        background::run(self.administration(work)).await
    }

    pub(super) fn administer_blocking<T, F>(&self, work: F) -> Result<T, TestDbError>
    where
        T: Send + 'static,
        F: Work<T>,
    {
        background::run_blocking(self.administration(work))
    }

    /// Work on the session that holds the run lock; where that session is lost, the next work makes it again.
    fn administration<T, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, TestDbError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Work<T>,
    {
        let (shared, file, path) = (
            self.inner().admin.clone(),
            self.file.clone(),
            self.path.clone(),
        );
        // The keeper holds the run lock for us; where connections are few, the test's own come next.
        let one_too_many = self.inner().own.is_none() && !self.file.connections.reserved;
        async move {
            let mut slot = shared.lock().await;
            let mut admin = match slot.take() {
                Some(admin) => admin,
                None => clone::admin(&file, "test", Patience::RUNNING).await?,
            };
            let dir = RunDir::join(&path)?;
            let result = work(&mut admin, &file, &dir).await;
            if result.is_ok() || admin.verify().await.is_ok() {
                if one_too_many && dir.has_keeper() {
                    admin.close().await;
                } else {
                    *slot = Some(admin);
                }
            }
            result
        }
    }
}

/// Something to do on an administrative session.
pub(super) trait Work<T>:
    for<'a> FnOnce(&'a mut Admin, &'a RunFile, &'a RunDir) -> BoxFuture<'a, Result<T, TestDbError>>
    + Send
    + 'static
{
}

impl<T, F> Work<T> for F where
    F: for<'a> FnOnce(
            &'a mut Admin,
            &'a RunFile,
            &'a RunDir,
        ) -> BoxFuture<'a, Result<T, TestDbError>>
        + Send
        + 'static
{
}

fn has_keeper(path: &Path) -> bool {
    RunDir::join(path).is_ok_and(|dir| dir.has_keeper())
}

/// Makes sure that the session with the run lock is there.
async fn hold_lock(
    slot: Arc<tokio::sync::Mutex<Option<Admin>>>,
    file: RunFile,
) -> Result<(), TestDbError> {
    let mut slot = slot.lock().await;
    if let Some(admin) = slot.as_mut()
        && admin.verify().await.is_ok()
    {
        return Ok(());
    }
    *slot = Some(clone::admin(&file, "test", Patience::RUNNING).await?);
    Ok(())
}
