//! The connection slots of this process's leases.
//!
//! A process waits for slots only while it holds none, that is, with its first lease. Later leases take free slots. If there are none, they
//! share: whenever the process has more connections than slots, it closes the idle connections of the pools that were used least
//! recently. So no process holds slots and waits for others, and a test may lease a hundred databases.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use kapsel_testdb_core::connections;
use kapsel_testdb_core::protocol::{Ledger, Limit, QueueEntry};

use crate::sqlx_compat::{PoolObserver, SharedPool};
use crate::{TestDbError, report};

static LEASES: Mutex<Vec<OpenLease>> = Mutex::new(Vec::new());
/// Held while a lease checks whether it is the process's first.
static FIRST_LEASE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Leases without slots open their first connections one after the other: a connection that is being opened cannot be counted or closed yet.
static OPENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A lease of this process.
struct OpenLease {
    id: u64,
    /// The slots that the lease added to the process.
    slots: u32,
    pool: Option<Arc<dyn SharedPool>>,
    usage: Arc<PoolUsage>,
}

/// What a lease's pool reports about itself.
#[derive(Debug)]
struct PoolUsage {
    /// The lease.
    id: u64,
    /// The maximum number of connections.
    limit: u32,
    /// When the pool was last used, as returned by [`now`].
    last: AtomicU64,
    exhaustion: Mutex<Exhaustion>,
}

/// How long all connections of a pool were in use.
#[derive(Debug, Default)]
struct Exhaustion {
    since: Option<Instant>,
    longest: Duration,
}

impl PoolObserver for PoolUsage {
    fn acquired(&self) {
        let leases = leases();
        let lease = leases.iter().find(|lease| lease.id == self.id);
        let pool = lease.and_then(|lease| lease.pool.as_ref());
        if pool.is_some_and(|pool| pool.size() >= self.limit && pool.num_idle() == 0) {
            let mut exhaustion = lock(&self.exhaustion);
            exhaustion.since.get_or_insert_with(Instant::now);
        }
    }

    /// Records the use, and closes the connections that exceed the process's slots.
    fn released(&self) -> BoxFuture<'static, ()> {
        self.last.store(now(), Ordering::Relaxed);
        lock(&self.exhaustion).end();
        Box::pin(close_idle(0))
    }
}

impl Exhaustion {
    fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.longest = self.longest.max(since.elapsed());
        }
    }
}

/// A lease's right to open connections. Dropping it frees its slots.
#[derive(Debug)]
pub struct Permit {
    id: u64,
    usage: Arc<PoolUsage>,
    entry: Option<QueueEntry>,
    slots: u32,
    /// The maximum number of connections of its pool.
    pub connections: u32,
}

impl Permit {
    /// For a lease whose slots exist already: the run reserved them, or the process took them when it opened its own run.
    pub fn granted(connections: u32) -> Self {
        Self::new(None, connections, connections)
    }

    fn new(entry: Option<QueueEntry>, slots: u32, connections: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let permit = Self {
            id,
            usage: Arc::new(PoolUsage {
                id,
                limit: connections,
                last: AtomicU64::new(now()),
                exhaustion: Mutex::default(),
            }),
            entry,
            slots,
            connections,
        };
        leases().push(OpenLease {
            id: permit.id,
            slots,
            pool: None,
            usage: permit.usage.clone(),
        });
        permit
    }

    /// Takes slots for a lease. The process's only lease waits for them. Another one takes free slots, or shares the process's slots.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn take(ledger: &Ledger, slots: u32, connections: u32) -> Result<Self, TestDbError> {
        let first = FIRST_LEASE.lock().await;
        if leases().is_empty() {
            let entry = wait(ledger, |_, _| slots).await?;
            return Ok(Self::new(Some(entry), connections, connections));
        }
        drop(first);
        let entry = ledger.enqueue(|_, _| slots)?;
        let mut granted = ledger.is_granted(&entry.holder);
        if !granted {
            ledger.reap_stale_entries()?;
            granted = ledger.is_granted(&entry.holder);
        }
        if granted {
            return Ok(Self::new(Some(entry), connections, connections));
        }
        Ok(Self::new(None, 0, connections))
    }

    /// The turn of a lease without slots to open its first connection. Hold it until the connection is open.
    pub async fn turn(&self) -> Option<tokio::sync::MutexGuard<'static, ()>> {
        if self.slots > 0 {
            return None;
        }
        let turn = OPENING.lock().await;
        // One more connection will be opened.
        close_idle(1).await;
        Some(turn)
    }

    /// Is notified when the lease's pool is used.
    pub fn observer(&self) -> Arc<dyn PoolObserver> {
        self.usage.clone()
    }

    /// The longest time for which all connections of the lease's pool were in use, until now.
    pub fn longest_exhaustion(&self) -> Duration {
        let exhaustion = lock(&self.usage.exhaustion);
        let current = exhaustion.since.map(|since| since.elapsed());
        exhaustion.longest.max(current.unwrap_or_default())
    }

    /// Registers the lease's pool: its idle connections may be closed for other leases.
    pub fn share(&self, pool: impl SharedPool) {
        let mut leases = leases();
        if let Some(lease) = leases.iter_mut().find(|lease| lease.id == self.id) {
            lease.pool = Some(Arc::new(pool));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        leases().retain(|lease| lease.id != self.id);
        drop(self.entry.take());
    }
}

/// The number of this process's leases.
pub fn open_leases() -> usize {
    leases().len()
}

/// Enters the queue and waits until the slots are granted.
///
/// # Errors
/// The ledger cannot be read or written.
pub async fn wait(
    ledger: &Ledger,
    wanted: impl FnOnce(&Limit, usize) -> u32,
) -> Result<QueueEntry, TestDbError> {
    Ok(connections::wait(ledger, wanted, report::connections).await?)
}

/// While the process would have more connections than slots with `extra` more of them, closes the idle connections of the pool that was
/// used least recently. Each pool is tried once: connections that it still reports as idle then are promised to a waiting acquire, or are
/// being closed.
async fn close_idle(extra: u32) {
    let mut tried = Vec::new();
    while let Some((id, pool)) = least_recently_used(extra, &tried) {
        tried.push(id);
        pool.close_idle().await;
    }
}

fn least_recently_used(extra: u32, tried: &[u64]) -> Option<(u64, Arc<dyn SharedPool>)> {
    let leases = leases();
    let pools = || {
        leases
            .iter()
            .filter_map(|lease| Some((lease, lease.pool.as_ref()?)))
    };
    let open: u32 = pools().map(|(_, pool)| pool.size()).sum();
    let slots = leases
        .iter()
        .map(|lease| lease.slots)
        .fold(0, u32::saturating_add);
    if open + extra <= slots {
        return None;
    }
    let idle = pools().filter(|(lease, pool)| pool.num_idle() > 0 && !tried.contains(&lease.id));
    let least = idle.min_by_key(|(lease, _)| lease.usage.last.load(Ordering::Relaxed));
    least.map(|(lease, pool)| (lease.id, pool.clone()))
}

/// Microseconds since the first call in this process.
fn now() -> u64 {
    static FIRST_CALL: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(FIRST_CALL.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn leases() -> std::sync::MutexGuard<'static, Vec<OpenLease>> {
    lock(&LEASES)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use kapsel_testdb_core::address::Address;
    use kapsel_testdb_core::protocol::{RunId, RunKey, Runtime};

    use super::*;
    use crate::sqlx_compat::PooledConnection;

    /// A pool whose idle connection is promised to a waiting acquire, so it cannot be closed.
    #[derive(Debug)]
    struct Promised(AtomicU64);

    impl SharedPool for Promised {
        fn size(&self) -> u32 {
            1
        }

        fn num_idle(&self) -> usize {
            1
        }

        fn is_closed(&self) -> bool {
            false
        }

        fn close_idle(&self) -> BoxFuture<'_, ()> {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) < 100, "endless loop");
            Box::pin(async {})
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }

        fn try_acquire(&self) -> Option<Box<dyn PooledConnection>> {
            None
        }

        fn acquire(&self) -> BoxFuture<'_, Result<Box<dyn PooledConnection>, sqlx::Error>> {
            Box::pin(async { Err(sqlx::Error::PoolClosed) })
        }
    }

    #[tokio::test]
    async fn a_pool_that_closes_nothing_is_tried_once() {
        let permit = Permit::new(None, 0, 1);
        permit.share(Promised(AtomicU64::new(0)));
        close_idle(0).await;
    }

    #[tokio::test]
    async fn a_later_lease_gets_the_slots_of_dead_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::open_at(&directory.path().join("rt")).expect("private");
        let (server, _) = Address::parse("postgres://localhost/").expect("valid");
        let ledger = Ledger::open(&runtime, &server).expect("a ledger");
        let limit = Limit {
            slots: 12,
            ..Limit::unknown()
        };
        ledger.set_limit(&limit).expect("recorded");
        let dead = RunId::new(std::time::UNIX_EPOCH, &RunKey::new(&["dead"]));
        assert!(ledger.reserve(&dead, 6).expect("reserved"));
        let first = Permit::take(&ledger, 4, 4).await.expect("its slots");
        let later = Permit::take(&ledger, 4, 4).await.expect("the free slots");
        assert_eq!((first.slots, later.slots), (4, 4));
    }
}
