//! The connections that this process's leases may open.
//!
//! A process waits for tokens only while it holds none: with its first lease. Later leases take what is free, and where nothing is,
//! share: whenever the process has more connections than tokens, the idle ones of the pools that were used least recently are closed.
//! So nobody holds and waits, and a test may lease a hundred databases.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::{TestDbError, report};
use crate::connections::{Ledger, Limit, Place};
use crate::driver::{PoolObserver, SharedPool};
use crate::pg::error::backoff;

/// How often a process that waits looks for dead ones.
const BURY: Duration = Duration::from_millis(250);
/// How long a process waits before it says so.
const SILENT: Duration = Duration::from_secs(2);
/// How long it waits: after that the server may refuse connections, but a test is never stuck for good.
const PATIENCE: Duration = Duration::from_secs(120);

static LEASES: Mutex<Vec<Lease>> = Mutex::new(Vec::new());
/// Only one lease of a process is the first.
static FIRST: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Leases without tokens open their first connections one after the other: nobody can count and close one that is only being opened.
static OPENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A lease of this process.
struct Lease {
    id: u64,
    /// Connections that it brought with it.
    tokens: u32,
    pool: Option<Arc<dyn SharedPool>>,
    used: Arc<Use>,
}

/// When a pool was last used.
#[derive(Debug)]
struct Use(AtomicU64);

impl PoolObserver for Use {
    /// Notes when the pool was used, and closes what the process has too many of.
    fn released(&self) -> BoxFuture<'static, ()> {
        self.0.store(now(), Ordering::Relaxed);
        Box::pin(close_idle(0))
    }
}

/// A lease's right to connections; given back when it is dropped.
#[derive(Debug)]
pub struct Hold {
    id: u64,
    used: Arc<Use>,
    place: Option<Place>,
    tokens: u32,
    /// Most connections of its pool.
    pub connections: u32,
}

impl Hold {
    /// For a lease whose connections are there already: reserved by the run, or taken when the process opened its own.
    pub fn granted(connections: u32) -> Self {
        Self::new(None, connections, connections)
    }

    fn new(place: Option<Place>, tokens: u32, connections: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let hold = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            used: Arc::new(Use(AtomicU64::new(now()))),
            place,
            tokens,
            connections,
        };
        leases().push(Lease {
            id: hold.id,
            tokens,
            pool: None,
            used: hold.used.clone(),
        });
        hold
    }

    /// Takes tokens for a lease: waits for them if it is the process's only one, else makes room where there are none.
    ///
    /// # Errors
    /// The ledger cannot be used.
    pub async fn take(ledger: &Ledger, tokens: u32, connections: u32) -> Result<Self, TestDbError> {
        let first = FIRST.lock().await;
        if leases().is_empty() {
            let place = wait(ledger, |_, _| tokens).await?;
            return Ok(Self::new(Some(place), connections, connections));
        }
        drop(first);
        let place = ledger.enter(|_, _| tokens)?;
        let mut granted = ledger.is_granted(&place.holder);
        if !granted {
            ledger.bury_the_dead()?;
            granted = ledger.is_granted(&place.holder);
        }
        if granted {
            return Ok(Self::new(Some(place), connections, connections));
        }
        Ok(Self::new(None, 0, connections))
    }

    /// The right to open the lease's first connection, to be dropped once it is there.
    pub async fn turn(&self) -> Option<tokio::sync::MutexGuard<'static, ()>> {
        if self.tokens > 0 {
            return None;
        }
        let turn = OPENING.lock().await;
        // It comes on top of what there is.
        close_idle(1).await;
        Some(turn)
    }

    /// What it holds in the ledger, if anything.
    #[cfg(feature = "cli")]
    pub fn into_place(mut self) -> Option<Place> {
        self.place.take()
    }

    /// Is told when the lease's pool is used.
    pub fn observer(&self) -> Arc<dyn PoolObserver> {
        self.used.clone()
    }

    /// The lease's pool, from which idle connections may be taken.
    pub fn share(&self, pool: impl SharedPool) {
        let mut leases = leases();
        if let Some(lease) = leases.iter_mut().find(|lease| lease.id == self.id) {
            lease.pool = Some(Arc::new(pool));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        leases().retain(|lease| lease.id != self.id);
        drop(self.place.take());
    }
}

/// How many leases this process has.
pub fn open_leases() -> usize {
    leases().len()
}

/// Gets in line and waits for its turn.
///
/// # Errors
/// The ledger cannot be used.
pub async fn wait(
    ledger: &Ledger,
    wanted: impl FnOnce(&Limit, usize) -> u32,
) -> Result<Place, TestDbError> {
    let place = ledger.enter(wanted)?;
    let begun = Instant::now();
    let (mut buried, mut said) = (None::<Instant>, false);
    for attempt in 0.. {
        if ledger.is_granted(&place.holder) {
            break;
        }
        if buried.is_none_or(|at| at.elapsed() > BURY) {
            ledger.bury_the_dead()?;
            buried = Some(Instant::now());
            continue;
        }
        if begun.elapsed() > PATIENCE {
            report::no_connections(place.holder.tokens, PATIENCE);
            break;
        }
        if begun.elapsed() > SILENT && !said {
            report::waiting_for_connections(place.holder.tokens, &ledger.limit());
            said = true;
        }
        tokio::time::sleep(backoff(attempt.min(3))).await;
    }
    Ok(place)
}

/// While the process has, with `more`, more connections than tokens: closes the idle ones of the pool that was used least recently.
/// Each pool is asked once: what it then still calls idle is promised to somebody who waits for it, or is being closed.
async fn close_idle(more: u32) {
    let mut asked = Vec::new();
    while let Some((id, pool)) = least_used(more, &asked) {
        asked.push(id);
        pool.close_idle().await;
    }
}

fn least_used(more: u32, asked: &[u64]) -> Option<(u64, Arc<dyn SharedPool>)> {
    let leases = leases();
    let pools = || {
        leases
            .iter()
            .filter_map(|lease| Some((lease, lease.pool.as_ref()?)))
    };
    let open: u32 = pools().map(|(_, pool)| pool.size()).sum();
    let tokens = leases
        .iter()
        .map(|lease| lease.tokens)
        .fold(0, u32::saturating_add);
    if open + more <= tokens {
        return None;
    }
    let idle = pools().filter(|(lease, pool)| pool.num_idle() > 0 && !asked.contains(&lease.id));
    let least = idle.min_by_key(|(lease, _)| lease.used.0.load(Ordering::Relaxed));
    least.map(|(lease, pool)| (lease.id, pool.clone()))
}

/// Microseconds since the process asked first.
fn now() -> u64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn leases() -> std::sync::MutexGuard<'static, Vec<Lease>> {
    LEASES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Taken;
    use crate::name::{RunId, RunKey};
    use crate::pg::Address;
    use crate::run_dir::Runtime;

    /// A pool whose idle connection is promised to somebody: it cannot be taken out.
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
            assert!(self.0.fetch_add(1, Ordering::Relaxed) < 100, "in circles");
            Box::pin(async {})
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }

        fn try_take(&self) -> Option<Box<dyn Taken>> {
            None
        }

        fn take(&self) -> BoxFuture<'_, Result<Box<dyn Taken>, sqlx::Error>> {
            Box::pin(async { Err(sqlx::Error::PoolClosed) })
        }
    }

    #[tokio::test]
    async fn what_cannot_be_closed_is_not_asked_for_ever() {
        let hold = Hold::new(None, 0, 1);
        hold.share(Promised(AtomicU64::new(0)));
        close_idle(0).await;
    }

    #[tokio::test]
    async fn the_dead_keep_nothing_from_a_later_lease() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::open_at(&folder.path().join("rt")).expect("private");
        let (server, _) = Address::parse("postgres://localhost/").expect("valid");
        let ledger = Ledger::open(&runtime, &server).expect("a ledger");
        let limit = Limit {
            tokens: 12,
            ..Limit::unknown()
        };
        ledger.set_limit(&limit).expect("noted");
        let dead = RunId::new(std::time::UNIX_EPOCH, &RunKey::new(&["dead"]));
        assert!(ledger.reserve(&dead, 6).expect("reserved"));
        let first = Hold::take(&ledger, 4, 4).await.expect("its tokens");
        let later = Hold::take(&ledger, 4, 4).await.expect("what is free");
        assert_eq!((first.tokens, later.tokens), (4, 4));
    }
}
