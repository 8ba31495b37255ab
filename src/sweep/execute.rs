//! Carries out a sweep: wins the fences, looks again under them, drops, removes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::drop::{Removal, drop_rows, drop_run, of_run, rows_of};
use super::plan::{Inputs, RunState, Verdict, plan, still_quiet};
use super::templates::collect_templates;
use super::{Report, Skipped};
use crate::config::{Config, KeepConfig};
use crate::env;
use crate::name::{DbName, Kind, Namespace, RunId};
use crate::pg::Address;
use crate::pg::admin::Admin;
use crate::pg::connect::Patience;
use crate::pg::databases::DatabaseRow;
use crate::pg::lock::LockKey;
use crate::run::{RunError, clone, kept};
use crate::run_dir::{Presence, RunDir, RunFile, Runtime};
use crate::server::Server;

/// How long a run of another host must show no sign of life.
const WATCH: Duration = Duration::from_secs(30);
/// How often we look meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// How a sweep is done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// How long to watch quiet runs of other hosts before they count as dead; `None`: leave them.
    pub watch: Option<Duration>,
}

impl Options {
    /// As the keeper sweeps, and `kapsel-testdb sweep` without flags.
    pub fn full() -> Self {
        let seconds = std::env::var(env::WATCH_SECS).ok();
        Self {
            dry_run: false,
            watch: Some(
                seconds
                    .and_then(|s| s.parse().ok())
                    .map_or(WATCH, Duration::from_secs),
            ),
        }
    }
}

/// What a sweep works on.
struct Sweeper<'a> {
    runtime: &'a Runtime,
    admin: &'a mut Admin,
    address: &'a Address,
    namespace: &'a Namespace,
    keep: KeepConfig,
    options: Options,
    report: Report,
}

/// Sweeps a server in the foreground. `None`: the managed server does not run, and a sweep is no reason to start it.
///
/// # Errors
/// The server cannot be used; what cannot be dropped is in the report instead.
pub async fn sweep(config: &Config, options: Options) -> Result<Option<Report>, RunError> {
    let runtime = Runtime::open()?;
    let Some((server, mut admin)) = Server::find(config, "sweep").await? else {
        return Ok(None);
    };
    let sweeper = Sweeper {
        runtime: &runtime,
        admin: &mut admin,
        address: &server.admin_address,
        namespace: &config.namespace,
        keep: config.keep,
        options,
        report: Report {
            dry_run: options.dry_run,
            ..Report::default()
        },
    };
    let mut report = sweeper.run().await?;
    let templates = collect_templates(
        &mut admin,
        &runtime,
        &config.namespace,
        config.template.keep,
        options.dry_run,
    );
    report.dropped.extend(templates.await?);
    admin.close().await;
    Ok(Some(report))
}

/// Sweeps for a keeper, in the background of its run.
///
/// # Errors
/// The server cannot be used.
pub async fn sweep_for_run(runtime: &Runtime, file: &RunFile) -> Result<Report, RunError> {
    sweep_with(runtime, file, Options::full()).await
}

/// Sweeps this host's dead runs only, without watching anybody else's.
///
/// # Errors
/// The server cannot be used.
pub async fn sweep_local(runtime: &Runtime, file: &RunFile) -> Result<Report, RunError> {
    let options = Options {
        dry_run: false,
        watch: None,
    };
    sweep_with(runtime, file, options).await
}

async fn sweep_with(
    runtime: &Runtime,
    file: &RunFile,
    options: Options,
) -> Result<Report, RunError> {
    let mut admin = clone::connect(file, "sweep", Patience::RUNNING).await?;
    let sweeper = Sweeper {
        runtime,
        admin: &mut admin,
        address: file.admin_address(),
        namespace: &file.namespace,
        keep: file.keep,
        options,
        report: Report::default(),
    };
    let report = sweeper.run().await?;
    admin.close().await;
    Ok(report)
}

impl Sweeper<'_> {
    async fn run(mut self) -> Result<Report, RunError> {
        let databases = self.admin.databases(self.namespace).await?;
        let directories = self.directories(&databases)?;
        let plan = plan(&Inputs {
            databases: &databases,
            directories: &directories,
            keep: self.keep,
            now: SystemTime::now(),
        });
        let mut quiet = Vec::new();
        for state in plan.runs {
            match state.verdict {
                Verdict::Alive | Verdict::InUseElsewhere => self.report.alive.push(state.run),
                Verdict::Quiet => quiet.push(state),
                Verdict::DeadHere if self.options.dry_run => {
                    self.foretell(state);
                }
                Verdict::DeadHere => self.remove_here(&state).await?,
            }
        }
        self.drop_expired(plan.expired, databases).await?;
        self.settle_quiet(quiet).await?;
        Ok(self.report)
    }

    /// The run directories of this host that belong to this server and namespace, or came to nothing before they said so. A run
    /// with databases here is this server's, however its address was spelled.
    fn directories(
        &self,
        databases: &[DatabaseRow],
    ) -> Result<BTreeMap<RunId, Presence>, RunError> {
        let _gate = self.runtime.gate()?;
        let ours = |run: &RunId| match RunDir::peek(&self.runtime.run_path(run)) {
            None => true,
            Some(file) => {
                let address = file.admin_address();
                file.namespace == *self.namespace
                    && (address.is_same_server(self.address)
                        || databases.iter().any(|row| row.name.run() == Some(run)))
            }
        };
        let runs = self.runtime.runs().into_iter().filter(ours);
        let present = |run: RunId| (run.clone(), self.runtime.presence(&run));
        Ok(runs.map(present).collect())
    }

    /// Watches quiet runs of other hosts and removes those that stay quiet. All looks, the fence and the drops are on one session:
    /// where it breaks, the sweep ends, because what broke it may have ended the signs of life of the living.
    async fn settle_quiet(&mut self, mut quiet: Vec<RunState>) -> Result<(), RunError> {
        if quiet.is_empty() {
            return Ok(());
        }
        let before = self.admin.databases(self.namespace).await?;
        let begun = Instant::now();
        let mut watched = false;
        while !watched && !quiet.is_empty() {
            let now = self.admin.databases(self.namespace).await?;
            let mut still = Vec::new();
            for state in quiet {
                let (before, now) = (of_run(&before, &state.run), of_run(&now, &state.run));
                if still_quiet(&before, &now) && !self.is_locked(&state.run).await? {
                    still.push(state);
                } else {
                    self.report.alive.push(state.run);
                }
            }
            quiet = still;
            match self.options.watch {
                Some(watch) if !self.options.dry_run => watched = begun.elapsed() >= watch,
                _ => {
                    let runs = quiet.drain(..).map(|state| state.run);
                    self.report.waiting.extend(runs);
                }
            }
            if !watched && !quiet.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
        for state in quiet {
            let before = of_run(&before, &state.run);
            self.remove_elsewhere(&state, &before).await?;
        }
        Ok(())
    }

    /// Whether somebody holds the run lock. Looks without taking it, which could fence off a keeper that is just coming back; what
    /// drops must hold the lock itself.
    async fn is_locked(&mut self, run: &RunId) -> Result<bool, RunError> {
        let key = LockKey::run(self.namespace, run);
        Ok(!self.admin.lock_holders(key).await?.is_empty())
    }

    async fn remove_here(&mut self, state: &RunState) -> Result<(), RunError> {
        let fence = {
            let _gate = self.runtime.gate()?;
            RunDir::fence(&self.runtime.run_path(&state.run))?
        };
        let Some(dead) = fence else {
            self.report.alive.push(state.run.clone());
            return Ok(());
        };
        let key = LockKey::run(self.namespace, &state.run);
        if !self.win(key).await? {
            self.report.alive.push(state.run.clone());
            return Ok(());
        }
        let removal = drop_run(self.admin, self.namespace, &state.run, &dead, false).await;
        self.admin.unlock(key).await?;
        let Removal { kept, skipped } = removal?;
        self.count(state, &kept, &skipped);
        self.report.kept.extend(kept);
        if skipped.is_empty() {
            dead.remove(&self.runtime.gate()?)?;
            self.report.directories.push(state.run.clone());
        }
        self.report.skipped.extend(skipped);
        Ok(())
    }

    /// A killed client's session may need a moment to go.
    async fn win(&mut self, key: LockKey) -> Result<bool, RunError> {
        for _ in 0..50 {
            if self.admin.try_lock(key).await? {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }

    async fn remove_elsewhere(
        &mut self,
        state: &RunState,
        before: &[DatabaseRow],
    ) -> Result<(), RunError> {
        let key = LockKey::run(self.namespace, &state.run);
        if !self.admin.try_lock(key).await? {
            self.report.alive.push(state.run.clone());
            return Ok(());
        }
        let skipped = self.drop_quiet(state, before).await;
        self.admin.unlock(key).await?;
        let skipped = skipped?;
        self.count(state, &[], &skipped);
        self.report.skipped.extend(skipped);
        Ok(())
    }

    /// Looks again under the fence before each drop: a lease is taken without asking the server.
    async fn drop_quiet(
        &mut self,
        state: &RunState,
        before: &[DatabaseRow],
    ) -> Result<Vec<Skipped>, RunError> {
        let mut skipped = Vec::new();
        for row in before {
            let now = rows_of(self.admin, self.namespace, &state.run).await?;
            if !still_quiet(before, &now) {
                let reason = "its run shows a sign of life again; left alone".to_owned();
                let left = now.into_iter().map(|row| row.name);
                skipped.extend(left.map(|name| Skipped {
                    name,
                    reason: reason.clone(),
                }));
                self.report.alive.push(state.run.clone());
                break;
            }
            skipped.extend(drop_rows(self.admin, vec![row.clone()], false).await?);
        }
        Ok(skipped)
    }

    fn count(&mut self, state: &RunState, kept: &[DbName], skipped: &[Skipped]) {
        let gone = |name: &&DbName| {
            skipped.iter().all(|s| s.name != **name) && !kept.contains(&name.with_kind(Kind::Kept))
        };
        let dropped = state.databases.iter().filter(gone).cloned();
        self.report.dropped.extend(dropped);
    }

    /// What [`Self::remove_here`] would do.
    fn foretell(&mut self, state: RunState) {
        let failed = RunDir::to_be_kept(&self.runtime.run_path(&state.run));
        let (kept, dropped): (Vec<_>, Vec<_>) = state
            .databases
            .into_iter()
            .partition(|name| failed.contains(name));
        let kept = kept.iter().map(|name| name.with_kind(Kind::Kept));
        self.report.kept.extend(kept);
        self.report.dropped.extend(dropped);
        self.report.directories.push(state.run);
    }

    /// What was kept just now may have brought others beyond the bounds.
    async fn drop_expired(
        &mut self,
        mut names: Vec<DbName>,
        mut databases: Vec<DatabaseRow>,
    ) -> Result<(), RunError> {
        if self.options.dry_run {
            self.report.dropped.extend(names);
            return Ok(());
        }
        if !self.report.kept.is_empty() {
            databases = self.admin.databases(self.namespace).await?;
            let expired = kept::expired(&databases, self.keep, SystemTime::now());
            names = expired.into_iter().map(|row| row.name.clone()).collect();
        }
        databases.retain(|row| names.contains(&row.name));
        let skipped = drop_rows(self.admin, databases, false).await?;
        names.retain(|name| skipped.iter().all(|s| s.name != *name));
        self.report.dropped.extend(names);
        self.report.skipped.extend(skipped);
        Ok(())
    }
}
