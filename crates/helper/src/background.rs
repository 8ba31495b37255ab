//! The helper's own runtime, for sessions that must outlive the test that opened them: each test of a process has its own runtime, which
//! ends with the test. It starts at the first use; the fast path never needs it.

use std::future::Future;
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};

use crate::TestDbError;

/// How long a destructor waits for the server.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(60);

fn runtime() -> Result<&'static Runtime, TestDbError> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let build = || {
        let mut builder = Builder::new_multi_thread();
        // Two threads: a destructor that blocks one of them needs the other.
        builder.worker_threads(2).thread_name("kapsel-testdb");
        builder.enable_all().build().map_err(|e| e.to_string())
    };
    let runtime = RUNTIME.get_or_init(build).as_ref();
    runtime.map_err(|e| TestDbError::Background(e.clone()))
}

/// Sleeps between two checks of a task in the test's runtime. `false` means that the test has paused tokio's clock: the task must end,
/// because it would loop without sleeping.
pub async fn tick(every: Duration) -> bool {
    let begun = Instant::now();
    tokio::time::sleep(every).await;
    begun.elapsed() >= every / 2
}

/// Runs a future on that runtime and waits for it.
pub async fn run<T, F>(future: F) -> Result<T, TestDbError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TestDbError>> + Send + 'static,
{
    // Without its type: that of a test would otherwise contain it, and be too deep for the compiler.
    let future: BoxFuture<'static, Result<T, TestDbError>> = Box::pin(future);
    runtime()?
        .spawn(future)
        .await
        .map_err(|e| TestDbError::Background(e.to_string()))?
}

/// Runs a future on that runtime and blocks this thread until it has finished, at most [`BLOCKING_TIMEOUT`]. For destructors.
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
        .recv_timeout(BLOCKING_TIMEOUT)
        .map_err(|e| TestDbError::Background(e.to_string()))?
}
