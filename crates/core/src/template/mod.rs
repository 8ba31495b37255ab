//! The template: a sealed database with the migrated schema and the seed data. It is found by its fingerprint, or built once.
//!
//! Hot path: the run takes the template's lock shared and finds the template, in one round trip. Slow path: the run takes the
//! server's build lock, checks again, builds under a private name from the longest migrated prefix that exists, seals, and renames
//! last. A crash at any step leaves a `building` database of a dead run, which the sweep removes. There is never an incomplete
//! `template` database.

mod build;
mod command;
mod error;
mod explain;
mod files;
mod fingerprint;
mod hints;
mod observer;
mod persistent;
mod restore;
mod session;
mod source;
mod steps;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use error::TemplateError;
pub use explain::{explain_build, explain_change, explain_stale};
pub use files::is_migrations_directory;
pub use fingerprint::{Chain, Input, Link};
pub use observer::{BuildEvent, BuildObserver, LogObserver};
pub use persistent::migrate_persistent;
pub use restore::{ChainPart, TemplateDump, restore};
pub use session::SessionState;
pub use source::Source;

use crate::address::Address;
use crate::config::Config;
use crate::pg::admin::Admin;
use crate::pg::databases::DatabaseRow;
use crate::pg::lock::{BUILD_LIMIT, LockKey};
use crate::pg::{PgError, ServerFacts};
use crate::platform::System;
use crate::protocol::{
    DbName, Namespace, Profile, ResetMethod, RunId, Strategy, TemplateBase, TemplateInputs,
    unix_now,
};
use crate::server::Server;
use crate::waiting::waiting;

/// The comment of a template: facts that do not fit into its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateInfo {
    /// Version of the tool that built it.
    pub tool: String,
    /// The whole fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The inputs of the fingerprint.
    pub inputs: Vec<Input>,
    /// Statements that apply the database-level settings to a clone, because `CREATE DATABASE` does not copy them.
    #[serde(default)]
    pub settings: Vec<String>,
    /// What a reset of its clones must leave; none before PostgreSQL 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// What its migrations left in their session; none if that cannot be restored, so that no build starts from this template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionState>,
    /// What makes it stale although its inputs are the same.
    #[serde(default)]
    pub contents: Contents,
    /// Build time, in seconds since 1970.
    pub built_at: u64,
    /// Time of the last use by a run, accurate to the hour, in seconds since 1970.
    pub used_at: u64,
}

/// What a template contains that may be different now although its inputs are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// If it has unlogged tables or sequences: when the server began to count, in µs since 1970. See [`DatabaseRow::counting_since`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlogged_since: Option<i64>,
    /// Its extensions, with the versions in which the server created them by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
}

/// Why a database with a template's name cannot be cloned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not sealed: an interrupted collection left it, or a user unsealed it.
    #[error("it is not sealed")]
    Wreck,
    /// Its comment was replaced.
    #[error("its comment cannot be read")]
    Comment,
    /// Its unlogged tables are empty.
    #[error("the server has recovered from a crash, which empties unlogged tables")]
    Crash,
    /// The server has another version of one of its extensions.
    #[error("the server has version {new} of the extension `{name}`, not {old} any more")]
    Extension {
        /// The extension.
        name: String,
        /// The version when the template was built.
        old: String,
        /// The version now.
        new: String,
    },
}

impl TemplateInfo {
    /// Parses a comment that this tool wrote.
    pub fn parse(comment: Option<&str>) -> Option<Self> {
        serde_json::from_str(comment?).ok()
    }

    /// Number of its migrations and other steps.
    pub fn steps(&self) -> usize {
        let steps = self.inputs.iter();
        steps.filter(|input| input.is_step()).count()
    }

    /// The comment of a template that may be cloned, as far as its row shows that: only [`Self::check_extensions`] asks the server.
    ///
    /// # Errors
    /// Why it cannot be cloned.
    pub fn of(row: &DatabaseRow) -> Result<Self, Unusable> {
        if !row.is_usable_template() {
            return Err(Unusable::Wreck);
        }
        let info = Self::parse(row.comment.as_deref()).ok_or(Unusable::Comment)?;
        match info.contents.unlogged_since {
            Some(since) if since != row.counting_since => Err(Unusable::Crash),
            _ => Ok(info),
        }
    }

    /// Why the database of a row with a template's name cannot be cloned; `None` if it can.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn check(row: &DatabaseRow, admin: &mut Admin) -> Result<Option<Unusable>, PgError> {
        match Self::of(row) {
            Err(unusable) => Ok(Some(unusable)),
            Ok(info) => info.check_extensions(admin).await,
        }
    }

    /// Checks that the server would create the same versions of its extensions.
    ///
    /// # Errors
    /// The extension that is different, or a failed statement.
    pub async fn check_extensions(&self, admin: &mut Admin) -> Result<Option<Unusable>, PgError> {
        let old = &self.contents.extensions;
        let new = admin.default_versions(old.keys()).await?;
        let changed = old.iter().find_map(|(name, old)| {
            let new = new.get(name).filter(|new| *new != old)?;
            Some(Unusable::Extension {
                name: name.clone(),
                old: old.clone(),
                new: new.clone(),
            })
        });
        Ok(changed)
    }
}

/// A template that may be cloned.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its name.
    pub name: DbName,
    /// Statements that apply the database-level settings to a clone.
    pub settings: Vec<String>,
    /// What a reset of its clones must leave, if they can be recycled.
    pub profile: Option<Profile>,
    /// Whether it existed before, so that no build was needed.
    pub existed: bool,
}

/// Server and namespace for which templates are built.
#[derive(Debug, Clone, Copy)]
pub struct BuildTarget<'a> {
    /// Namespace of the templates.
    pub namespace: &'a Namespace,
    /// Base database, extensions, roles, and what runs before the migrations.
    pub template_base: &'a TemplateBase,
    /// Address for administrative sessions.
    pub address: &'a Address,
    /// Facts about the server.
    pub facts: &'a ServerFacts,
}

impl<'a> BuildTarget<'a> {
    /// On the given server.
    pub fn new(
        namespace: &'a Namespace,
        template_base: &'a TemplateBase,
        server: &'a Server,
    ) -> Self {
        Self {
            namespace,
            template_base,
            address: &server.admin_address,
            facts: &server.facts,
        }
    }
}

/// The sources of a template, its fingerprints and its name.
#[derive(Debug)]
pub struct TemplatePlan {
    /// Migrations and seeds.
    pub source: Source,
    /// Their fingerprints.
    pub chain: Chain,
    /// Name of the complete template.
    pub name: DbName,
}

impl TemplatePlan {
    /// Reads the configured files and computes the fingerprints.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub async fn new(config: &Config, facts: &ServerFacts) -> Result<Self, TemplateError> {
        let source = Source::read(config).await?;
        let template_base = TemplateBase::of(config)?;
        Ok(Self::of(source, &config.namespace, &template_base, facts))
    }

    /// For a source that was already read.
    pub fn of(
        source: Source,
        namespace: &Namespace,
        template_base: &TemplateBase,
        facts: &ServerFacts,
    ) -> Self {
        let chain = Chain::new(&source, template_base, facts);
        let name = DbName::template(namespace, &chain.last().fingerprint());
        Self {
            source,
            chain,
            name,
        }
    }
}

impl TemplateInputs {
    /// The inputs of a plan, for `run.json`.
    pub fn of(plan: &TemplatePlan, template_base: TemplateBase) -> Self {
        let directories = plan.source.directories.iter();
        // JSON cannot hold a path that is not UTF-8; without the path, tests compare the fingerprints.
        let directories = directories.filter(|directory| directory.path.to_str().is_some());
        Self {
            migrations: directories.cloned().collect(),
            seeds: plan.chain.seeded.is_some(),
            template_base,
            start: plan.chain.start.hex(),
            schema: plan.chain.migrated().hex(),
        }
    }
}

/// Takes the run lock and the template's lock shared on this session, then finds or builds the template. The locks come first, so
/// that the template cannot be collected while the session lives.
///
/// # Errors
/// [`TemplateError`]; a failed build leaves no template.
pub async fn ensure(
    admin: &mut Admin,
    target: BuildTarget<'_>,
    plan: &TemplatePlan,
    run: &RunId,
    observer: &dyn BuildObserver,
) -> Result<Template, TemplateError> {
    let locks = [
        LockKey::run(target.namespace, run),
        LockKey::template(&plan.name),
    ];
    let found = admin
        .lock_and_find(&locks, std::slice::from_ref(&plan.name))
        .await?;
    if let Ok(template) = find_usable(admin, &plan.name, found.first(), target.facts).await? {
        return Ok(template);
    }
    wait_for_build_lock(admin).await?;
    let builder = build::Builder {
        admin,
        target,
        plan,
        run,
        observer,
    };
    // In a box, because it is large and rare.
    let built = Box::pin(builder.build_if_missing()).await;
    let unlocked = admin.unlock(LockKey::build()).await;
    let template = built?;
    unlocked?;
    Ok(template)
}

async fn wait_for_build_lock(admin: &mut Admin) -> Result<(), TemplateError> {
    if !admin.try_lock(LockKey::build()).await? {
        let holders = admin.lock_holders(LockKey::build()).await?.join(", ");
        let _waiting = waiting(
            format_args!("another process to build the template: {holders}"),
            BUILD_LIMIT,
        );
        admin.lock_builds().await?;
    }
    Ok(())
}

/// The row as a template, if we may use it. A database of another role is an error: we can neither use nor replace it.
async fn find_usable(
    admin: &mut Admin,
    name: &DbName,
    row: Option<&DatabaseRow>,
    facts: &ServerFacts,
) -> Result<Result<Template, Unusable>, TemplateError> {
    let Some(row) = row else {
        return Ok(Err(Unusable::Wreck));
    };
    if !row.owned {
        return Err(TemplateError::OtherOwner {
            name: row.name.to_string(),
            owner: row.owner.clone(),
            role: facts.role.clone(),
        });
    }
    let info = match TemplateInfo::of(row) {
        Ok(info) => info,
        Err(unusable) => return Ok(Err(unusable)),
    };
    Ok(match info.check_extensions(admin).await? {
        Some(unusable) => Err(unusable),
        None => Ok(Template {
            name: name.clone(),
            settings: info.settings,
            profile: info.profile,
            existed: true,
        }),
    })
}

/// The fastest way to create clones on this server. With `fsync=off`, file copy is 1.5 to 5 times faster than the default of
/// PostgreSQL 15 and later; with `fsync=on`, its two checkpoints make it up to 20 times slower (docs/BENCHMARKS.md). Older servers
/// have only file copy and no option for it. On 18 and later, the file system may share blocks: that is twice as fast, and not slower
/// on a file system that cannot, because Linux falls back to copying. A server on macOS would report an error there.
pub fn strategy(facts: &ServerFacts) -> Strategy {
    match facts.major() {
        18.. if !facts.fsync && facts.system() == System::Linux => Strategy::FileClone,
        15.. if !facts.fsync => Strategy::FileCopy,
        _ => Strategy::Default,
    }
}

/// How the clones of a template are reset. `DELETE` and `VACUUM` leave them most like new, but truncating each table costs a search of the buffer
/// pool. With `fsync` on, both took the same time (docs/BENCHMARKS.md).
pub fn reset_method(facts: &ServerFacts) -> ResetMethod {
    const LARGE_BUFFER_POOL: i64 = 1 << 30;
    if facts.settings.shared_buffers >= LARGE_BUFFER_POOL {
        ResetMethod::Truncate
    } else {
        ResetMethod::Delete
    }
}

/// Records the time of use in the template's comment, at most once an hour. Collection removes the least recently used templates.
///
/// # Errors
/// A failed statement.
pub async fn mark_used(admin: &mut Admin, name: &DbName) -> Result<(), PgError> {
    let now = unix_now();
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
