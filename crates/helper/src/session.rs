//! The run that this process participates in: the exported run (fast path), or a standalone run, which this process opens for itself (slow
//! path) and which ends with its last lease.

mod administration;
mod creation;
mod selection;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use kapsel_testdb_core::config::{self, Config};
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::protocol::{
    Claim, Claimant, DbName, EntryState, FailureCause, Kind, Ledger, QueueEntry, RunDir,
    RunDirError, RunFile, Runtime,
};
use kapsel_testdb_core::run::end::Ending;
use kapsel_testdb_core::run::renew::Means;
use kapsel_testdb_core::run::spares::Legacy;
use kapsel_testdb_core::run::{self, Identity, clone, end, kept, renew};
use kapsel_testdb_core::template::LogObserver;
use kapsel_testdb_core::{connections, env, platform};

pub use selection::TemplateRequest;

use crate::slots::{self, Permit};
use crate::template::{CustomTemplate, package_directory};
use crate::{TestDbError, background, report};

/// The participation of this process in a run.
#[derive(Debug)]
pub struct Session {
    /// Only the destructor takes it out.
    inner: Option<Inner>,
    /// The contents of `run.json`.
    pub file: RunFile,
    path: PathBuf,
    /// The packages whose tests use its template, whatever migrations they have.
    packages: Vec<String>,
    keeper_watch: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    dir: RunDir,
    /// Holds the run lock. On the fast path it is opened when it is first needed.
    admin: Arc<tokio::sync::Mutex<Option<Admin>>>,
    /// Set if the run is standalone.
    standalone: Option<StandaloneRun>,
}

/// The parts of a session that only a standalone run has.
#[derive(Debug)]
struct StandaloneRun {
    runtime: Runtime,
    /// Granted before the process opened its first connection. Includes the slots of the first lease.
    entry: QueueEntry,
    first_lease_pending: AtomicBool,
}

/// Pauses between the checks of a claim whether a clone that is being recycled is ready. Together they are about as long as creating a clone takes.
const RECYCLING_PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(10),
];

/// The exported runs, one for each template. The process participates in them until it ends.
static EXPORTED: Mutex<Vec<Arc<Session>>> = Mutex::new(Vec::new());
/// The standalone runs, one for each template. A run ends with its last lease.
static STANDALONE: Mutex<Vec<OpenStandalone>> = Mutex::new(Vec::new());
/// Released claims of a retry. Their `flock`s are held until the process ends, so the keeper knows that the retry may still fail.
static RELEASED_BY_RETRY: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
/// The directory of the package, when it was compiled. Only the attribute knows it.
static PACKAGE: OnceLock<&str> = OnceLock::new();
/// Held while a session is opened, so that only one is.
static OPENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A standalone run of this process.
struct OpenStandalone {
    template: Option<String>,
    /// Whether the configuration has one template.
    is_only: bool,
    session: Weak<Session>,
}

/// Returns the process's session for a template. The first caller opens it; `connections` is the number of connections that this caller declares.
pub async fn current(
    template: TemplateRequest,
    connections: Option<u32>,
) -> Result<Arc<Session>, TestDbError> {
    let _opening = OPENING.lock().await;
    if let Some(error) = env::setup_error() {
        return Err(TestDbError::SetupScript(error));
    }
    if let Some(exported) = selection::exported(template).await? {
        let path = exported.path;
        let joined = lock(&EXPORTED).iter().find(|s| s.path == path).cloned();
        if let Some(session) = joined {
            return Ok(session);
        }
        // After the end of the exported run, the standalone one is used again without another report.
        if let Some(session) = only_standalone() {
            return Ok(session);
        }
        match Session::join(&path, exported.packages) {
            Ok(session) => {
                let session = Arc::new(session);
                lock(&EXPORTED).push(session.clone());
                return Ok(session);
            }
            Err(error @ RunDirError::Gone { .. }) => report::stale_run(&error),
            Err(error) => return Err(error.into()),
        }
    }
    find_or_open_standalone(template, connections).await
}

/// Returns the session of a standalone run, even if a run was exported: that run's template is gone.
pub async fn standalone(
    template: TemplateRequest,
    connections: Option<u32>,
) -> Result<Arc<Session>, TestDbError> {
    let _opening = OPENING.lock().await;
    find_or_open_standalone(template, connections).await
}

/// The standalone run, if there can be no other.
fn only_standalone() -> Option<Arc<Session>> {
    let open = lock(&STANDALONE);
    let only = open.iter().find(|open| open.is_only)?;
    only.session.upgrade()
}

async fn find_or_open_standalone(
    template: TemplateRequest,
    connections: Option<u32>,
) -> Result<Arc<Session>, TestDbError> {
    if let Some(session) = only_standalone() {
        return Ok(session);
    }
    let (config, is_only) = selection::configured(template)?;
    let template = config.template.name.clone();
    let live = || {
        let mut open = lock(&STANDALONE);
        open.retain(|open| open.session.strong_count() > 0);
        let same = open.iter().find(|open| open.template == template)?;
        same.session.upgrade()
    };
    if let Some(session) = live() {
        return Ok(session);
    }
    let opened = background::run(Session::open_standalone(config, connections)).await?;
    let session = Arc::new(opened);
    lock(&STANDALONE).push(OpenStandalone {
        template,
        is_only,
        session: Arc::downgrade(&session),
    });
    Ok(session)
}

/// Remembers the package of the tests in this process, whose directory is that of its compilation.
pub fn set_package(package: &'static str) {
    PACKAGE.get_or_init(|| package);
}

/// Where the search for the workspace root begins: in the package that cargo or nextest names, else in the one that was compiled, because a debugger
/// starts the process in any directory.
fn start_of_search() -> PathBuf {
    let compiled = PACKAGE.get().copied().unwrap_or_default();
    let package = package_directory(compiled);
    match package.is_dir() {
        true => package,
        false => std::env::current_dir().unwrap_or_default(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    fn join(path: &Path, packages: Vec<String>) -> Result<Self, RunDirError> {
        let dir = RunDir::join(path)?;
        let file = dir.read()?;
        Ok(Self::new(dir, file, packages, None, None))
    }

    /// Whether this test's package is in the list of the run's template.
    pub fn is_for_package(&self) -> bool {
        config::lists(&self.packages, selection::package_name().as_deref())
    }

    /// Does what `prepare` does, for this process alone.
    async fn open_standalone(
        config: Config,
        connections: Option<u32>,
    ) -> Result<Self, TestDbError> {
        let runtime = Runtime::open()?;
        // The process must not hold a connection while it waits for slots. A managed server has no address before it runs, but it has
        // enough connections.
        let entry = match config.server.administered() {
            Some(address) => {
                Some(enqueue(&Ledger::open(&runtime, address)?, &config, connections).await?)
            }
            None => None,
        };
        let open = run::open(&config, Identity::Process, 1, &LogObserver).await?;
        let entry = match entry {
            Some(entry) => entry,
            None => {
                let ledger = Ledger::open(&runtime, &open.server.admin_address)?;
                enqueue(&ledger, &config, connections).await?
            }
        };
        let standalone = StandaloneRun {
            runtime,
            entry,
            first_lease_pending: AtomicBool::new(true),
        };
        let (admin, standalone) = (Some(open.admin), Some(standalone));
        let packages = config.template.packages;
        Ok(Self::new(open.dir, open.file, packages, admin, standalone))
    }

    fn new(
        dir: RunDir,
        file: RunFile,
        packages: Vec<String>,
        admin: Option<Admin>,
        standalone: Option<StandaloneRun>,
    ) -> Self {
        Self {
            path: dir.path().to_path_buf(),
            inner: Some(Inner {
                dir,
                admin: Arc::new(tokio::sync::Mutex::new(admin)),
                standalone,
            }),
            file,
            packages,
            keeper_watch: Mutex::new(None),
        }
    }

    fn inner(&self) -> &Inner {
        self.inner
            .as_ref()
            .expect("only the destructor takes it out")
    }

    pub fn dir(&self) -> &RunDir {
        &self.inner().dir
    }

    /// Whether this process opened the run for itself.
    pub fn is_standalone(&self) -> bool {
        self.inner().standalone.is_some()
    }

    /// Whether a keeper drops released clones and keeps those of failed tests. Without a keeper the helper does both.
    pub fn has_keeper(&self) -> bool {
        !self.is_standalone() && self.dir().has_keeper()
    }

    /// The permit for a lease's connections: `declared` by the test, else the run's number per process.
    pub async fn permit(&self, declared: Option<u32>) -> Result<Permit, TestDbError> {
        let reserved = self.file.connections;
        let connections = declared.unwrap_or(reserved.per_process);
        if let Some(standalone) = &self.inner().standalone
            && standalone
                .first_lease_pending
                .swap(false, Ordering::Relaxed)
        {
            // The entry has one slot for the administrative session.
            let granted = standalone.entry.holder.slots - 1;
            return Ok(Permit::granted(declared.unwrap_or(granted)));
        }
        let missing = connections::slots_to_request(
            reserved,
            declared,
            self.is_lease_expected(),
            self.has_keeper(),
        );
        if missing == 0 {
            return Ok(Permit::granted(connections));
        }
        // The wait for slots may be long, and the keeper may end meanwhile.
        self.watch_keeper();
        let ledger = Ledger::open(self.dir().runtime(), self.file.admin_address())?;
        Permit::take(&ledger, missing, connections).await
    }

    /// Whether the run reserved slots for the next lease. It expects one lease for each of nextest's test slots, or one for each thread of
    /// a test harness that runs its tests in one process.
    fn is_lease_expected(&self) -> bool {
        let open = slots::open_leases();
        match env::test_slot() {
            Some(slot) => open == 0 && slot < self.file.threads,
            None => open < self.file.threads,
        }
    }

    /// Claims a ready clone, or creates one. Only the run's own template has ready clones. The entry records the claimant.
    pub async fn claim(
        &self,
        custom_template: Option<&Arc<CustomTemplate>>,
        claimant: Option<Claimant>,
    ) -> Result<Claim, TestDbError> {
        let ready = match custom_template {
            None => self.claim_ready().await,
            Some(_) => None,
        };
        match ready {
            Some(claim) => Ok(claim.with_claimant(claimant)),
            None => self.create_clone(custom_template, claimant).await,
        }
    }

    /// Claims a ready clone. If there is none but the keeper recycles some, waits a moment, because recycling costs the keeper less than this process.
    async fn claim_ready(&self) -> Option<Claim> {
        for pause in RECYCLING_PAUSES {
            let claim = self.dir().claim();
            let is_recycling = || {
                let released = self.dir().list(EntryState::Released);
                let clone = |name: &DbName| name.kind() == Kind::Clone;
                self.file.recycle.is_some() && released.iter().any(clone) && self.has_keeper()
            };
            if claim.is_some() || !is_recycling() {
                return claim;
            }
            tokio::time::sleep(pause).await;
        }
        self.dir().claim()
    }

    /// Creates a clone in this process, without waiting for the keeper. If the future is dropped, the clone is released when it exists.
    pub async fn create_clone(
        &self,
        custom_template: Option<&Arc<CustomTemplate>>,
        claimant: Option<Claimant>,
    ) -> Result<Claim, TestDbError> {
        let name = match custom_template {
            None => clone::new_name(&self.file, Kind::Clone),
            Some(template) => template.new_clone_name(&self.file),
        };
        let claim = self.dir().create_leased(&name)?.with_claimant(claimant);
        let (creator, waiter) = creation::share(claim, self);
        let custom_template = custom_template.cloned();
        self.with_admin(move |admin, run_file, dir| {
            Box::pin(async move {
                let file = match custom_template {
                    None => Cow::Borrowed(run_file),
                    Some(template) => Cow::Owned(template.ensure(admin, run_file, dir).await?),
                };
                // The spares and the baselines of a run are of its own template.
                let baseline = if matches!(file, Cow::Owned(_)) {
                    clone::create(admin, &file, &name).await?;
                    None
                } else {
                    clone::obtain(admin, dir, &file, &name).await?
                };
                if let Some(unused) = creator.created(baseline.as_ref()) {
                    let released = dir.end_lease(unused, EntryState::Released);
                    if released && !dir.has_keeper() {
                        renew::settle(admin, dir, run_file, &name, Means::ALL).await?;
                    }
                }
                Ok(())
            })
        })
        .await?;
        waiter
            .take()
            .ok_or_else(|| TestDbError::Background("a new clone has no claim".to_owned()))
    }

    /// Whether a connect through a pooler failed because the database does not exist: a pooler may report that with another SQLSTATE.
    pub async fn is_gone(&self, name: &DbName, error: &TestDbError) -> bool {
        if self.file.admin.is_none() || error.is_transient() {
            return false;
        }
        let name = name.to_string();
        let exists = self.with_admin(move |admin, _, _| {
            Box::pin(async move { Ok(admin.database_exists(&name).await?) })
        });
        matches!(exists.await, Ok(false))
    }

    /// Returns the run's shared clone, but not the one that was `lost`. Creates it if there is none.
    pub async fn shared_clone(&self, lost: Option<DbName>) -> Result<DbName, TestDbError> {
        if let Some(name) = self.dir().shared().filter(|n| Some(n) != lost.as_ref()) {
            return Ok(name);
        }
        self.with_admin(move |admin, file, dir| {
            Box::pin(
                async move { Ok(clone::ensure_shared(admin, dir, file, lost.as_ref()).await?) },
            )
        })
        .await
    }

    /// Releases a clone: by a rename if there is a keeper, which makes the clone ready again or drops it; else this process does that.
    pub fn release(&self, claim: Claim) -> Result<(), TestDbError> {
        let name = claim.name.clone();
        if !self.dir().move_leased(&name, EntryState::Released) {
            return Ok(());
        }
        if self.has_keeper() {
            if claim.claimant().is_some_and(Claimant::is_retry) {
                lock(&RELEASED_BY_RETRY).push(claim);
            }
            return Ok(());
        }
        let retry = claim.claimant().filter(|c| c.is_retry());
        if let (Some(standalone), Some(retry)) = (&self.inner().standalone, retry) {
            release_attempts_of_dead_runs(&standalone.runtime, retry)?;
        }
        self.with_admin_blocking(move |admin, file, dir| {
            Box::pin(async move {
                Ok(renew::settle(admin, dir, file, &name, Means::ALL)
                    .await
                    .map(drop)?)
            })
        })
    }

    /// Releases a clone that no test has used.
    pub fn release_unused(&self, claim: Claim) {
        if let Err(error) = self.release(claim.without_claimant()) {
            report::left_to_sweep(&error);
        }
    }

    /// Keeps a failed test's clone, and returns its new name. If there is a keeper, the keeper renames it a little later.
    pub fn keep(&self, claim: Claim, failure: &str) -> Result<DbName, TestDbError> {
        if let Some(cause) = FailureCause::of_message(failure) {
            claim.note_cause(&cause);
        }
        let name = claim.name.clone();
        let kept_name = name.with_kind(Kind::Kept);
        if !self.dir().end_lease(claim, EntryState::Failed) || self.has_keeper() {
            return Ok(kept_name);
        }
        self.with_admin_blocking(move |admin, file, dir| {
            Box::pin(async move {
                kept::preserve(admin, dir.entries(), &name, Some(file.keep)).await?;
                kept::enforce_limits(admin, &file.namespace, file.keep).await?;
                Ok(kept_name)
            })
        })
    }
}

impl Drop for Session {
    /// Ends a standalone run: leaves spares, drops its other databases except those of failed tests, frees the locks, removes the directory. The keeper ends
    /// an exported run.
    fn drop(&mut self) {
        let Some(Inner {
            dir,
            admin,
            standalone,
        }) = self.inner.take()
        else {
            return;
        };
        let Some(standalone) = standalone else {
            return;
        };
        let (run, namespace) = (self.file.run.clone(), self.file.namespace.clone());
        let file = self.file.clone();
        let incomplete = background::run_blocking(async move {
            let Some(mut admin) = admin.lock().await.take() else {
                return Ok(Some(
                    "the run's session with the server was lost".to_owned(),
                ));
            };
            let fence = {
                // Under the gate, because a process that checks whether the run is alive holds the lock for a moment, also under the gate.
                let _gate = standalone.runtime.gate()?;
                dir.end()
            };
            let Ok(dead) = fence else {
                return Ok(Some("another process still uses the run".to_owned()));
            };
            let runtime = &standalone.runtime;
            let ending = Ending {
                force: true,
                legacy: Some((&file, Legacy::of(&file))),
            };
            let removed = end::remove(&mut admin, runtime, &namespace, &run, dead, ending);
            let skipped = removed.await?.skipped.into_iter().next();
            admin.close().await;
            Ok(skipped.map(|one| format!("`{}`: {}", one.name, one.reason)))
        });
        match incomplete {
            Ok(None) => {}
            // The run directory is still there, so the sweep finds the run.
            Ok(Some(reason)) => report::left_to_sweep(&reason),
            Err(error) => report::left_to_sweep(&error),
        }
    }
}

/// Releases the databases of a retry's earlier attempts. On the slow path each attempt has a standalone run. If an attempt was killed, the
/// next sweep would keep its database.
fn release_attempts_of_dead_runs(runtime: &Runtime, retry: &Claimant) -> Result<(), RunDirError> {
    let gate = runtime.gate()?;
    let runs = runtime.runs().into_iter().map(|run| runtime.run_path(&run));
    for dead in runs.filter_map(|path| RunDir::fence(&gate, &path).ok()?) {
        clone::release_earlier_attempts(dead.entries(), retry);
    }
    Ok(())
}

/// Waits for the slots of a standalone run: one for the administrative session, and those of the first lease.
async fn enqueue(
    ledger: &Ledger,
    config: &Config,
    connections: Option<u32>,
) -> Result<QueueEntry, TestDbError> {
    let cores = platform::cores();
    slots::wait(ledger, |limit, queued| {
        let share = limit.share(cores.max(queued), config.pool.max_connections);
        1 + connections.unwrap_or(share)
    })
    .await
}
