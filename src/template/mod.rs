//! The template: a sealed database with the migrated schema and seed data, found by its fingerprint or built exactly once.
//!
//! Hot path: the run takes the template's lock shared and finds it, in one round trip. Slow path: under the server's build lock
//! it looks again, builds under a private name from the longest migrated prefix that exists, seals, and renames last. A crash at
//! any step leaves a `building` database of a dead run, which the sweep removes; there is never a half-built `template`.

mod build;
mod fingerprint;
mod persistent;
mod source;
mod why;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use fingerprint::{Chain, Input, Link};
pub use persistent::keep_current;
pub use source::{Notes, Source};
pub use why::{stale, why};

use crate::config::{Config, TemplateConfig};
use crate::name::{DbName, Namespace, RunId};
use crate::pg::admin::Admin;
use crate::pg::databases::{DatabaseRow, Strategy};
use crate::pg::lock::LockKey;
use crate::pg::script::ScriptError;
use crate::pg::{Address, PgError, ServerFacts};
use crate::server::Server;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The server refused.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// There is no such directory.
    #[error(
        "found no migrations at `{}`; create the directory, name another one with `template.migrations` (\"\" for none), or say with --root where the workspace is",
        .0.display()
    )]
    NoMigrations(PathBuf),
    /// The directory holds no migration.
    #[error(
        "`{}` holds no migrations (files named `<version>_<description>.sql`); add one, or set `template.migrations` to \"\"",
        .0.display()
    )]
    EmptyMigrations(PathBuf),
    /// A file cannot be read.
    #[error("failed to read `{}`: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        message: String,
    },
    /// A migration or seed file failed.
    #[error("`{file}` failed{position}: {message}")]
    Failed {
        /// The file.
        file: String,
        /// Where in it, as far as the server says.
        position: String,
        /// The server's message.
        message: String,
        /// The server's SQLSTATE, where it has one.
        code: Option<String>,
    },
    /// A database outlived the template that it was made from.
    #[error(
        "the template `{0}` is gone; `kapsel-testdb prepare` on the revision that the database is of builds it again (`template.keep` says \
         how many stay)"
    )]
    Gone(DbName),
    /// A seed file is not what it was when the fingerprint was computed.
    #[error("`{}` was changed while the template was built; start again", .0.display())]
    Changed(PathBuf),
    /// A database of that name belongs to somebody else.
    #[error(
        "the template `{name}` belongs to the role `{owner}`, not to `{role}`; let its owner drop it, or choose another `namespace`"
    )]
    OtherOwner {
        /// The database.
        name: String,
        /// Its owner.
        owner: String,
        /// Who we are.
        role: String,
    },
}

impl From<ScriptError> for TemplateError {
    fn from(error: ScriptError) -> Self {
        Self::Failed {
            position: error.place.to_string(),
            file: error.name,
            message: error.message,
            code: error.code,
        }
    }
}

/// What the template's comment says: what a name cannot hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateInfo {
    /// Version of the tool that built it.
    pub tool: String,
    /// The whole fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// What went into it.
    pub inputs: Vec<Input>,
    /// Statements that give a clone the database-level settings that `CREATE DATABASE` does not copy.
    #[serde(default)]
    pub settings: Vec<String>,
    /// When it was built, in seconds since 1970.
    pub built_at: u64,
    /// When a run last used it, to the hour, in seconds since 1970.
    pub used_at: u64,
}

impl TemplateInfo {
    /// Reads a comment that we wrote.
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        serde_json::from_str(comment?).ok()
    }
}

/// A template that may be cloned.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its name.
    pub name: DbName,
    /// Statements that give a clone its database-level settings.
    pub settings: Vec<String>,
    /// Whether it was there already.
    pub current: bool,
}

/// What happens on the slow path, for who watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// Somebody else builds; we wait for them.
    Waiting {
        /// The sessions that hold the build lock.
        holders: &'a [String],
    },
    /// A build begins.
    Building {
        /// Why, input by input.
        why: &'a [String],
        /// Migrations that come with the prefix.
        reused: usize,
        /// Steps to do.
        steps: usize,
    },
    /// A file is run.
    Step {
        /// The file.
        file: &'a str,
    },
    /// The template is there.
    Built,
}

/// Watches the slow path.
pub trait Observer: Sync {
    /// Something happens.
    fn event(&self, event: &Event<'_>);
}

/// Watches nothing but the log.
#[derive(Debug)]
pub struct Quiet;

impl Observer for Quiet {
    fn event(&self, event: &Event<'_>) {
        tracing::info!(?event, "template");
    }
}

/// What every template of a project begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The database that it is made from.
    pub base: String,
    /// Extensions that are created before the first migration.
    pub extensions: Vec<String>,
}

impl Basis {
    /// As configured.
    pub fn of(config: &TemplateConfig) -> Self {
        Self {
            base: config.base.clone(),
            extensions: config.extensions.clone(),
        }
    }
}

/// Where templates are built.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Prefix of their names.
    pub namespace: &'a Namespace,
    /// What they begin with.
    pub basis: &'a Basis,
    /// Where administrative work goes.
    pub address: &'a Address,
    /// What the server says of itself.
    pub facts: &'a ServerFacts,
}

impl<'a> Site<'a> {
    /// On a project's server.
    pub fn new(namespace: &'a Namespace, basis: &'a Basis, server: &'a Server) -> Self {
        Self {
            namespace,
            basis,
            address: &server.admin_address,
            facts: &server.facts,
        }
    }
}

/// What a template is made of here, and for whom it is made.
#[derive(Debug)]
pub struct Plan {
    /// Migrations and seeds.
    pub source: Source,
    /// Their fingerprints.
    pub chain: Chain,
    /// The finished template's name.
    pub name: DbName,
}

impl Plan {
    /// Reads the files and computes the fingerprints.
    ///
    /// # Errors
    /// A missing or unreadable file.
    pub async fn new(config: &Config, facts: &ServerFacts) -> Result<Self, TemplateError> {
        let source = Source::read(config).await?;
        let basis = Basis::of(&config.template);
        Ok(Self::of(source, &config.namespace, &basis, facts))
    }

    /// For what has been read.
    pub fn of(source: Source, namespace: &Namespace, basis: &Basis, facts: &ServerFacts) -> Self {
        let chain = Chain::new(&source, basis, facts);
        let name = DbName::template(namespace, &chain.last().fingerprint());
        Self {
            source,
            chain,
            name,
        }
    }
}

/// Finds or builds the template, and takes the run's lock and the template's lock shared on this session, in that order and
/// before looking: what is found cannot be collected while the session lives.
///
/// # Errors
/// [`TemplateError`]; nothing half-built stays visible.
pub async fn ensure(
    admin: &mut Admin,
    site: Site<'_>,
    plan: &Plan,
    run: &RunId,
    observer: &dyn Observer,
) -> Result<Template, TemplateError> {
    let locks = [
        LockKey::run(site.namespace, run),
        LockKey::template(&plan.name),
    ];
    let found = admin
        .lock_and_find(&locks, std::slice::from_ref(&plan.name))
        .await?;
    if let Some(template) = usable(&plan.name, found.first(), site.facts)? {
        return Ok(template);
    }
    wait_for_build_lock(admin, observer).await?;
    let builder = build::Builder {
        admin,
        site,
        plan,
        run,
        observer,
    };
    let built = builder.build_if_missing().await;
    let unlocked = admin.unlock(LockKey::build()).await;
    let template = built?;
    unlocked?;
    Ok(template)
}

async fn wait_for_build_lock(
    admin: &mut Admin,
    observer: &dyn Observer,
) -> Result<(), TemplateError> {
    if !admin.try_lock(LockKey::build()).await? {
        let holders = admin.lock_holders(LockKey::build()).await?;
        observer.event(&Event::Waiting { holders: &holders });
        admin.lock(LockKey::build()).await?;
    }
    Ok(())
}

/// The row as a template, if it is one that we may use. One of another role is an error: it can be neither used nor replaced.
fn usable(
    name: &DbName,
    row: Option<&DatabaseRow>,
    facts: &ServerFacts,
) -> Result<Option<Template>, TemplateError> {
    let Some(row) = row else { return Ok(None) };
    if !row.owned {
        return Err(TemplateError::OtherOwner {
            name: row.name.to_string(),
            owner: row.owner.clone(),
            role: facts.role.clone(),
        });
    }
    let info = TemplateInfo::parse(row.comment.as_deref());
    Ok(match info {
        Some(info) if row.is_usable_template() => Some(Template {
            name: name.clone(),
            settings: info.settings,
            current: true,
        }),
        _ => None,
    })
}

/// How clones are best made on this server. With `fsync=off` copying files is 1.5 to 5 times faster than the default of
/// PostgreSQL 15 and later; with `fsync=on` its two checkpoints make it up to 20 times slower (docs/DESIGN.md has the figures).
/// Older servers know only file copy and no option for it. On 18 and later the file system is left to share blocks: twice as fast
/// on one that can, no slower on others, because Linux falls back to copying; on macOS it would be an error there.
pub fn strategy(facts: &ServerFacts) -> Strategy {
    match facts.major() {
        18.. if !facts.fsync && cfg!(target_os = "linux") => Strategy::FileClone,
        15.. if !facts.fsync => Strategy::FileCopy,
        _ => Strategy::Default,
    }
}

/// Notes that a template is in use, at most once an hour: what decides which templates stay.
///
/// # Errors
/// A failed statement.
pub async fn mark_used(admin: &mut Admin, name: &DbName) -> Result<(), PgError> {
    let now = build::unix_now();
    let rows = admin.lock_and_find(&[], std::slice::from_ref(name)).await?;
    let info = rows
        .first()
        .filter(|row| row.owned)
        .and_then(|row| TemplateInfo::parse(row.comment.as_deref()));
    let Some(info) = info.filter(|info| now >= info.used_at + 3600) else {
        return Ok(());
    };
    let info = TemplateInfo {
        used_at: now,
        ..info
    };
    let text = serde_json::to_string(&info).unwrap_or_default();
    admin.comment(name, &text).await
}
