//! The keeper: the run's background process. It holds the run lock, keeps clones ready, drops what tests gave back, preserves what
//! failed, and ends the run when nextest has ended, because nextest has no teardown.
//!
//! One session holds the locks and is verified after every wake; up to three others work, and are closed when there is nothing
//! to do. What a crash leaves: the test processes' flocks keep the run alive, helpers clone and drop by themselves, and the next
//! sweep removes the rest.

mod hands;
mod plan;

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use self::hands::Done;
use self::plan::{Job, View, plan};
use super::budget::Budget;
use super::locks::{Locks, VERIFY};
use super::spawn::KeeperOrder;
use super::teardown::{End, Ending, STRAGGLERS};
use super::{RunError, clone};
use crate::name::{DbName, Kind};
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::platform::{self, DirWatch, ProcessWatch};
use crate::run_dir::{Folder, RunDir, RunFile, Runtime};
use crate::sweep;

/// Sessions that work at once, besides the one that holds the locks and the spare one, which warms clones or sweeps.
const HANDS: usize = 2;
/// What a connect takes on a busy machine.
const CLAIMANTS_FIRST: Duration = Duration::from_millis(10);
/// How long idle hands stay connected.
const IDLE: Duration = Duration::from_secs(2);
/// The longest life of a keeper that has nobody to watch.
const LIFE: Duration = Duration::from_secs(3600);
/// How long the teardown waits for test processes that outlive nextest.
const LINGER: Duration = Duration::from_secs(600);

struct Keeper {
    runtime: Runtime,
    dir: RunDir,
    file: RunFile,
    locks: Locks,
    templates: usize,
    /// Tests that use a database at the same time.
    at_once: usize,
    idle: Vec<Admin>,
    busy: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    jobs: Vec<Job>,
    demand: bool,
    /// Databases that would not go away: left to the teardown, not tried again in a hot loop.
    stuck: HashSet<DbName>,
    failures: u32,
    /// Whether to make databases: not after the server has refused one for a reason that stays, until it has dropped one.
    making: bool,
    budget: Budget,
    /// The session that is not a hand's.
    spare: Arc<Semaphore>,
    /// Whether the log says already that there is too little room.
    complained: bool,
}

/// Why the keeper's working life ended.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    WatchedProcessEnded,
    Told,
    TooOld,
    Fenced,
}

/// Lives a keeper's life.
///
/// # Errors
/// The run directory or the server cannot be used at all.
pub async fn keep(order: &KeeperOrder) -> Result<End, RunError> {
    // First of all: who tells us to end this early must not kill us instead.
    let mut told = signal(SignalKind::terminate()).map_err(RunError::Keeper)?;
    let lock = platform::inherit(order.lock_fd).map_err(RunError::Keeper)?;
    let _keeper_lock: File = platform::inherit(order.keeper_fd).map_err(RunError::Keeper)?;
    let dir = RunDir::inherit(&order.dir, lock);
    let file = dir.read()?;
    dir.set_keeper_pid(std::process::id())?;
    let runtime = Runtime::open()?;
    let mut admin = clone::admin(&file, "keeper", Patience::RUNNING).await?;
    let budget = Budget::measure(&mut admin, &file).await;
    let at_once = at_once(file.threads);
    let mut keeper = Keeper {
        runtime,
        dir,
        file,
        locks: Locks::on(admin),
        templates: order.templates,
        at_once,
        idle: Vec::new(),
        busy: FuturesUnordered::new(),
        jobs: Vec::new(),
        demand: false,
        stuck: HashSet::new(),
        failures: 0,
        making: true,
        budget,
        spare: Arc::new(Semaphore::new(1)),
        complained: false,
    };
    let stop = keeper.work(order.watch.as_ref(), &mut told).await;
    tracing::info!(?stop, "the working life ends");
    if stop == Stop::Fenced {
        return Ok(End::FencedOff);
    }
    let patience = if stop == Stop::Told {
        STRAGGLERS
    } else {
        LINGER
    };
    keeper.end(patience, told).await
}

impl Keeper {
    async fn work(&mut self, watched: Option<&platform::ProcessId>, told: &mut Signal) -> Stop {
        let root = self.dir.path().to_path_buf();
        let folders = Folder::ALL.map(|folder| root.join(folder.as_str()));
        let mut watch_list: Vec<_> = folders.iter().map(std::path::PathBuf::as_path).collect();
        watch_list.push(&root);
        let templates = self.dir.templates_folder();
        watch_list.push(&templates);
        let dirs = DirWatch::open(&watch_list);
        let process = watched.map(ProcessWatch::open);
        let begun = Instant::now();
        let (runtime, file) = (self.runtime.clone(), self.file.clone());
        let spare = self.spare.clone();
        let mut sweep = std::pin::pin!(async {
            let _session = spare.acquire().await;
            sweep::sweep_for_run(&runtime, &file).await
        });
        // First what tests may wait for, then what the dead left.
        let mut sweeping = false;
        let mut swept = false;
        loop {
            if !self.locks.verify().await {
                self.idle.clear();
                if !self.locks.take_back(&self.dir, &self.file).await {
                    return Stop::Fenced;
                }
            }
            self.locks.hold_templates(&self.dir).await;
            self.assign();
            sweeping |= self.jobs.is_empty();
            let pause = if self.busy.is_empty() && !self.idle.is_empty() {
                IDLE
            } else {
                VERIFY
            };
            tokio::select! {
                () = ended(process.as_ref()) => return Stop::WatchedProcessEnded,
                _ = told.recv() => return Stop::Told,
                Some(done) = self.busy.next() => self.finished(done),
                () = dirs.changed() => self.let_claimants_connect().await,
                result = &mut sweep, if sweeping && !swept => {
                    swept = true;
                    match result {
                        Ok(report) => tracing::info!("{report}"),
                        Err(error) => tracing::warn!("the sweep failed: {error}"),
                    }
                }
                () = tokio::time::sleep(pause) => self.rest().await,
            }
            if watched.is_none() && begun.elapsed() > LIFE {
                return Stop::TooOld;
            }
        }
    }

    fn view(&mut self) -> View {
        let waiting = |folder| -> Vec<DbName> {
            let mut names = self.dir.list(folder);
            names.retain(|name| {
                name.run() == Some(&self.file.run)
                    && !self.stuck.contains(name)
                    && !self.jobs.contains(&Job::Drop(name.clone()))
                    && !self.jobs.contains(&Job::Preserve(name.clone()))
            });
            names
        };
        // In this order: where a retry has given its database back, its earlier attempts are seen to be over.
        let released = waiting(Folder::Released);
        for name in self
            .dir
            .entries()
            .settle_abandoned(self.fate_of_abandoned())
        {
            tracing::info!("the claimant of `{name}` has died");
        }
        let leased = self.dir.list(Folder::Leased);
        let failed = waiting(Folder::Failed);
        self.demand |= !failed.is_empty()
            || !leased.is_empty()
            || released.iter().any(|name| name.kind() == Kind::Clone);
        let ready = self.dir.list(Folder::Ready).len();
        let existing = ready + leased.len() + released.len() + failed.len() + 1;
        let preserving = self.jobs.iter().any(|j| matches!(j, Job::Preserve(_)));
        let settled = |name: &&DbName| !self.is_undecided(name, preserving || !failed.is_empty());
        let released: Vec<DbName> = released
            .iter()
            .filter(settled)
            .take(HANDS)
            .cloned()
            .collect();
        let room = self.budget.room(existing);
        if room == 0 && !self.complained {
            tracing::warn!("{}", self.budget.complaint());
            self.complained = true;
        }
        View {
            ready,
            room: if self.making { room } else { 0 },
            creating: self.jobs.iter().filter(|j| **j == Job::Create).count(),
            released,
            dropping: self
                .jobs
                .iter()
                .filter(|j| matches!(j, Job::Drop(_)))
                .count(),
            failed,
            demand: self.demand,
            shared: !self.making || self.dir.shared().is_some() || self.jobs.contains(&Job::Shared),
            threads: self.at_once,
            free: HANDS.saturating_sub(self.busy.len()),
        }
    }

    /// Whoever ends without giving its database back was killed, or has ended itself: its test has failed.
    fn fate_of_abandoned(&self) -> Folder {
        if self.file.keep.failed {
            Folder::Failed
        } else {
            Folder::Released
        }
    }

    /// Whether a database that was given back must wait, because it is a retry's: not until its process has ended without failing
    /// has the test passed, and not until its earlier attempts' databases have their kept names can they be told.
    fn is_undecided(&self, name: &DbName, preserving: bool) -> bool {
        let entries = self.dir.entries();
        let claimant = entries.claimant(Folder::Released, name);
        self.file.keep.failed
            && claimant.is_some_and(|c| c.is_retry())
            && (preserving || entries.is_held(Folder::Released, name))
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
            let spare = self.spare.clone();
            let delay = crate::pg::error::backoff(self.failures) * u32::from(self.failures > 0);
            self.busy.push(Box::pin(async move {
                tokio::time::sleep(delay).await;
                let dir = match RunDir::join(&dir) {
                    Ok(dir) => dir,
                    Err(error) => {
                        return Done {
                            job,
                            admin,
                            result: Err(error.into()),
                        };
                    }
                };
                hands::work(job, admin, &dir, &file, &spare).await
            }));
        }
    }

    fn finished(&mut self, done: Done) {
        if let Some(at) = self.jobs.iter().position(|j| *j == done.job) {
            self.jobs.swap_remove(at);
        }
        self.idle.extend(done.admin);
        match (done.result, done.job) {
            (Ok(Some(name)), Job::Create) => {
                self.failures = 0;
                if let Err(error) = self.dir.offer(&name) {
                    tracing::warn!("{error}");
                }
            }
            (Ok(_), job) => {
                self.failures = 0;
                self.making |= matches!(job, Job::Drop(_));
            }
            (Err(error), Job::Drop(name) | Job::Preserve(name)) if hands::is_lasting(&error) => {
                tracing::warn!("`{name}` is left to the teardown: {error}");
                self.stuck.insert(name);
            }
            (Err(error), Job::Create | Job::Shared) if hands::ends_making(&error) => {
                tracing::warn!("no databases are made ahead until one was dropped: {error}");
                self.making = false;
            }
            (Err(error), _) => {
                tracing::warn!("{error}");
                self.failures += 1;
            }
        }
    }

    /// A test that has just claimed connects next. Where others find clones ready meanwhile, making the next one can wait for that
    /// moment: on a small machine it would take the core that the test is on.
    async fn let_claimants_connect(&self) {
        if self.busy.is_empty() && !self.dir.list(Folder::Ready).is_empty() {
            tokio::time::sleep(CLAIMANTS_FIRST).await;
        }
    }

    async fn rest(&mut self) {
        if self.busy.is_empty() {
            for admin in self.idle.drain(..) {
                admin.close().await;
            }
        }
    }

    /// Finishes what is being done, and ends the run.
    async fn end(mut self, patience: Duration, told: Signal) -> Result<End, RunError> {
        while let Some(done) = self.busy.next().await {
            self.finished(done);
        }
        self.rest().await;
        let end = Ending {
            runtime: self.runtime,
            dir: self.dir,
            file: self.file,
            locks: self.locks,
            templates: self.templates,
            hurry: Some(told),
        };
        end.run(patience).await
    }
}

async fn ended(process: Option<&Option<ProcessWatch>>) {
    match process {
        None => std::future::pending().await,
        Some(None) => {}
        Some(Some(watch)) => watch.ended().await,
    }
}

/// How many of the tests use a database at the same time: where there are many more threads than cores, most wait for a core, and
/// clones that are made for them take it from the others.
fn at_once(threads: usize) -> usize {
    threads.min(2 * platform::cores())
}
