//! Isolation `transaction`: a pool whose only connection is in a transaction on the shared clone that is never committed. What sqlx does for
//! that is in `driver::sandbox`; here is what a test is told when the sandbox does not hold, or does not suffice.
//!
//! A crash anywhere ends the connection, and with it the transaction: nothing of the test is left.

mod held;
mod loss;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use self::held::Held;
pub use self::loss::SandboxLost;
use super::report;
use crate::driver::sandbox::{Loss, SandboxObserver};
use crate::driver::{PoolObserver, SandboxSettings, SharedPool, Taken};
use crate::name::DbName;
use crate::run_dir::RunFile;

/// How long the end of a test waits for the connection: while the application has it; while one round trip is under way, behind whatever a
/// dropped future has left running; and once it is known that something is wrong, which the test must not miss.
const HELD: Duration = Duration::from_millis(100);
const RETURNING: Duration = Duration::from_secs(5);
const SETTLING: Duration = Duration::from_secs(60);

/// How long it looks all the time whether the connection is back, which takes two round trips; then every [`LOOK`].
const SPIN: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(1);

/// What is known of a test's sandbox.
#[derive(Debug)]
pub struct Sandbox {
    database: DbName,
    acquire_timeout: Duration,
    lock_timeout: Duration,
    /// Whether the connection is one of a pooler's.
    pooled: bool,
    /// Who has the connection.
    held: Mutex<Option<Held>>,
    /// Who had it so long that another acquire must have given up.
    long: Mutex<Option<(Duration, Held)>>,
    lost: OnceLock<SandboxLost>,
    undone: OnceLock<()>,
    /// How long the end of the test would wait by now.
    patience: Mutex<Duration>,
}

impl Sandbox {
    /// A sandbox that is about to be opened.
    pub fn new(file: &RunFile, database: &DbName) -> Arc<Self> {
        Arc::new(Self {
            database: database.clone(),
            acquire_timeout: Duration::from_millis(file.pool.sandbox_acquire_timeout_ms),
            lock_timeout: Duration::from_millis(file.pool.sandbox_lock_timeout_ms),
            pooled: file.admin.is_some(),
            held: Mutex::new(None),
            long: Mutex::new(None),
            lost: OnceLock::new(),
            undone: OnceLock::new(),
            patience: Mutex::new(HELD),
        })
    }

    /// What its pool is like.
    pub fn settings(self: &Arc<Self>, observer: Arc<dyn PoolObserver>) -> SandboxSettings {
        SandboxSettings {
            acquire_timeout: self.acquire_timeout,
            lock_timeout: self.lock_timeout,
            protected: !self.pooled,
            observer,
            sandbox: self.clone(),
        }
    }

    /// How long the application has had the connection by now.
    fn held_for(&self) -> Option<Duration> {
        lock(&self.held).as_ref().map(Held::elapsed)
    }

    /// A pool that is gone without a word has been robbed of its connection. Nothing can be said of one that is still in use.
    fn look_at(&self, pool: &impl SharedPool) {
        if pool.size() == 0 && !pool.is_closed() {
            self.lost(Loss::Taken);
        }
    }

    /// For a failed test: who had the connection so long that another acquire gave up.
    fn tell_of_long_use(&self, failure: &str) {
        let still = lock(&self.held).take();
        let still = still.map(|held| (held.elapsed(), held));
        let long = lock(&self.long).take();
        let long = long.or(still.filter(|(held, _)| *held >= self.acquire_timeout));
        if let Some((took, held)) = long {
            let gave_up = ["PoolTimedOut", "pool timed out"];
            let certain = gave_up.iter().any(|sign| failure.contains(sign));
            report::one_connection(took, self.acquire_timeout, &held.place(), certain);
        }
    }
}

impl SandboxObserver for Sandbox {
    fn opening(&self) {
        // The first stack of a process takes 0.1 ms, the others a fifth of that.
        drop(Held::here());
    }

    fn acquired(&self) {
        *lock(&self.held) = Some(Held::here());
        *lock(&self.patience) = HELD;
    }

    fn returning(&self) {
        *lock(&self.patience) = RETURNING;
    }

    fn settling(&self) {
        *lock(&self.patience) = SETTLING;
    }

    fn returned(&self) {
        let Some(held) = lock(&self.held).take() else {
            return;
        };
        let took = held.elapsed();
        if took >= self.acquire_timeout {
            lock(&self.long).get_or_insert((took, held));
        }
    }

    fn undone(&self) {
        let _ = self.undone.set(());
    }

    fn lost(&self, loss: Loss) {
        self.lost
            .get_or_init(|| SandboxLost::new(loss, &self.database, lock(&self.held).take()));
    }
}

/// A sandbox and who watches it; the watch ends with it.
#[derive(Debug)]
pub struct Sandboxed {
    sandbox: Arc<Sandbox>,
    watch: Option<JoinHandle<()>>,
}

impl Sandboxed {
    /// A sandbox that is open.
    pub fn new(sandbox: Arc<Sandbox>, file: &RunFile, application: String) -> Self {
        let watch = watch::start(&sandbox, file, application);
        Self { sandbox, watch }
    }

    /// The end of a test: waits a moment until the connection is back, for only then is it known what became of the transaction.
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
            if begun.elapsed() > *lock(&self.sandbox.patience) {
                break;
            }
            if begun.elapsed() < SPIN {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.ended(pool, failure)
    }

    /// The same without waiting: what is known by now.
    ///
    /// # Errors
    /// The sandbox was lost.
    pub fn ended(&self, pool: &impl SharedPool, failure: Option<&str>) -> Result<(), SandboxLost> {
        self.sandbox.look_at(pool);
        if let Some(failure) = failure {
            self.sandbox.tell_of_long_use(failure);
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

/// A sandbox's pool, as the process's other leases see it: nobody closes its connection to make room.
#[derive(Debug)]
pub struct Kept<P>(pub P);

impl<P: SharedPool> SharedPool for Kept<P> {
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

    fn try_take(&self) -> Option<Box<dyn Taken>> {
        None
    }

    fn take(&self) -> BoxFuture<'_, Result<Box<dyn Taken>, sqlx::Error>> {
        self.0.take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
