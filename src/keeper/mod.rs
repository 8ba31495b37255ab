//! The keeper: the run's background process. It holds the run lock, keeps clones ready, drops released clones, and preserves the clones of failed
//! tests. nextest has no teardown, so the keeper ends the run when nextest has ended.
//!
//! One session holds the locks and is verified after every wake. The workers and the extra session are closed when there is nothing to do. After a
//! crash of the keeper, the `flock`s of the test processes keep the run alive, helpers create and drop clones themselves, and the next sweep removes
//! the rest.

pub mod disk_budget;
pub mod locks;
pub mod plan;
pub mod spawn;
mod supply;
pub mod teardown;
mod workers;

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use kapsel_testdb_core::connections::PER_KEEPER;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::error::backoff;
use kapsel_testdb_core::platform::{self, DirWatch, ProcessWatch};
use kapsel_testdb_core::protocol::{DbName, EntryState, Kind, Noticed, RunDir, RunFile, Runtime};
use kapsel_testdb_core::run::spares::Legacy;
use kapsel_testdb_core::run::{RunError, clone};

use self::disk_budget::Budget;
use self::locks::{Locks, VERIFY_INTERVAL};
use self::plan::{Demand, Job, View, concurrent_tests, plan};
use self::spawn::KeeperOrder;
use self::supply::Supply;
use self::teardown::{TERMINATE_TIMEOUT, Teardown, TeardownOutcome};
use self::workers::{Done, FinishedJob};
use crate::sweep;

/// Number of workers: the sessions that the connection budget allows a keeper, minus the session that holds the locks and the extra session.
const WORKERS: usize = PER_KEEPER as usize - 2;
/// The time that a connect takes on a busy machine.
const CLAIMANT_HEAD_START: Duration = Duration::from_millis(10);
/// How long idle workers stay connected.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest life of a keeper without a process to watch.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// How long the teardown waits for test processes that outlive nextest.
const LAST_TESTS_TIMEOUT: Duration = Duration::from_secs(600);

struct Keeper {
    runtime: Runtime,
    dir: RunDir,
    file: RunFile,
    locks: Locks,
    templates: usize,
    /// Tests that use a database at the same time.
    concurrent_tests: usize,
    idle: Vec<Admin>,
    busy: FuturesUnordered<LocalBoxFuture<'static, FinishedJob>>,
    jobs: Vec<Job>,
    /// Clones that tests have claimed.
    claimed: HashSet<DbName>,
    /// The most clones that were in use at the same time.
    peak: usize,
    /// How many clones the last run used at the same time.
    last_run: usize,
    /// Whether there may be spares.
    spares: bool,
    /// Databases that could not be dropped or preserved. They are left to the teardown, to avoid a loop of retries.
    stuck: HashSet<DbName>,
    /// Released databases that are not used again and not dropped yet.
    unfit: HashSet<DbName>,
    failures: u32,
    /// Whether to create databases. False after the server refused one for a permanent reason, until a database was dropped.
    may_create: bool,
    supply: Supply,
    budget: Budget,
    /// The session that warms clones, inspects shared clones, or sweeps.
    extra: Arc<Semaphore>,
    /// Whether the lack of disk space was logged.
    warned_of_space: bool,
}

/// Why the keeper stops its work.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    WatchedProcessEnded,
    Terminated,
    LifetimeOver,
    Fenced,
}

/// Runs the keeper until the end of the run.
///
/// # Errors
/// The run directory or the server is not usable.
pub async fn keep(order: &KeeperOrder) -> Result<TeardownOutcome, RunError> {
    // First, because SIGTERM before this line would kill the process.
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Keeper)?;
    let lock = platform::inherit(order.lock_fd).map_err(RunError::Keeper)?;
    let _keeper_lock: File = platform::inherit(order.keeper_fd).map_err(RunError::Keeper)?;
    let dir = RunDir::inherit(&order.dir, lock);
    let file = dir.read()?;
    dir.set_keeper_pid(std::process::id())?;
    let runtime = Runtime::open()?;
    let mut admin = clone::admin(&file, "keeper", RetryLimits::RUNNING).await?;
    let budget = Budget::measure(&mut admin, &file).await;
    let concurrent_tests = concurrent_tests(file.threads);
    let recycles = file.recycle.is_some();
    let mut keeper = Keeper {
        runtime,
        dir,
        file,
        locks: Locks::new(admin),
        templates: order.templates,
        concurrent_tests,
        idle: Vec::new(),
        busy: FuturesUnordered::new(),
        jobs: Vec::new(),
        claimed: HashSet::new(),
        peak: 0,
        last_run: order.demand,
        spares: recycles,
        stuck: HashSet::new(),
        unfit: HashSet::new(),
        failures: 0,
        may_create: true,
        supply: Supply::default(),
        budget,
        extra: Arc::new(Semaphore::new(1)),
        warned_of_space: false,
    };
    let stop = keeper.work(order, &mut terminate).await;
    tracing::info!(?stop, "the keeper stops its work");
    if stop == Stop::Fenced {
        return Ok(TeardownOutcome::FencedOff);
    }
    let timeout = if stop == Stop::Terminated {
        TERMINATE_TIMEOUT
    } else {
        LAST_TESTS_TIMEOUT
    };
    keeper.end(timeout, terminate).await
}

impl Keeper {
    async fn work(&mut self, order: &KeeperOrder, terminate: &mut Signal) -> Stop {
        let watched = order.watch.as_ref();
        let entries = EntryState::ALL.map(|state| self.dir.entries_dir(state));
        let mut watch_list: Vec<_> = entries.iter().map(std::path::PathBuf::as_path).collect();
        let templates = self.dir.templates_dir();
        watch_list.push(&templates);
        let dirs = DirWatch::open(&watch_list);
        let process = watched.map(ProcessWatch::open);
        let started = Instant::now();
        let (runtime, file) = (self.runtime.clone(), self.file.clone());
        let extra = self.extra.clone();
        let mut sweep = std::pin::pin!(async {
            let _session = extra.acquire().await;
            sweep::sweep_for_run(&runtime, &file, order.others).await
        });
        // The sweep begins after the first moment without work, so that tests do not wait for it.
        let mut sweeping = false;
        let mut swept = false;
        loop {
            if !self.locks.verify().await {
                self.idle.clear();
                if !self.locks.reacquire(&self.dir, &self.file).await {
                    return Stop::Fenced;
                }
            }
            self.locks.hold_templates(&self.dir).await;
            self.assign();
            sweeping |= self.jobs.is_empty();
            let pause = if self.busy.is_empty() && !self.idle.is_empty() {
                IDLE_TIMEOUT
            } else {
                VERIFY_INTERVAL
            };
            tokio::select! {
                () = wait_for_end(process.as_ref()) => return Stop::WatchedProcessEnded,
                _ = terminate.recv() => return Stop::Terminated,
                Some(done) = self.busy.next() => self.finish_job(done),
                () = dirs.changed() => self.give_claimants_head_start().await,
                result = &mut sweep, if sweeping && !swept => {
                    swept = true;
                    match result {
                        Ok(report) => tracing::info!("{report}"),
                        Err(error) => tracing::warn!("failed to sweep: {error}"),
                    }
                }
                () = tokio::time::sleep(pause) => self.close_idle().await,
            }
            if watched.is_none() && started.elapsed() > MAX_LIFETIME {
                return Stop::LifetimeOver;
            }
        }
    }

    fn view(&mut self) -> View {
        let assigned = |name: &DbName| self.jobs.iter().any(|job| job.database() == Some(name));
        let unassigned = |state| -> Vec<DbName> {
            let mut names = self.dir.list(state);
            names.retain(|name| {
                name.run() == Some(&self.file.run)
                    && !self.stuck.contains(name)
                    && !self.unfit.contains(name)
                    && !assigned(name)
            });
            names
        };
        // Before the abandoned ones: if a released database of a retry is listed here, the end of its earlier attempts is noticed below.
        let released = unassigned(EntryState::Released);
        let to = self.state_for_abandoned();
        for name in self.dir.entries().move_abandoned(to, Noticed::AtOnce) {
            tracing::info!("the claimant of `{name}` died");
        }
        let leased = self.dir.list(EntryState::Leased);
        let failed = unassigned(EntryState::Failed);
        let clones = |names: &[DbName]| -> Vec<DbName> {
            let clones = names.iter().filter(|name| name.kind() == Kind::Clone);
            clones.cloned().collect()
        };
        for names in [&leased, &released, &failed] {
            self.claimed.extend(clones(names));
        }
        self.peak = self.peak.max(leased.len() + clones(&released).len());
        let ready = self.dir.list(EntryState::Ready).len();
        let existing = ready + leased.len() + released.len() + self.unfit.len() + failed.len() + 1;
        let preserving = self.jobs.iter().any(|j| matches!(j, Job::Preserve(_)));
        let waiting = released.len();
        let settled = |name: &&DbName| !self.must_wait(name, preserving || !failed.is_empty());
        let released: Vec<DbName> = released
            .iter()
            .filter(settled)
            .take(WORKERS)
            .cloned()
            .collect();
        let room = self.budget.room(existing);
        if room == 0 && !self.warned_of_space {
            tracing::warn!("{}", self.budget.warning());
            self.warned_of_space = true;
        }
        let coming = self.jobs.iter().map(|job| match job {
            Job::Create => 1,
            Job::Adopt(count) => *count,
            Job::Preserve(_) | Job::Settle(_) | Job::Drop(_) => 0,
        });
        let is_settling = |job: &&Job| matches!(job, Job::Settle(_));
        let is_slow = |job: &&Job| matches!(job, Job::Create | Job::Drop(_));
        let slow = self.jobs.iter().filter(is_slow).count();
        let unfit = self.unfit.iter().filter(|name| !assigned(name)).cloned();
        View {
            ready,
            room: match self.may_create {
                true => self.supply.limit(room, Instant::now()),
                false => 0,
            },
            coming: coming.sum(),
            released,
            waiting,
            settling: self.jobs.iter().filter(is_settling).count(),
            unfit: unfit.collect(),
            failed,
            demand: Demand {
                claims: self.claimed.len(),
                last_run: self.last_run,
            },
            spares: self.spares,
            threads: self.concurrent_tests,
            free: WORKERS.saturating_sub(self.busy.len()),
            slow: (WORKERS - usize::from(self.file.recycle.is_some())).saturating_sub(slow),
        }
    }

    /// A process that ends without releasing its database was killed or aborted, so its test has failed.
    fn state_for_abandoned(&self) -> EntryState {
        if self.file.keep.failed {
            EntryState::Failed
        } else {
            EntryState::Released
        }
    }

    /// Whether the drop of a released database must wait because its claimant is a retry. The test has passed only when the process of the retry has
    /// ended without a failure, and its earlier attempts can be found only when their databases have their kept names.
    fn must_wait(&self, name: &DbName, preserving: bool) -> bool {
        let entries = self.dir.entries();
        let claimant = entries.claimant(EntryState::Released, name);
        self.file.keep.failed
            && claimant.is_some_and(|c| c.is_retry())
            && (preserving || entries.is_held(EntryState::Released, name))
    }

    fn assign(&mut self) {
        if self.failures > 0 && !self.busy.is_empty() {
            return;
        }
        let view = self.view();
        for job in plan(&view) {
            self.jobs.push(job.clone());
            let admin = self.idle.pop();
            let (dir, file) = (self.dir.path().to_path_buf(), self.file.clone());
            let extra = self.extra.clone();
            let delay = backoff(self.failures) * u32::from(self.failures > 0);
            self.busy.push(Box::pin(async move {
                tokio::time::sleep(delay).await;
                let dir = match RunDir::join(&dir) {
                    Ok(dir) => dir,
                    Err(error) => {
                        return FinishedJob {
                            job,
                            admin,
                            result: Err(error.into()),
                        };
                    }
                };
                workers::work(job, admin, &dir, &file, &extra).await
            }));
        }
    }

    fn finish_job(&mut self, done: FinishedJob) {
        if let Some(index) = self.jobs.iter().position(|j| *j == done.job) {
            self.jobs.swap_remove(index);
        }
        self.idle.extend(done.admin);
        match (done.result, done.job) {
            (Ok(result), job) => {
                self.failures = 0;
                self.may_create |= result == Done::Settled;
                match (result, job) {
                    (Done::Adopted(adopted), Job::Adopt(wanted)) => {
                        self.spares = adopted == wanted;
                        self.supply.succeeded();
                    }
                    (_, Job::Create) => self.supply.succeeded(),
                    (Done::Unfit, Job::Settle(name)) => drop(self.unfit.insert(name)),
                    (_, Job::Drop(name) | Job::Settle(name)) => {
                        self.unfit.remove(&name);
                        self.forget(EntryState::Released, name);
                    }
                    (_, Job::Preserve(name)) => self.forget(EntryState::Failed, name),
                    _ => {}
                }
            }
            (Err(RunError::RunDir(error)), Job::Create | Job::Adopt(_)) => {
                tracing::info!("dropped a database that got no entry: {error}");
                if self.supply.failed(Instant::now()) {
                    tracing::warn!("{}", supply::warning(self.dir.path(), &error));
                }
            }
            (Err(error), Job::Settle(name) | Job::Preserve(name) | Job::Drop(name))
                if workers::is_permanent(&error) =>
            {
                tracing::warn!("left `{name}` to the teardown: {error}");
                self.unfit.remove(&name);
                self.stuck.insert(name);
            }
            (Err(error), Job::Create) if workers::prevents_creation(&error) => {
                tracing::warn!(
                    "failed to create a database ahead of demand; pausing until one was dropped: {error}"
                );
                self.may_create = false;
            }
            (Err(error), _) => {
                tracing::warn!("{error}");
                self.failures += 1;
            }
        }
    }

    /// Leaves a database alone that was handled, if its entry cannot be removed.
    fn forget(&mut self, state: EntryState, name: DbName) {
        if self.dir.entries().has(state, &name) {
            tracing::warn!("failed to remove the entry of `{name}`; left it to the end of the run");
            self.stuck.insert(name);
        }
    }

    /// Waits a moment if clones are ready. A test that has just claimed a clone connects next; on a small machine, creating another clone would take
    /// its core.
    async fn give_claimants_head_start(&self) {
        if self.busy.is_empty() && !self.dir.list(EntryState::Ready).is_empty() {
            tokio::time::sleep(CLAIMANT_HEAD_START).await;
        }
    }

    async fn close_idle(&mut self) {
        if self.busy.is_empty() {
            for admin in self.idle.drain(..) {
                admin.close().await;
            }
        }
    }

    /// Waits for the running jobs, then ends the run. A server that vanished meanwhile is noticed before the jobs reach their limits.
    async fn end(
        mut self,
        timeout: Duration,
        terminate: Signal,
    ) -> Result<TeardownOutcome, RunError> {
        while !self.busy.is_empty() {
            tokio::select! {
                Some(done) = self.busy.next() => self.finish_job(done),
                () = tokio::time::sleep(VERIFY_INTERVAL) => {
                    if !self.locks.verify().await
                        && !self.locks.reacquire(&self.dir, &self.file).await
                    {
                        return Ok(TeardownOutcome::FencedOff);
                    }
                }
            }
        }
        self.close_idle().await;
        let legacy = Legacy {
            clones: self.peak,
            limit: self.budget.limit_spares(self.file.spares),
            visited: None,
        };
        let teardown = Teardown {
            legacy,
            runtime: self.runtime,
            dir: self.dir,
            file: self.file,
            locks: self.locks,
            templates: self.templates,
            terminate: Some(terminate),
        };
        teardown.run(timeout).await
    }
}

async fn wait_for_end(process: Option<&Option<ProcessWatch>>) {
    match process {
        None => std::future::pending().await,
        Some(None) => {}
        Some(Some(watch)) => watch.ended().await,
    }
}
