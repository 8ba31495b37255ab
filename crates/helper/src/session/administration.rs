//! The administrative session, which holds the run lock. A test process needs it only if no clone is ready, or if there is no keeper. If it
//! is lost, its next user opens another one.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::protocol::{RunDir, RunFile};
use kapsel_testdb_core::run::clone;
use kapsel_testdb_core::run::lease::{self, KEEPER_CHECK_INTERVAL};

use crate::session::{Session, lock};
use crate::{TestDbError, background};

impl Session {
    /// Starts to watch the keeper, which holds the run lock for all live processes of the run. If the keeper is gone, this process takes the
    /// run lock itself and verifies it. So a test that is not connected to the server for a while does not look dead to other hosts.
    /// The watch is a task in the test's runtime and ends with it (the next connect starts another): a thread would cost each test 60 µs.
    pub(crate) fn watch_keeper(&self) {
        if self.is_standalone() {
            return;
        }
        let mut watch = lock(&self.keeper_watch);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if watch.as_ref().is_some_and(|watch| !watch.is_finished()) {
            return;
        }
        let (file, path) = (self.file.clone(), self.path.clone());
        let admin = self.inner().admin.clone();
        *watch = Some(runtime.spawn(async move {
            while background::tick(KEEPER_CHECK_INTERVAL).await {
                if has_keeper(&path) {
                    continue;
                }
                let held = background::run(hold_run_lock(admin.clone(), file.clone())).await;
                if let Err(error) = held {
                    tracing::warn!(
                        "the run has no keeper, and taking the run lock failed: {error}"
                    );
                }
            }
        }));
    }

    /// Runs a task on the administrative session.
    pub(super) async fn with_admin<T, F>(&self, task: F) -> Result<T, TestDbError>
    where
        T: Send + 'static,
        F: AdminTask<T>,
    {
        background::run(self.admin_future(task)).await
    }

    /// [`Self::with_admin`] for destructors.
    pub(super) fn with_admin_blocking<T, F>(&self, task: F) -> Result<T, TestDbError>
    where
        T: Send + 'static,
        F: AdminTask<T>,
    {
        background::run_blocking(self.admin_future(task))
    }

    fn admin_future<T, F>(
        &self,
        task: F,
    ) -> impl Future<Output = Result<T, TestDbError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: AdminTask<T>,
    {
        let (shared, file, path) = (
            self.inner().admin.clone(),
            self.file.clone(),
            self.path.clone(),
        );
        // No slot is reserved for the session. If a keeper holds the run lock, the session is closed after the task.
        let has_no_slot = !self.is_standalone() && !self.file.connections.reserved;
        async move {
            let mut slot = shared.lock().await;
            let mut admin = match slot.take() {
                Some(admin) => admin,
                None => clone::admin(&file, "test", RetryLimits::RUNNING).await?,
            };
            let dir = RunDir::join(&path)?;
            let result = task(&mut admin, &file, &dir).await;
            if result.is_ok() || admin.verify().await.is_ok() {
                if has_no_slot && dir.has_keeper() {
                    admin.close().await;
                } else {
                    *slot = Some(admin);
                }
            }
            result
        }
    }
}

/// A task on the administrative session of a run.
pub(super) trait AdminTask<T>:
    for<'a> FnOnce(&'a mut Admin, &'a RunFile, &'a RunDir) -> BoxFuture<'a, Result<T, TestDbError>>
    + Send
    + 'static
{
}

impl<T, F> AdminTask<T> for F where
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

async fn hold_run_lock(
    admin: Arc<tokio::sync::Mutex<Option<Admin>>>,
    file: RunFile,
) -> Result<(), TestDbError> {
    Ok(lease::hold_run_lock(&mut *admin.lock().await, &file, "test").await?)
}
