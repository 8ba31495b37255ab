//! Isolation `transaction`: a pool whose only connection is in a transaction on the shared clone that is never committed. The
//! part that works with sqlx is `sqlx_compat::sandbox`; this module watches a sandbox, and reports how it was lost or why it was not enough.
//!
//! A crash at any point ends the connection, and with it the transaction, so nothing of the test is left.

mod acquisition;
mod loss;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use kapsel_testdb_core::protocol::{DbName, RunFile};

use self::acquisition::Acquisition;
pub use self::loss::SandboxLost;
use crate::report;
use crate::sqlx_compat::sandbox::{Loss, SandboxObserver};
use crate::sqlx_compat::{PoolObserver, PooledConnection, SandboxSettings, SharedPool};

/// How long the end of a test waits for the connection while the application holds it.
const HELD_WAIT: Duration = Duration::from_millis(100);
/// The same while the connection is being returned: one round trip, behind any statement whose future was dropped.
const RETURN_WAIT: Duration = Duration::from_secs(5);
/// The same after the server refused that: then something is wrong, and the test must report it.
const SETTLE_WAIT: Duration = Duration::from_secs(60);

/// How long the end of a test polls for the connection without sleeping. A return takes two round trips.
const SPIN: Duration = Duration::from_millis(2);
/// The interval of polling after that.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The state of a test's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    database: DbName,
    acquire_timeout: Duration,
    lock_timeout: Duration,
    /// Whether the connection goes through a pooler.
    pooled: bool,
    /// The acquire that has the connection now.
    current: Mutex<Option<Acquisition>>,
    /// The first acquire that held the connection for at least the acquire timeout: another acquire would have timed out.
    long_use: Mutex<Option<(Duration, Acquisition)>>,
    lost: OnceLock<SandboxLost>,
    undone: OnceLock<()>,
    /// How long the end of the test waits for the connection, in its current state.
    end_wait: Mutex<Duration>,
}

impl Sandbox {
    /// The state of a sandbox that will be opened.
    pub fn new(file: &RunFile, database: &DbName) -> Arc<Self> {
        Arc::new(Self {
            database: database.clone(),
            acquire_timeout: Duration::from_millis(file.pool.sandbox_acquire_timeout_ms),
            lock_timeout: Duration::from_millis(file.pool.sandbox_lock_timeout_ms),
            pooled: file.admin.is_some(),
            current: Mutex::new(None),
            long_use: Mutex::new(None),
            lost: OnceLock::new(),
            undone: OnceLock::new(),
            end_wait: Mutex::new(HELD_WAIT),
        })
    }

    /// The settings of its pool.
    pub fn settings(self: &Arc<Self>, observer: Arc<dyn PoolObserver>) -> SandboxSettings {
        SandboxSettings {
            acquire_timeout: self.acquire_timeout,
            lock_timeout: self.lock_timeout,
            protected: !self.pooled,
            observer,
            sandbox: self.clone(),
        }
    }

    /// How long the application has held the connection.
    fn held_for(&self) -> Option<Duration> {
        lock(&self.current).as_ref().map(Acquisition::elapsed)
    }

    /// Detects a connection that was taken out of the pool: an open pool without connections. A connection in use cannot be checked.
    fn check_pool(&self, pool: &impl SharedPool) {
        if pool.size() == 0 && !pool.is_closed() {
            self.lost(Loss::Detached);
        }
    }

    /// After a failed test, reports the acquire that held the connection for so long that another acquire timed out, or would have.
    fn report_long_use(&self, failure: &str) {
        let current = lock(&self.current).take();
        let current = current.map(|acquisition| (acquisition.elapsed(), acquisition));
        let long_use = lock(&self.long_use).take();
        let long_use = long_use.or(current.filter(|(took, _)| *took >= self.acquire_timeout));
        if let Some((took, acquisition)) = long_use {
            let certain = is_pool_timeout(failure);
            let location = acquisition.location();
            report::one_connection(took, self.acquire_timeout, &location, certain);
        }
    }
}

/// Whether the message of a panic is about a pool that had no connection.
pub fn is_pool_timeout(failure: &str) -> bool {
    let timed_out = ["PoolTimedOut", "pool timed out"];
    timed_out.iter().any(|text| failure.contains(text))
}

impl SandboxObserver for Sandbox {
    fn opening(&self) {
        // Capturing the first stack of a process takes 0.1 ms, later ones a fifth of that.
        drop(Acquisition::capture());
    }

    fn acquired(&self) {
        *lock(&self.current) = Some(Acquisition::capture());
        *lock(&self.end_wait) = HELD_WAIT;
    }

    fn returning(&self) {
        *lock(&self.end_wait) = RETURN_WAIT;
    }

    fn settling(&self) {
        *lock(&self.end_wait) = SETTLE_WAIT;
    }

    fn returned(&self) {
        let Some(acquisition) = lock(&self.current).take() else {
            return;
        };
        let took = acquisition.elapsed();
        if took >= self.acquire_timeout {
            lock(&self.long_use).get_or_insert((took, acquisition));
        }
    }

    fn undone(&self) {
        let _ = self.undone.set(());
    }

    fn lost(&self, loss: Loss) {
        self.lost
            .get_or_init(|| SandboxLost::new(loss, &self.database, lock(&self.current).take()));
    }
}

/// An open sandbox and the task that watches it. Dropping it ends the task.
#[derive(Debug)]
pub struct Sandboxed {
    sandbox: Arc<Sandbox>,
    watch: Option<JoinHandle<()>>,
}

impl Sandboxed {
    /// Starts to watch an open sandbox.
    pub fn new(sandbox: Arc<Sandbox>, file: &RunFile, application: String) -> Self {
        let watch = watch::start(&sandbox, file, application);
        Self { sandbox, watch }
    }

    /// The end of a test. Waits briefly for the connection, because the transaction is checked when the connection returns.
    ///
    /// # Errors
    /// The sandbox was lost.
    pub async fn end(
        &self,
        pool: &impl SharedPool,
        failure: Option<&str>,
    ) -> Result<(), SandboxLost> {
        let begun = Instant::now();
        while pool.size() > 0 && pool.num_idle() == 0 {
            if begun.elapsed() > *lock(&self.sandbox.end_wait) {
                break;
            }
            if begun.elapsed() < SPIN {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        self.ended(pool, failure)
    }

    /// The same without waiting: it reports only what is known already.
    ///
    /// # Errors
    /// The sandbox was lost.
    pub fn ended(&self, pool: &impl SharedPool, failure: Option<&str>) -> Result<(), SandboxLost> {
        self.sandbox.check_pool(pool);
        if let Some(failure) = failure {
            self.sandbox.report_long_use(failure);
            if self.sandbox.undone.get().is_some() {
                report::undone();
            }
        }
        self.sandbox.lost.get().cloned().map_or(Ok(()), Err)
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

/// A sandbox's pool as the process's other leases see it: it has no idle connection that they may close.
#[derive(Debug)]
pub struct SandboxPool<P>(pub P);

impl<P: SharedPool> SharedPool for SandboxPool<P> {
    fn size(&self) -> u32 {
        self.0.size()
    }

    fn num_idle(&self) -> usize {
        0
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close()
    }

    fn try_acquire(&self) -> Option<Box<dyn PooledConnection>> {
        None
    }

    fn acquire(&self) -> BoxFuture<'_, Result<Box<dyn PooledConnection>, sqlx::Error>> {
        self.0.acquire()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
