//! A run: one `nextest run`, or one process on the slow path. Opening one finds the server and the template and makes the run
//! directory; everything that outlives the opening process is the keeper's.
//!
//! Order of signs of life: the run directory's flock first (exact on this host), then the run lock on the server, then anything
//! that would need sweeping. A crash after the first leaves a directory with a free flock; after the third, databases that carry
//! the run's id and that the next sweep removes.

#[cfg(feature = "cli")]
pub mod budget;
pub mod clone;
#[cfg(feature = "cli")]
pub mod keeper;
pub mod kept;
#[cfg(feature = "cli")]
pub mod locks;
#[cfg(feature = "cli")]
pub mod spawn;
#[cfg(feature = "cli")]
pub mod teardown;

use std::time::SystemTime;

use crate::config::Config;
use crate::connections;
use crate::name::{RunId, RunKey, random_word};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::run_dir::{Connections, MadeOf, PROTOCOL, RunDir, RunDirError, RunFile, Runtime};
use crate::server::{Server, ServerError};
use crate::template::{self, Basis, Observer, Plan, Site, Template, TemplateError};

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// No run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A statement failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// Whoever makes the shared clone does not get on.
    #[error(
        "another process has been making the run's shared clone for {} s; is it suspended? end it, and run again", .0.as_secs()
    )]
    SharedClone(std::time::Duration),
    /// The keeper could not be started.
    #[error("failed to start the keeper: {0}; `--no-keeper` or `run.keeper = false` does without")]
    Keeper(std::io::Error),
}

/// What tells one run from every other.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// nextest's run id: a second `prepare` with the same one joins the run.
    Nextest(&'a str),
    /// A command's: what it starts shares the run.
    Command,
    /// A test process's own.
    Process,
}

/// An open run: alive while this is held.
#[derive(Debug)]
pub struct OpenRun {
    /// The runtime folder.
    pub runtime: Runtime,
    /// The run directory, its lock held.
    pub dir: RunDir,
    /// What `run.json` says.
    pub file: RunFile,
    /// The server.
    pub server: Server,
    /// The session that holds the run lock and the template's lock.
    pub admin: Admin,
    /// The template.
    pub template: Template,
    /// Whether the run was there already.
    pub joined: bool,
}

/// Opens a run: server, run directory, locks, template, `run.json`.
///
/// # Errors
/// [`RunError`]; the run directory of a failed opening is removed, or left to the sweep.
pub async fn open(
    config: &Config,
    identity: Identity<'_>,
    threads: usize,
    observer: &dyn Observer,
) -> Result<OpenRun, RunError> {
    let runtime = Runtime::open()?;
    let (server, mut admin) = Server::locate(config, "run").await?;
    let plan = Plan::new(config, &server.facts).await?;
    let (dir, id, joined) = enter(&runtime, config, &server, identity)?;
    let basis = Basis::of(&config.template);
    let site = Site::new(&config.namespace, &basis, &server);
    let built = template::ensure(&mut admin, site, &plan, &id, observer).await;
    let template = match built {
        Ok(template) => template,
        Err(error) => {
            // A build that lost its session may have left a database: then the directory stays, for the sweep to find it by.
            let rows = admin.databases(&config.namespace).await;
            let clean = rows.is_ok_and(|rows| rows.iter().all(|row| row.name.run() != Some(&id)));
            if clean && !joined {
                close(&runtime, dir);
            }
            return Err(error.into());
        }
    };
    let connections = match identity {
        Identity::Process => {
            let (_, limit) = connections::update(&runtime, &server, None)?;
            Connections {
                per_process: limit.share(threads, config.pool.max_connections),
                reserved: false,
            }
        }
        Identity::Nextest(_) | Identity::Command => {
            connections::for_run(&runtime, &server, &config.pool, &id, threads)?
        }
    };
    let made_of = MadeOf::of(&plan, basis, config.template.migrate.clone());
    let file = run_file(
        config,
        &server,
        &template,
        made_of,
        id,
        threads,
        connections,
    );
    dir.write(&file)?;
    Ok(OpenRun {
        runtime,
        dir,
        file,
        server,
        admin,
        template,
        joined,
    })
}

/// Joins the live run of that identity, or makes its directory.
fn enter(
    runtime: &Runtime,
    config: &Config,
    server: &Server,
    identity: Identity<'_>,
) -> Result<(RunDir, RunId, bool), RunError> {
    let address = server.admin_address.to_string();
    let namespace = config.namespace.as_str();
    let own = format!("{}-{}", std::process::id(), random_word());
    let key = match identity {
        Identity::Nextest(id) => RunKey::new(&["nextest", id, &address, namespace]),
        Identity::Command | Identity::Process => {
            RunKey::new(&["process", &own, &address, namespace])
        }
    };
    let gate = runtime.gate()?;
    if let Some(dir) = runtime.find(&gate, &key) {
        let id = dir.read()?.run;
        return Ok((dir, id, true));
    }
    let id = RunId::new(SystemTime::now(), &key);
    let dir = runtime.create(&gate, &id)?;
    Ok((dir, id, false))
}

/// Removes the directory of a run that nobody else is in and that has no databases.
pub fn close(runtime: &Runtime, dir: RunDir) {
    let Ok(gate) = runtime.gate() else { return };
    if let Ok(dead) = dir.end()
        && let Err(error) = dead.remove(&gate)
    {
        tracing::warn!("{error}");
    }
}

fn run_file(
    config: &Config,
    server: &Server,
    template: &Template,
    made_of: MadeOf,
    run: RunId,
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
        made_of,
        strategy: template::strategy(&server.facts),
        settings: template.settings.clone(),
        threads,
        disk_budget_mb: config.disk_budget_mb,
        pool: config.pool,
        connections,
        keep: config.keep,
        pollution: config.pollution,
    }
}
