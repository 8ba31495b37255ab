//! A run: one `nextest run`, one `kapsel-testdb run`, or one process on the slow path. Opening a run locates the server, finds or builds the
//! template, and creates the run directory. The keeper does everything that outlives the process that opened the run.
//!
//! The liveness locks come before anything that would need sweeping: first the `flock` of the run directory (exact on this host), then the run lock
//! on the server, then databases. A crash after the first step leaves a directory with a free `flock`; after the third, also databases with the run's
//! id. The next sweep removes both.

pub mod clone;
pub mod end;
pub mod kept;
pub mod lease;
pub mod renew;
pub mod spares;
pub mod templates;

use std::time::SystemTime;

use futures_util::future::join;

use crate::config::Config;
use crate::connections::{self, Keepers};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::protocol::{
    Connections, DbName, Limit, Namespace, PROTOCOL, ResetMethod, RunDir, RunDirError, RunFile,
    RunId, RunKey, Runtime, TemplateBase, TemplateInputs, random_word,
};
use crate::server::{Server, ServerError};
use crate::template::{
    self, BuildEvent, BuildObserver, BuildTarget, Source, Template, TemplateError, TemplatePlan,
};

/// The most spares that the runs of single processes leave. They do not know how many others run at the same time; but a run creates a clone only if it
/// finds no spare, so there are never more than there were runs at the same time.
const STANDALONE_SPARES: usize = 64;

/// Why a run cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The server is not usable.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The template is not usable.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The run directory is not usable.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A statement failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The process that creates the shared clone does not finish.
    #[error(
        "timed out after {} s waiting for another process to create the run's shared clone; if that process is suspended, end it; then run the tests again", .0.as_secs()
    )]
    SharedClone(std::time::Duration),
    /// Another process removes the run.
    #[error("lost run `{0}`: another process is removing its databases; run the tests again")]
    FencedOff(RunId),
    /// The keeper could not be started.
    #[error(
        "failed to start the keeper: {0}; to run without one, use `--no-keeper` or `run.keeper = false`"
    )]
    Keeper(std::io::Error),
}

/// The identity of a run.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// nextest's run id: a second `prepare` with the same one joins the run.
    Nextest(&'a str),
    /// A command; the processes that it starts share the run.
    Command,
    /// One test process.
    Process,
}

/// An open run. The run is alive while this value exists.
#[derive(Debug)]
pub struct OpenRun {
    /// The runtime directory.
    pub runtime: Runtime,
    /// The run directory; its lock is held.
    pub dir: RunDir,
    /// The contents of `run.json`.
    pub file: RunFile,
    /// The server.
    pub server: Server,
    /// The session that holds the run lock and the template's lock.
    pub admin: Admin,
    /// The template.
    pub template: Template,
    /// The connection slots of the server.
    pub limit: Limit,
    /// Whether the run existed already.
    pub joined: bool,
}

impl OpenRun {
    /// Ends the session and removes the directory, unless another process has joined the run.
    pub async fn close(self) {
        self.admin.close().await;
        close(&self.runtime, self.dir);
    }
}

/// Opens a run: server, run directory, locks, template, `run.json`.
///
/// # Errors
/// [`RunError`]. The run directory is removed then, or left to the sweep.
pub async fn open(
    config: &Config,
    identity: Identity<'_>,
    threads: usize,
    observer: &dyn BuildObserver,
) -> Result<OpenRun, RunError> {
    open_beside(None, config, identity, threads, observer).await
}

/// Opens a run for another template of the same test run: both share the connections that the first one reserved.
///
/// # Errors
/// See [`open`].
pub async fn open_beside(
    first: Option<&OpenRun>,
    config: &Config,
    identity: Identity<'_>,
    threads: usize,
    observer: &dyn BuildObserver,
) -> Result<OpenRun, RunError> {
    let runtime = Runtime::open()?;
    // Many files take as long to read as the server to answer.
    let (located, source) = join(Server::locate(config, "run"), Source::read(config)).await;
    let (server, mut admin) = located?;
    if let Some(place) = &server.started {
        observer.event(&BuildEvent::Started {
            version: &server.facts.version(),
            place,
            idle_stop: config.server.idle_stop,
        });
    }
    server.check_version(&config.server)?;
    let template_base = TemplateBase::of(config)?;
    let plan = TemplatePlan::of(source?, &config.namespace, &template_base, &server.facts);
    let (dir, id, joined) = join_or_create(&runtime, &server, &plan.name, identity)?;
    let target = BuildTarget::new(&config.namespace, &template_base, &server);
    let built = template::ensure(&mut admin, target, &plan, &id, observer).await;
    let template = match built {
        Ok(template) => template,
        Err(error) => {
            if !joined {
                close_if_empty(&runtime, dir, &mut admin, &config.namespace, &id).await;
            }
            return Err(error.into());
        }
    };
    // The run of one process has no keeper.
    let opened = match identity {
        Identity::Process => None,
        Identity::Nextest(_) | Identity::Command => Some(&id),
    };
    let (ledger, limit) = connections::update(
        &runtime,
        &server.admin_address,
        &server.facts.sessions,
        opened.map(|id| Keepers {
            of: id,
            more: config.keepers - 1,
        }),
    )?;
    let connections = match opened {
        Some(_) if let Some(first) = first => first.file.connections,
        None => Connections {
            per_process: limit.share(threads, config.pool.max_connections),
            reserved: false,
        },
        Some(id) => connections::reserve_for_run(&ledger, &limit, &config.pool, id, threads)?,
    };
    let template_inputs = TemplateInputs::of(&plan, template_base);
    let file = run_file(
        config,
        &server,
        &template,
        template_inputs,
        id,
        identity,
        threads,
        connections,
    );
    if let Some(profile) = template.profile.as_ref().filter(|_| file.recycle.is_some()) {
        dir.set_profile(profile)?;
    }
    dir.write(&file)?;
    Ok(OpenRun {
        runtime,
        dir,
        file,
        server,
        admin,
        template,
        limit,
        joined,
    })
}

/// Joins the live run with this identity, or creates its directory. A run has one template: with other migrations it is another run.
fn join_or_create(
    runtime: &Runtime,
    server: &Server,
    template: &DbName,
    identity: Identity<'_>,
) -> Result<(RunDir, RunId, bool), RunError> {
    let address = server.admin_address.to_string();
    // It contains the namespace.
    let template = template.to_string();
    let process = format!("{}-{}", std::process::id(), random_word());
    let (kind, id) = match identity {
        Identity::Nextest(id) => ("nextest", id),
        Identity::Command | Identity::Process => ("process", &*process),
    };
    let parts = [kind, id, &address, &template].into_iter();
    // All tests of a run have sessions with the same settings.
    let options = [&server.address, &server.admin_address];
    let options = options.into_iter().filter_map(|a| a.options.as_deref());
    let key = RunKey::new(&parts.chain(options).collect::<Vec<_>>());
    let gate = runtime.gate()?;
    if let Some(dir) = runtime.find(&gate, &key) {
        let id = dir.read()?.run;
        return Ok((dir, id, true));
    }
    let id = RunId::new(SystemTime::now(), &key);
    let dir = runtime.create(&gate, &id)?;
    Ok((dir, id, false))
}

/// Creates the directory of a run that only this process takes part in. `purpose` is a part of its id.
///
/// # Errors
/// The directory cannot be created.
pub fn open_directory(runtime: &Runtime, purpose: &str) -> Result<(RunDir, RunId), RunDirError> {
    let unique = format!("{}-{}", std::process::id(), random_word());
    let id = RunId::new(SystemTime::now(), &RunKey::new(&[purpose, &unique]));
    let dir = runtime.create(&runtime.gate()?, &id)?;
    Ok((dir, id))
}

/// [`close`] after a failed build. If it lost its session, it may have left a database. Then the directory stays, so that the sweep finds the run.
pub async fn close_if_empty(
    runtime: &Runtime,
    dir: RunDir,
    admin: &mut Admin,
    namespace: &Namespace,
    run: &RunId,
) {
    let rows = admin.databases(namespace).await;
    if rows.is_ok_and(|rows| rows.iter().all(|row| row.name.run() != Some(run))) {
        close(runtime, dir);
    }
}

/// Removes the directory of a run without databases, unless another process has joined the run.
pub fn close(runtime: &Runtime, dir: RunDir) {
    let Ok(gate) = runtime.gate() else { return };
    if let Ok(dead) = dir.end()
        && let Err(error) = dead.remove(&gate)
    {
        tracing::warn!("{error}");
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the file")]
fn run_file(
    config: &Config,
    server: &Server,
    template: &Template,
    template_inputs: TemplateInputs,
    run: RunId,
    identity: Identity<'_>,
    threads: usize,
    connections: Connections,
) -> RunFile {
    RunFile {
        protocol: PROTOCOL,
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        run,
        namespace: config.namespace.clone(),
        server: server.address.clone(),
        admin: (server.admin_address != server.address).then(|| server.admin_address.clone()),
        maintenance_database: server.maintenance_database.clone(),
        template: template.name.clone(),
        template_inputs,
        strategy: template::strategy(&server.facts),
        settings: template.settings.clone(),
        threads,
        disk_budget_mb: config.disk_budget_mb,
        pool: config.pool,
        connections,
        keep: config.keep,
        pollution: config.pollution,
        own_keys: config.own_keys,
        ignores_sqlx_toml: !config.sqlx_toml,
        recycle: reset_method(config, server, template),
        spares: config.spares.unwrap_or(match identity {
            Identity::Process => STANDALONE_SPARES,
            Identity::Nextest(_) | Identity::Command => 2 * threads,
        }),
    }
}

/// How used clones are reset; `None` if they are dropped.
fn reset_method(config: &Config, server: &Server, template: &Template) -> Option<ResetMethod> {
    let possible = server.facts.can_recycle() && template.profile.is_some();
    (config.recycle && possible).then(|| template::reset_method(&server.facts))
}
