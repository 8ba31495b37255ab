//! The process's part in a run: the exported run (fast path), or a run of its own (slow path) that ends with its last lease.

mod administration;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::template::Other;
use super::tokens::{self, Hold};
use super::{TestDbError, background, report};
use crate::config::{self, Config, Layer};
use crate::connections::{Ledger, Place};
use crate::env;
use crate::name::{DbName, Kind};
use crate::pg::admin::Admin;
use crate::platform;
use crate::run::{self, Identity, clone, kept};
use crate::run_dir::{Claim, Claimant, Connections, Folder, RunDir, RunDirError, RunFile, Runtime};
use crate::template::Quiet;

/// A run that this process is in.
#[derive(Debug)]
pub struct Session {
    /// Only taken out by the destructor.
    inner: Option<Inner>,
    /// What `run.json` says.
    pub file: RunFile,
    path: PathBuf,
    watch: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    dir: RunDir,
    /// Holds the run lock; opened at first need on the fast path.
    admin: Arc<tokio::sync::Mutex<Option<Admin>>>,
    /// Set where the run is this process's own.
    own: Option<Own>,
}

/// What only a run of this process's own has.
#[derive(Debug)]
struct Own {
    runtime: Runtime,
    /// Taken before the first connection; what the first lease may open is in it.
    place: Place,
    first_lease: AtomicBool,
}

/// The exported run stays joined until the process ends; a run of our own ends with its last lease.
static EXPORTED: Mutex<Option<Arc<Session>>> = Mutex::new(None);
static OWN: Mutex<Weak<Session>> = Mutex::new(Weak::new());
/// What a retry has given back. The flocks, which go with the process, tell the keeper that it may still fail.
static UNDECIDED: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
static OPENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The process's session, opened by the first who asks. `connections` is what that one declares to need.
pub async fn current(connections: Option<u32>) -> Result<Arc<Session>, TestDbError> {
    let _one_at_a_time = OPENING.lock().await;
    if let Some(session) = lock(&EXPORTED).clone() {
        return Ok(session);
    }
    if let Some(session) = lock(&OWN).upgrade() {
        return Ok(session);
    }
    if let Some(path) = std::env::var_os(env::RUN_DIR).filter(|v| !v.is_empty()) {
        match Session::join(Path::new(&path)) {
            Ok(session) => {
                let session = Arc::new(session);
                *lock(&EXPORTED) = Some(session.clone());
                return Ok(session);
            }
            Err(error @ RunDirError::Gone { .. }) => report::stale_run(&error),
            Err(error) => return Err(error.into()),
        }
    }
    open_own(connections).await
}

/// A run of this process's own, where the exported one cannot go on: its template is gone.
pub async fn own(connections: Option<u32>) -> Result<Arc<Session>, TestDbError> {
    let _one_at_a_time = OPENING.lock().await;
    let open = lock(&OWN).upgrade();
    match open {
        Some(session) => Ok(session),
        None => open_own(connections).await,
    }
}

async fn open_own(connections: Option<u32>) -> Result<Arc<Session>, TestDbError> {
    let session = Arc::new(background::run(Session::open_own(connections)).await?);
    *lock(&OWN) = Arc::downgrade(&session);
    Ok(session)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    fn join(path: &Path) -> Result<Self, RunDirError> {
        let dir = RunDir::join(path)?;
        let file = dir.read()?;
        Ok(Self::new(dir, file, None, None))
    }

    /// The slow path: what `prepare` does, for this process alone.
    async fn open_own(connections: Option<u32>) -> Result<Self, TestDbError> {
        let start = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let start = start
            .or_else(|| std::env::current_dir().ok())
            .unwrap_or_default();
        let config = config::load(&config::find_root(&start), Layer::default())?;
        let runtime = Runtime::open()?;
        // Who waits for connections must not hold one. A managed server, whose address is known once it runs, has plenty.
        let place = match config.server.administered() {
            Some(address) => {
                Some(in_line(&Ledger::open(&runtime, address)?, &config, connections).await?)
            }
            None => None,
        };
        let open = run::open(&config, Identity::Process, 1, &Quiet).await?;
        let place = match place {
            Some(place) => place,
            None => {
                let ledger = Ledger::open(&runtime, &open.server.admin_address)?;
                in_line(&ledger, &config, connections).await?
            }
        };
        let own = Own {
            runtime,
            place,
            first_lease: AtomicBool::new(true),
        };
        Ok(Self::new(open.dir, open.file, Some(open.admin), Some(own)))
    }

    fn new(dir: RunDir, file: RunFile, admin: Option<Admin>, own: Option<Own>) -> Self {
        Self {
            path: dir.path().to_path_buf(),
            inner: Some(Inner {
                dir,
                admin: Arc::new(tokio::sync::Mutex::new(admin)),
                own,
            }),
            file,
            watch: Mutex::new(None),
        }
    }

    fn inner(&self) -> &Inner {
        self.inner
            .as_ref()
            .expect("only the destructor takes it out")
    }

    /// The run directory.
    pub fn dir(&self) -> &RunDir {
        &self.inner().dir
    }

    /// Whether the run is this process's own.
    pub fn is_own(&self) -> bool {
        self.inner().own.is_some()
    }

    /// Whether a keeper drops and keeps what tests give back. Without one the helper does it by itself.
    pub fn has_keeper(&self) -> bool {
        self.inner().own.is_none() && self.dir().has_keeper()
    }

    /// The right to the connections of a lease: those of the run's processes, or as many as it declares.
    pub async fn hold(&self, declared: Option<u32>) -> Result<Hold, TestDbError> {
        let Connections {
            per_process,
            reserved,
        } = self.file.connections;
        let connections = declared.unwrap_or(per_process);
        if let Some(own) = &self.inner().own
            && own.first_lease.swap(false, Ordering::Relaxed)
        {
            return Ok(Hold::granted(
                declared.unwrap_or(own.place.holder.tokens - 1),
            ));
        }
        let missing = if reserved && self.is_among_the_expected() {
            connections.saturating_sub(per_process)
        } else {
            // Without a keeper this process holds the run lock and makes its clones on a session of its own.
            connections + u32::from(!self.has_keeper())
        };
        if missing == 0 {
            return Ok(Hold::granted(connections));
        }
        // This may be waiting for a long time.
        self.watch_keeper();
        let runtime = self.path.ancestors().nth(2).unwrap_or(&self.path);
        let server = self.file.admin_address();
        let ledger = Ledger::open(&Runtime::open_at(runtime)?, server)?;
        Hold::take(&ledger, missing, connections).await
    }

    /// Whether the run has reckoned with this lease: with one for each process of nextest's, in so many slots, or with so many of
    /// a test harness that runs its tests in one process.
    fn is_among_the_expected(&self) -> bool {
        let open = tokens::open_leases();
        match slot() {
            Some(slot) => open == 0 && slot < self.file.threads,
            None => open < self.file.threads,
        }
    }

    /// A database for one test: a ready one, or a new clone. Of the run's template, or of another one. The entry says whose it is.
    pub async fn claim(
        &self,
        other: Option<&Arc<Other>>,
        claimant: Option<Claimant>,
    ) -> Result<Claim, TestDbError> {
        let ready = match other {
            None => self.dir().claim(start()),
            Some(_) => None,
        };
        match ready {
            Some(claim) => Ok(claim.by(claimant)),
            None => self.clone_one(other, claimant).await,
        }
    }

    /// Makes a clone by ourselves: nobody waits for the keeper.
    pub async fn clone_one(
        &self,
        other: Option<&Arc<Other>>,
        claimant: Option<Claimant>,
    ) -> Result<Claim, TestDbError> {
        let new = match other {
            None => clone::new_name(&self.file, Kind::Clone),
            Some(other) => other.new_clone(&self.file),
        };
        let claim = self.dir().enter_leased(&new)?.by(claimant);
        let (name, other) = (new, other.cloned());
        let made = self
            .administer(move |admin, file, dir| {
                Box::pin(async move {
                    let file = match other {
                        None => Cow::Borrowed(file),
                        Some(other) => Cow::Owned(other.ensure(admin, file, dir).await?),
                    };
                    Ok(clone::create(admin, &file, &name).await?)
                })
            })
            .await;
        if made.is_err() {
            self.dir().forget(Folder::Leased, &claim.name);
        }
        made.map(|()| claim)
    }

    /// The run's shared clone, another one than `lost`.
    pub async fn shared(&self, lost: Option<DbName>) -> Result<DbName, TestDbError> {
        if let Some(name) = self.dir().shared().filter(|n| Some(n) != lost.as_ref()) {
            return Ok(name);
        }
        self.administer(move |admin, file, dir| {
            Box::pin(
                async move { Ok(clone::ensure_shared(admin, dir, file, lost.as_ref()).await?) },
            )
        })
        .await
    }

    /// Gives a database back: to the keeper by a rename, else by dropping it here.
    pub fn release(&self, claim: Claim) -> Result<(), TestDbError> {
        let name = claim.name.clone();
        if !self.dir().move_leased(&name, Folder::Released) {
            return Ok(());
        }
        if self.has_keeper() {
            if claim.claimant().is_some_and(Claimant::is_retry) {
                lock(&UNDECIDED).push(claim);
            }
            return Ok(());
        }
        let whose = claim.claimant().filter(|c| c.is_retry());
        if let (Some(own), Some(passed)) = (&self.inner().own, whose) {
            give_back_earlier_attempts(&own.runtime, passed)?;
        }
        self.administer_blocking(move |admin, file, dir| {
            Box::pin(async move { Ok(clone::drop_released(admin, dir, file, &name).await?) })
        })
    }

    /// Preserves a failed test's database, and tells the name that it has or will have in a moment.
    pub fn keep(&self, claim: Claim) -> Result<DbName, TestDbError> {
        let name = claim.name.clone();
        let kept_name = name.with_kind(Kind::Kept);
        if !self.dir().leave(claim, Folder::Failed) || self.has_keeper() {
            return Ok(kept_name);
        }
        self.administer_blocking(move |admin, file, dir| {
            Box::pin(async move {
                kept::preserve(admin, dir.entries(), &name).await?;
                kept::bound(admin, &file.namespace, file.keep).await?;
                Ok(kept_name)
            })
        })
    }
}

impl Drop for Session {
    /// Ends a run of our own: drops what it still has but what a test failed with, frees the locks, removes the directory, unless
    /// something is left to sweep. An exported run is the keeper's.
    fn drop(&mut self) {
        let Some(Inner { dir, admin, own }) = self.inner.take() else {
            return;
        };
        let Some(own) = own else { return };
        let run = self.file.run.clone();
        let namespace = self.file.namespace.clone();
        // What could not be preserved.
        let failed = dir.list(Folder::Failed);
        let ended = background::run_blocking(async move {
            let Some(mut admin) = admin.lock().await.take() else {
                return Ok(Some("its session with the server was lost"));
            };
            let rows = admin.databases(&namespace).await?;
            let ours = rows.iter().filter(|row| row.name.run() == Some(&run));
            let stays = |name: &DbName| name.kind() == Kind::Kept || failed.contains(name);
            for row in ours.filter(|row| !stays(&row.name)) {
                admin
                    .drop_database(&row.name, row.is_template, true)
                    .await?;
            }
            admin.close().await;
            Ok((!failed.is_empty()).then_some("it could not be kept"))
        });
        match ended {
            Ok(None) => run::close(&own.runtime, dir),
            // The sweep goes by the directory.
            Ok(Some(why)) => report::left_to_sweep(&why),
            Err(error) => report::left_to_sweep(&error),
        }
    }
}

/// On the slow path each attempt has a run of its own. Of one that was killed, the next sweep would keep the database.
fn give_back_earlier_attempts(runtime: &Runtime, passed: &Claimant) -> Result<(), RunDirError> {
    let _gate = runtime.gate()?;
    let runs = runtime.runs().into_iter().map(|run| runtime.run_path(&run));
    for dead in runs.filter_map(|path| RunDir::fence(&path).ok()?) {
        clone::earlier_attempts(dead.entries(), passed);
    }
    Ok(())
}

/// Gets in line for what a process of its own run opens: an administrative session, and its first lease's connections.
async fn in_line(
    ledger: &Ledger,
    config: &Config,
    connections: Option<u32>,
) -> Result<Place, TestDbError> {
    let cores = platform::cores();
    tokens::wait(ledger, |limit, in_line| {
        let share = limit.share(cores.max(in_line), config.pool.max_connections);
        1 + connections.unwrap_or(share)
    })
    .await
}

/// Where to begin among the ready databases: processes that start at once begin at different ones.
fn start() -> usize {
    slot().unwrap_or_else(|| std::process::id() as usize)
}

/// A number that no other running test of nextest's has.
fn slot() -> Option<usize> {
    let slot = std::env::var(env::NEXTEST_TEST_GLOBAL_SLOT).ok()?;
    slot.parse().ok()
}

/// A lease that is handed on to another process.
#[cfg(feature = "cli")]
pub(crate) struct HandedOn {
    /// The database.
    pub claim: Claim,
    /// Its connections, where the run has not reserved them.
    pub place: Option<Place>,
    /// What `run.json` says.
    pub file: RunFile,
}

/// A lease for another process, which opens so many connections on it.
#[cfg(feature = "cli")]
pub(crate) async fn lease_for_other_process(
    path: &Path,
    connections: Option<u32>,
    claimant: Option<Claimant>,
) -> Result<HandedOn, TestDbError> {
    let session = join_run(path)?;
    let place = session.hold(connections).await?.into_place();
    let claim = session.claim(None, claimant).await?;
    Ok(HandedOn {
        claim,
        place,
        file: session.file.clone(),
    })
}

/// A process that only lives in a run: it takes the run lock where the keeper is gone.
#[cfg(feature = "cli")]
pub(crate) fn join_run(path: &Path) -> Result<Session, TestDbError> {
    let session = Session::join(path)?;
    session.watch_keeper();
    Ok(session)
}
