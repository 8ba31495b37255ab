//! A runtime of the helper's own, for sessions that must outlive the test that needed them first: each test of a process has its
//! own runtime, which ends with it. Started at first need; the fast path never needs it.

use std::future::Future;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::TestDbError;

/// How long a destructor waits for the server.
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> Result<&'static Runtime, TestDbError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let build = || {
        let mut builder = Builder::new_multi_thread();
        // Two: a destructor that blocks on one needs the other.
        builder.worker_threads(2).thread_name("kapsel-testdb");
        builder.enable_all().build().map_err(|e| e.to_string())
    };
    let runtime = RUNTIME.get_or_init(build).as_ref();
    runtime.map_err(|e| TestDbError::Background(e.clone()))
}

/// Sleeps between two looks of a task in the test's runtime; `false`: the test has stopped tokio's clock, and the task would run in
/// circles.
pub async fn tick(every: Duration) -> bool {
    let begun = Instant::now();
    tokio::time::sleep(every).await;
    begun.elapsed() >= every / 2
}

/// Runs a future there and waits for it here.
pub async fn run<T, F>(future: F) -> Result<T, TestDbError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TestDbError>> + Send + 'static,
{
    runtime()?
        .spawn(future)
        .await
        .map_err(|e| TestDbError::Background(e.to_string()))?
}

/// Runs a future there and blocks this thread until it is done: for destructors.
pub fn run_blocking<T, F>(future: F) -> Result<T, TestDbError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TestDbError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        let _ = sender.send(future.await);
    });
    receiver
        .recv_timeout(PATIENCE)
        .map_err(|e| TestDbError::Background(e.to_string()))?
}
