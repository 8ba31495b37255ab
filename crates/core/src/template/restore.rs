//! A template from a dump instead of from its migrations. The caller of [`restore`] vouches that the dump has the contents that the fingerprint names.
//!
//! A crash leaves what the crash of a build leaves: a `building` database of a dead run.

use std::io::Read;
use std::time::Instant;

use crate::pg::admin::Admin;
use crate::pg::error::Context;
use crate::pg::lock::LockKey;
use crate::pg::script;
use crate::protocol::{DbName, RunId};
use crate::template::build::{Builder, Built};
use crate::template::fingerprint::Link;
use crate::template::session::discard_all;
use crate::template::steps::limited;
use crate::template::{
    BuildEvent, BuildObserver, BuildTarget, Chain, Input, SessionState, Template, TemplateError,
    TemplatePlan, find_usable, wait_for_build_lock,
};

/// What pg_dump wrote about a template, and what it does not write.
pub struct TemplateDump<'a> {
    /// Its name in errors.
    pub file: &'a str,
    /// The link of the template in the chain of the plan.
    pub part: ChainPart<'a>,
    /// Statements that give a clone the template's database-level settings; `{}` stands for its name.
    pub settings: &'a [String],
    /// What the template's migrations left in their session.
    pub session: Option<SessionState>,
    /// The SQL.
    pub text: &'a mut dyn Read,
}

/// A link of a chain, and its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainPart<'a> {
    link: &'a Link,
    inputs: &'a [Input],
    /// How many steps of the whole template it lacks.
    pub missing: usize,
}

impl Chain {
    /// The part of the chain with this fingerprint, in hexadecimal: the whole template, or the template of its first migrations.
    pub fn part(&self, fingerprint: &str) -> Option<ChainPart<'_>> {
        let all = self.inputs.len();
        let before = self.migrated_inputs().len() + 1 - self.schema.len();
        let schema = self.schema.iter().enumerate();
        let schema = schema.map(|(steps, link)| (link, before + steps));
        let seeded = self.seeded.iter().map(|link| (link, all));
        let mut links = seeded.chain(schema);
        let (link, inputs) = links.find(|(link, _)| link.hex() == fingerprint)?;
        Some(ChainPart {
            link,
            inputs: &self.inputs[..inputs],
            missing: all - inputs,
        })
    }
}

impl ChainPart<'_> {
    /// The name of its template.
    pub fn name(&self, plan: &TemplatePlan) -> DbName {
        DbName::template(plan.name.namespace(), &self.link.fingerprint())
    }
}

/// Makes a template of a dump, unless it exists. Takes the run lock and the template's lock shared on this session first.
///
/// # Errors
/// [`TemplateError`]; a failed restore leaves no template.
pub async fn restore(
    admin: &mut Admin,
    target: BuildTarget<'_>,
    plan: &TemplatePlan,
    run: &RunId,
    observer: &dyn BuildObserver,
    dump: TemplateDump<'_>,
) -> Result<Template, TemplateError> {
    let name = dump.part.name(plan);
    let locks = [
        LockKey::run(target.namespace, run),
        LockKey::template(&name),
    ];
    let found = admin
        .lock_and_find(&locks, std::slice::from_ref(&name))
        .await?;
    if let Ok(template) = find_usable(admin, &name, found.first(), target.facts).await? {
        return Ok(template);
    }
    wait_for_build_lock(admin).await?;
    let builder = Builder {
        admin,
        target,
        plan,
        run,
        observer,
    };
    let restored = Box::pin(builder.restore_if_missing(&name, dump)).await;
    let unlocked = admin.unlock(LockKey::build()).await;
    let template = restored?;
    unlocked?;
    Ok(template)
}

impl Builder<'_> {
    async fn restore_if_missing(
        mut self,
        name: &DbName,
        dump: TemplateDump<'_>,
    ) -> Result<Template, TemplateError> {
        let existing = self.admin.databases(self.target.namespace).await?;
        let row = existing.iter().find(|row| row.name == *name);
        if let Ok(template) = find_usable(self.admin, name, row, self.target.facts).await? {
            return Ok(template);
        }
        self.ensure_roles().await?;
        let ChainPart { link, inputs, .. } = dump.part;
        self.drop_wreck(link, &existing).await?;
        let base = self.target.template_base.base.clone();
        let building = self.create_building(link, &base).await?;
        let result = self.run_dump(&building, dump).await;
        let published = self.finish(building, link, inputs, &existing, result);
        let published = published.await?;
        Ok(Template {
            name: published.name,
            settings: published.settings,
            profile: published.profile,
            existed: false,
        })
    }

    async fn run_dump(
        &mut self,
        building: &DbName,
        dump: TemplateDump<'_>,
    ) -> Result<Built, TemplateError> {
        let address = self.target.address;
        let (mut connection, _own) = self.connect(building).await?;
        let file = dump.file;
        self.observer.event(&BuildEvent::Step { file });
        let begun = Instant::now();
        let what = || format!("run `{file}`");
        let ran = script::run(&mut connection, file, dump.text);
        limited(address, what, ran).await??;
        let took = begun.elapsed();
        self.observer.event(&BuildEvent::Ran { file, took });
        let what = || "reset the session".to_owned();
        let reset = limited(address, what, discard_all(&mut connection)).await?;
        reset.context(what)?;
        self.admin.apply_settings(building, dump.settings).await?;
        let (profile, contents) = self.vacuum_and_close(connection, None).await?;
        Ok(Built {
            profile,
            session: dump.session,
            contents,
        })
    }
}

impl std::fmt::Debug for TemplateDump<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("TemplateDump");
        fields.field("file", &self.file).finish_non_exhaustive()
    }
}
