//! Executes a sweep: takes the fences, checks again under them, drops databases, removes run directories.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::config::{Config, OthersLimits};
use kapsel_testdb_core::env;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::connect::RetryLimits;
use kapsel_testdb_core::pg::databases::DatabaseRow;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::protocol::{
    Daily, DbName, Kind, Namespace, PROTOCOL, Presence, RunDir, RunFile, RunId, RunSummary, Runtime,
};
use kapsel_testdb_core::run::end::{
    self, Ending, Removal, Skipped, drop_rows, of_run, reason_to_skip, rows_of, win_run_lock,
};
use kapsel_testdb_core::run::kept::{self, KeepLimits};
use kapsel_testdb_core::run::spares::Legacy;
use kapsel_testdb_core::run::{RunError, clone};
use kapsel_testdb_core::server::Server;
use kapsel_testdb_core::waiting::waiting;

use crate::sweep::SweepReport;
use crate::sweep::others::collect_others;
use crate::sweep::plan::{Inputs, RunState, Verdict, is_still_quiet, plan};
use crate::sweep::spares::surplus_spares;
use crate::sweep::templates::{Collected, collect_templates};

/// How long a run of another host must stay quiet.
const WATCH_TIME: Duration = Duration::from_secs(30);
/// How often it is checked meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Options of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Report what would be done, but do nothing.
    pub dry_run: bool,
    /// How long to watch quiet runs of other hosts before they count as dead; `None`: skip them.
    pub watch: Option<Duration>,
    /// Drop all spares, not only those that are too many or too old.
    pub spares: bool,
}

impl Options {
    /// The options of the keeper, and of `kapsel-testdb sweep` without flags.
    pub fn full() -> Self {
        let seconds = std::env::var(env::WATCH_SECS).ok();
        Self {
            dry_run: false,
            watch: Some(
                seconds
                    .and_then(|s| s.parse().ok())
                    .map_or(WATCH_TIME, Duration::from_secs),
            ),
            spares: false,
        }
    }
}

/// A sweep in progress.
struct Sweeper<'a> {
    runtime: &'a Runtime,
    admin: &'a mut Admin,
    address: &'a Address,
    namespace: &'a Namespace,
    keep: KeepLimits,
    /// The most spares per template, if that is configured.
    max_spares: Option<usize>,
    options: Options,
    report: SweepReport,
}

/// Sweeps a server in the foreground. `None`: the managed server is not running; a sweep does not start it.
///
/// # Errors
/// The server cannot be used. Databases that cannot be dropped are in the report instead.
pub async fn sweep(config: &Config, options: Options) -> Result<Option<SweepReport>, RunError> {
    let runtime = Runtime::open()?;
    let Some((server, mut admin)) = Server::find(config, "sweep").await? else {
        return Ok(None);
    };
    let sweeper = Sweeper {
        runtime: &runtime,
        admin: &mut admin,
        address: &server.admin_address,
        namespace: &config.namespace,
        // A user who runs a sweep wants the limits of this configuration.
        keep: KeepLimits::Common(config.keep),
        max_spares: config.spares,
        options,
        report: SweepReport {
            dry_run: options.dry_run,
            ..SweepReport::default()
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
    let (own, limits) = (&config.namespace, config.template.others);
    let others = collect_others(&mut admin, &runtime, own, limits, options.dry_run);
    report.others = report_others(others.await?);
    admin.close().await;
    Ok(Some(report))
}

/// Sweeps for a keeper, in the background of its run. Once a day, also collects what other projects left.
///
/// # Errors
/// The server cannot be used.
pub async fn sweep_for_run(
    runtime: &Runtime,
    file: &RunFile,
    limits: OthersLimits,
) -> Result<SweepReport, RunError> {
    let mut admin = clone::connect(file, "sweep", RetryLimits::RUNNING).await?;
    let mut report = sweep_with(&mut admin, runtime, file, Options::full()).await?;
    let (own, server) = (&file.namespace, file.admin_address().to_string());
    if runtime.is_noted(Daily::Collection, own, &server) {
        admin.close().await;
        return Ok(report);
    }
    runtime.note(Daily::Collection, own, &server)?;
    let others = collect_others(&mut admin, runtime, own, limits, false).await?;
    admin.close().await;
    report.others = report_others(others);
    if let Some(line) = report.others_line() {
        runtime.add_notice(own, &line)?;
    }
    Ok(report)
}

/// What could not be dropped is not the fault of this project.
fn report_others(others: Collected) -> Vec<DbName> {
    for skipped in others.skipped {
        tracing::info!("did not drop `{}`: {}", skipped.name, skipped.reason);
    }
    others.dropped
}

/// Sweeps dead runs of this host only; does not watch runs of other hosts. The session is that of a living run: a new one would cost as much as the sweep.
///
/// # Errors
/// The server cannot be used.
pub async fn sweep_local(
    admin: &mut Admin,
    runtime: &Runtime,
    file: &RunFile,
) -> Result<SweepReport, RunError> {
    let options = Options {
        dry_run: false,
        watch: None,
        spares: false,
    };
    sweep_with(admin, runtime, file, options).await
}

async fn sweep_with(
    admin: &mut Admin,
    runtime: &Runtime,
    file: &RunFile,
    options: Options,
) -> Result<SweepReport, RunError> {
    let sweeper = Sweeper {
        runtime,
        admin,
        address: file.admin_address(),
        namespace: &file.namespace,
        keep: KeepLimits::OfItsRun(file.keep),
        max_spares: (file.spares == 0).then_some(0),
        options,
        report: SweepReport::default(),
    };
    sweeper.run().await
}

impl Sweeper<'_> {
    async fn run(mut self) -> Result<SweepReport, RunError> {
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
                Verdict::Alive | Verdict::InUseElsewhere => self.report.live_runs.push(state.run),
                Verdict::Quiet => quiet.push(state),
                Verdict::DeadHere if self.options.dry_run => {
                    self.plan_removal(state, &databases);
                }
                Verdict::DeadHere => self.remove_local(&state).await?,
            }
        }
        self.drop_spares(&databases).await?;
        self.drop_expired(plan.expired, databases).await?;
        self.watch_quiet(quiet).await?;
        Ok(self.report)
    }

    /// The run directories of this host that belong to this server and namespace, or have no `run.json`. A run with databases here belongs
    /// to this server, however its address is spelled, and whatever version of the protocol its `run.json` has.
    fn directories(
        &self,
        databases: &[DatabaseRow],
    ) -> Result<BTreeMap<RunId, Presence>, RunError> {
        let gate = self.runtime.gate()?;
        let has_databases = |run: &RunId| databases.iter().any(|row| row.name.run() == Some(run));
        let ours = |run: &RunId| match RunSummary::read(&self.runtime.run_path(run)) {
            None => true,
            Some(RunSummary {
                namespace: Some(namespace),
                ..
            }) if namespace != *self.namespace => false,
            Some(RunSummary {
                namespace: Some(_),
                address: Some(address),
                ..
            }) if address.is_same_server(self.address) => true,
            Some(_) => has_databases(run),
        };
        let runs = self.runtime.runs().into_iter().filter(ours);
        let present = |run: RunId| (run.clone(), self.runtime.presence(&gate, &run));
        Ok(runs.map(present).collect())
    }

    /// Watches quiet runs of other hosts and removes those that stay quiet. All checks, the fence and the drops use one session. If it
    /// breaks, the sweep ends, because the same cause may have ended the sessions and locks of live runs.
    async fn watch_quiet(&mut self, mut quiet: Vec<RunState>) -> Result<(), RunError> {
        if quiet.is_empty() {
            return Ok(());
        }
        let before = self.admin.databases(self.namespace).await?;
        let begun = Instant::now();
        let _waiting = waiting(
            format_args!("{} quiet runs of other hosts to show activity", quiet.len()),
            self.options.watch,
        );
        let mut watched = false;
        while !watched && !quiet.is_empty() {
            let now = self.admin.databases(self.namespace).await?;
            let mut still = Vec::new();
            for state in quiet {
                let (before, now) = (of_run(&before, &state.run), of_run(&now, &state.run));
                if is_still_quiet(&before, &now) && !self.is_locked(&state.run).await? {
                    still.push(state);
                } else {
                    self.report.live_runs.push(state.run);
                }
            }
            quiet = still;
            match self.options.watch {
                Some(watch) if !self.options.dry_run => watched = begun.elapsed() >= watch,
                _ => {
                    let runs = quiet.drain(..).map(|state| state.run);
                    self.report.unconfirmed_runs.extend(runs);
                }
            }
            if !watched && !quiet.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        for state in quiet {
            let before = of_run(&before, &state.run);
            self.remove_remote(&state, &before).await?;
        }
        Ok(())
    }

    /// Whether a session holds the run lock. Does not take the lock, which could fence off a keeper that is reconnecting; the drop itself
    /// holds the lock.
    async fn is_locked(&mut self, run: &RunId) -> Result<bool, RunError> {
        let key = LockKey::run(self.namespace, run);
        Ok(!self.admin.lock_holders(key).await?.is_empty())
    }

    async fn remove_local(&mut self, state: &RunState) -> Result<(), RunError> {
        let fence = {
            let gate = self.runtime.gate()?;
            RunDir::fence(&gate, &self.runtime.run_path(&state.run))?
        };
        let Some(dead) = fence else {
            self.report.live_runs.push(state.run.clone());
            return Ok(());
        };
        if !win_run_lock(self.admin, self.namespace, &state.run).await? {
            self.report.live_runs.push(state.run.clone());
            return Ok(());
        }
        // Clones without visitors may become spares, as at the end of a live run.
        let file = RunDir::peek(dead.path()).filter(|file| file.protocol == PROTOCOL);
        let ending = Ending {
            force: false,
            legacy: file.as_ref().map(|file| (file, Legacy::of(file))),
        };
        let (runtime, namespace) = (self.runtime, self.namespace);
        let removal = end::remove(self.admin, runtime, namespace, &state.run, dead, ending);
        let removal = removal.await;
        let key = LockKey::run(self.namespace, &state.run);
        self.admin.unlock(key).await?;
        let Removal { kept, skipped, .. } = removal?;
        self.report_dropped(state, &kept, &skipped);
        self.report.kept.extend(kept);
        if skipped.is_empty() {
            self.report.run_directories.push(state.run.clone());
        }
        self.report.skipped.extend(skipped);
        Ok(())
    }

    async fn remove_remote(
        &mut self,
        state: &RunState,
        before: &[DatabaseRow],
    ) -> Result<(), RunError> {
        let key = LockKey::run(self.namespace, &state.run);
        if !self.admin.try_lock(key).await? {
            self.report.live_runs.push(state.run.clone());
            return Ok(());
        }
        let skipped = self.drop_quiet(state, before).await;
        self.admin.unlock(key).await?;
        let skipped = skipped?;
        self.report_dropped(state, &[], &skipped);
        self.report.skipped.extend(skipped);
        Ok(())
    }

    /// Checks again under the fence before each drop, because a test takes a lease without asking the server.
    async fn drop_quiet(
        &mut self,
        state: &RunState,
        before: &[DatabaseRow],
    ) -> Result<Vec<Skipped>, RunError> {
        let mut skipped = Vec::new();
        for row in before {
            let now = rows_of(self.admin, self.namespace, &state.run).await?;
            if !is_still_quiet(before, &now) {
                let reason = "its run became active again".to_owned();
                let left = now.into_iter().map(|row| row.name);
                skipped.extend(left.map(|name| Skipped {
                    name,
                    reason: reason.clone(),
                }));
                self.report.live_runs.push(state.run.clone());
                break;
            }
            skipped.extend(drop_rows(self.admin, vec![row.clone()], false).await?);
        }
        Ok(skipped)
    }

    fn report_dropped(&mut self, state: &RunState, kept: &[DbName], skipped: &[Skipped]) {
        let gone = |name: &&DbName| {
            skipped.iter().all(|s| s.name != **name) && !kept.contains(&name.with_kind(Kind::Kept))
        };
        let dropped = state.databases.iter().filter(gone).cloned();
        self.report.dropped.extend(dropped);
    }

    /// Reports what [`Self::remove_local`] would do.
    fn plan_removal(&mut self, state: RunState, databases: &[DatabaseRow]) {
        let failed = RunDir::databases_to_keep(&self.runtime.run_path(&state.run));
        let rows = databases
            .iter()
            .filter(|row| state.databases.contains(&row.name));
        let (kept, dropped): (Vec<_>, Vec<_>) =
            rows.cloned().partition(|row| failed.contains(&row.name));
        let kept = kept.iter().map(|row| row.name.with_kind(Kind::Kept));
        self.report.kept.extend(kept);
        let before = self.report.skipped.len();
        self.plan_drop(dropped);
        if self.report.skipped.len() == before {
            self.report.run_directories.push(state.run);
        }
    }

    /// Reports what a drop of these databases would do.
    fn plan_drop(&mut self, rows: Vec<DatabaseRow>) {
        for row in rows {
            match reason_to_skip(&row, false) {
                None => self.report.dropped.push(row.name),
                Some(reason) => {
                    let name = row.name;
                    self.report.skipped.push(Skipped { name, reason });
                }
            }
        }
    }

    /// Drops spares that no run should adopt. A run that adopts one meanwhile has renamed it: then the DROP finds nothing.
    async fn drop_spares(&mut self, databases: &[DatabaseRow]) -> Result<(), RunError> {
        let max = if self.options.spares {
            Some(0)
        } else {
            self.max_spares
        };
        self.drop_and_report(surplus_spares(databases, max, SystemTime::now()))
            .await
    }

    /// Drops kept databases beyond the limits. Databases that this sweep preserved count, too.
    async fn drop_expired(
        &mut self,
        mut names: Vec<DbName>,
        mut databases: Vec<DatabaseRow>,
    ) -> Result<(), RunError> {
        if !self.options.dry_run && !self.report.kept.is_empty() {
            databases = self.admin.databases(self.namespace).await?;
            let expired = kept::expired(&databases, self.keep, SystemTime::now());
            names = expired.into_iter().map(|row| row.name.clone()).collect();
        }
        let row = |name: &DbName| databases.iter().find(|row| row.name == *name).cloned();
        self.drop_and_report(names.iter().filter_map(row).collect())
            .await
    }

    /// Drops databases that belong to no run, or only reports them in a dry run.
    async fn drop_and_report(&mut self, rows: Vec<DatabaseRow>) -> Result<(), RunError> {
        if self.options.dry_run {
            self.plan_drop(rows);
            return Ok(());
        }
        let mut collected = Collected::default();
        collected.drop_rows(self.admin, rows).await?;
        self.report.dropped.extend(collected.dropped);
        self.report.skipped.extend(collected.skipped);
        Ok(())
    }
}
