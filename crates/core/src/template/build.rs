//! Builds a template. The caller holds the build lock. The building database carries the id of a live run.

use std::collections::BTreeSet;
use std::time::Instant;

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;

use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::{self, RetryLimits};
use crate::pg::databases::DatabaseRow;
use crate::pg::error::{Context, code_of};
use crate::pg::own::OwnSession;
use crate::pg::script::{ScriptError, ScriptPosition};
use crate::protocol::{BuildStep, DbName, Kind, Profile, RunId, unix_now};
use crate::recycle::profile::Files;
use crate::sqlstate;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::fingerprint::Link;
use crate::template::session::{BuildSession, SessionState};
use crate::template::source::{SchemaStep, SqlxMigration};
use crate::template::steps::{
    Site, copied_files, create_extensions, create_migrations_table, limited, migration_error,
    run_step, vacuum_and_close,
};
use crate::template::{
    BuildEvent, BuildObserver, BuildTarget, Contents, Input, Template, TemplateError, TemplateInfo,
    TemplatePlan, Unusable, explain_build, find_usable, hints,
};

pub(super) struct Builder<'a> {
    pub admin: &'a mut Admin,
    pub target: BuildTarget<'a>,
    pub plan: &'a TemplatePlan,
    pub run: &'a RunId,
    pub observer: &'a dyn BuildObserver,
}

impl Builder<'_> {
    /// Checks again for the template under the build lock, and builds it if it is missing or stale.
    pub async fn build_if_missing(mut self) -> Result<Template, TemplateError> {
        let existing = self.admin.databases(self.target.namespace).await?;
        let row = existing.iter().find(|row| row.name == self.plan.name);
        let unusable =
            match find_usable(self.admin, &self.plan.name, row, self.target.facts).await? {
                Ok(template) => return Ok(template),
                Err(unusable) => unusable,
            };
        let prefix = self.longest_prefix(&existing).await?;
        self.ensure_roles().await?;
        self.announce(&existing, prefix.as_ref(), &unusable);
        let migrated = self.build_schema(&existing, prefix).await?;
        let built = match &self.plan.chain.seeded {
            Some(link) => {
                self.drop_wreck(link, &existing).await?;
                self.build_seeded(&migrated, link, &existing).await?
            }
            None => migrated,
        };
        self.observer.event(&BuildEvent::Built);
        Ok(Template {
            name: self.plan.name.clone(),
            settings: built.settings,
            profile: built.profile,
            existed: false,
        })
    }

    pub(super) async fn ensure_roles(&mut self) -> Result<(), TemplateError> {
        for role in &self.target.template_base.roles {
            self.admin.ensure_role(role, "template.roles").await?;
        }
        Ok(())
    }

    fn announce(&self, existing: &[DatabaseRow], prefix: Option<&Prefix>, unusable: &Unusable) {
        let templates: Vec<TemplateInfo> = existing
            .iter()
            .filter_map(|row| TemplateInfo::of(row).ok())
            .collect();
        let reused = prefix.map_or(0, |prefix| prefix.done);
        let before = match prefix {
            Some(_) => 0,
            None => self.target.template_base.before.len(),
        };
        let source = &self.plan.source;
        let reasons = match unusable {
            Unusable::Wreck => explain_build(&self.plan.chain.inputs, &templates),
            stale => vec![stale.to_string()],
        };
        self.observer.event(&BuildEvent::Building {
            reasons: &reasons,
            reused,
            steps: before + source.steps.len() - reused + source.later.len(),
        });
    }

    /// The template with the longest prefix of our steps that a build can start from.
    async fn longest_prefix(
        &mut self,
        existing: &[DatabaseRow],
    ) -> Result<Option<Prefix>, TemplateError> {
        let all = self.plan.source.steps.len();
        for (done, link) in self.plan.chain.schema.iter().enumerate().rev() {
            let fingerprint = link.fingerprint();
            let row = existing.iter().find(|row| {
                row.name.kind() == Kind::Template && *row.name.fingerprint() == fingerprint
            });
            let Some((row, Ok(info))) = row.map(|row| (row, TemplateInfo::of(row))) else {
                continue;
            };
            let can_go_on = done == all || info.session.is_some();
            if can_go_on && info.check_extensions(self.admin).await?.is_none() {
                let name = row.name.clone();
                return Ok(Some(Prefix { done, name, info }));
            }
        }
        Ok(None)
    }

    /// Builds the template of all migrations, unless it exists.
    async fn build_schema(
        &mut self,
        existing: &[DatabaseRow],
        prefix: Option<Prefix>,
    ) -> Result<Published, TemplateError> {
        if let Some(whole) = prefix.as_ref()
            && whole.done == self.plan.source.steps.len()
        {
            return Ok(Published {
                name: whole.name.clone(),
                settings: whole.info.settings.clone(),
                profile: whole.info.profile.clone(),
            });
        }
        let link = self.plan.chain.migrated();
        self.drop_wreck(link, existing).await?;
        let mut prefix = prefix;
        loop {
            let source = prefix.as_ref().map(|prefix| prefix.name.to_string());
            let source = source.unwrap_or_else(|| self.target.template_base.base.clone());
            let building = self.create_building(link, &source).await?;
            let result = match self.migrate(&building, prefix.as_ref()).await {
                Ok(Some(built)) => Ok(built),
                Ok(None) => {
                    self.observer.event(&BuildEvent::Restart);
                    self.admin.drop_database(&building, false, true).await?;
                    prefix = None;
                    continue;
                }
                Err(error) => Err(error),
            };
            let inputs = self.plan.chain.migrated_inputs();
            return self.finish(building, link, inputs, existing, result).await;
        }
    }

    /// Builds the template with seeds from the template without.
    async fn build_seeded(
        &mut self,
        migrated: &Published,
        link: &Link,
        existing: &[DatabaseRow],
    ) -> Result<Published, TemplateError> {
        let source = migrated.name.to_string();
        let building = self.create_building(link, &source).await?;
        let result = self.seed(&building, &migrated.settings).await;
        let inputs = &self.plan.chain.inputs;
        self.finish(building, link, inputs, existing, result).await
    }

    /// Drops a database of ours with the template's name that is not sealed: an interrupted collection left it, or a user unsealed it. A stale template
    /// stays until the new one takes its place, because live runs may clone it.
    pub(super) async fn drop_wreck(
        &mut self,
        link: &Link,
        existing: &[DatabaseRow],
    ) -> Result<(), TemplateError> {
        let name = DbName::template(self.target.namespace, &link.fingerprint());
        let is_wreck =
            |row: &&DatabaseRow| row.name == name && row.owned && !row.is_usable_template();
        match existing.iter().find(is_wreck) {
            Some(row) => Ok(self
                .admin
                .drop_database(&name, row.is_template, false)
                .await?),
            None => Ok(()),
        }
    }

    fn building_name(&self, link: &Link) -> DbName {
        DbName::for_run(
            self.target.namespace,
            Kind::Building,
            &link.fingerprint(),
            self.run,
        )
    }

    pub(super) async fn create_building(
        &mut self,
        link: &Link,
        source: &str,
    ) -> Result<DbName, TemplateError> {
        let building = self.building_name(link);
        let strategy = super::strategy(self.target.facts);
        self.admin
            .create_database(&building, source, strategy)
            .await?;
        Ok(building)
    }

    /// Publishes the building database, or drops it if the build failed. A crash leaves it to the sweep of the run.
    pub(super) async fn finish(
        &mut self,
        building: DbName,
        link: &Link,
        inputs: &[Input],
        existing: &[DatabaseRow],
        result: Result<Built, TemplateError>,
    ) -> Result<Published, TemplateError> {
        let published = match result {
            Ok(built) => self.publish(&building, link, inputs, existing, built).await,
            Err(error) => Err(self.with_remedy(error).await),
        };
        if published.is_err() {
            let _ = self.admin.drop_database(&building, true, true).await;
        }
        published
    }

    /// Adds the free space and the remedies to an error about a full disk.
    async fn with_remedy(&mut self, error: TemplateError) -> TemplateError {
        match error {
            TemplateError::Failed(mut error)
                if error.code.as_deref() == Some(sqlstate::DISK_FULL) =>
            {
                let remedy = self.admin.no_space_message(&error.message).await;
                error.message = format!("{}; {remedy}", error.message);
                error.into()
            }
            TemplateError::Pg(error) if error.is(sqlstate::DISK_FULL) => PgError::WithRemedy {
                remedy: self.admin.no_space_message(&error.to_string()).await,
                cause: Box::new(error),
            }
            .into(),
            error => {
                let base = &self.target.template_base.base;
                hints::explain_missing(error, self.target.address, base).await
            }
        }
    }

    /// Comments, seals and renames. The rename comes last, because the name makes the template visible.
    async fn publish(
        &mut self,
        building: &DbName,
        link: &Link,
        inputs: &[Input],
        existing: &[DatabaseRow],
        built: Built,
    ) -> Result<Published, TemplateError> {
        let now = unix_now();
        self.take_ownership(building).await?;
        let settings = self.admin.database_settings(building).await?;
        let info = TemplateInfo {
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: link.hex(),
            inputs: inputs.to_vec(),
            settings: settings.clone(),
            profile: built.profile.clone(),
            session: built.session,
            contents: built.contents,
            built_at: now,
            used_at: now,
        };
        let comment = serde_json::to_string(&info).unwrap_or_default();
        let name = DbName::template(self.target.namespace, &link.fingerprint());
        self.admin.comment(building, &comment).await?;
        self.admin.seal_database(building).await?;
        if existing
            .iter()
            .any(|row| row.name == name && row.is_usable_template())
        {
            self.replace(building, &name, link).await?;
        } else {
            self.admin.rename_database(building, &name).await?;
        }
        Ok(Published {
            name,
            settings,
            profile: built.profile,
        })
    }

    /// Publishes a template in place of a stale one. If the stale one cannot be dropped, it carries the run's id: the sweep drops it.
    async fn replace(
        &mut self,
        building: &DbName,
        name: &DbName,
        link: &Link,
    ) -> Result<(), TemplateError> {
        let stale = self.building_name(link);
        self.admin.replace_database(building, name, &stale).await?;
        if let Err(error) = self.admin.drop_database(&stale, true, false).await {
            tracing::warn!("failed to drop a stale template: {error}");
        }
        Ok(())
    }

    /// A migration may have given the database to another role. We could never drop it or its clones then.
    async fn take_ownership(&mut self, building: &DbName) -> Result<(), TemplateError> {
        let rows = self
            .admin
            .lock_and_find(&[], std::slice::from_ref(building))
            .await?;
        if let Some(row) = rows.first().filter(|row| !row.owned) {
            self.admin.take_ownership(building, &row.owner).await?;
            self.observer.event(&BuildEvent::OtherOwner {
                owner: &row.owner,
                role: &self.target.facts.role,
            });
        }
        Ok(())
    }

    pub(super) async fn connect(
        &self,
        building: &DbName,
    ) -> Result<(PgConnection, OwnSession), TemplateError> {
        let address = self.target.address;
        let options = connect::quiet(address.options(&building.to_string()))
            .application_name("kapsel-testdb build");
        let mut connection = connect::connect(address, &options, RetryLimits::RUNNING).await?;
        let own = OwnSession::of(&mut connection, address).await?;
        Ok((connection, own))
    }

    /// Runs the steps that `prefix` lacks; `None` if they need what the migrations of the prefix left in their session.
    async fn migrate(
        &mut self,
        building: &DbName,
        prefix: Option<&Prefix>,
    ) -> Result<Option<Built>, TemplateError> {
        let address = self.target.address;
        let (mut connection, _own) = self.connect(building).await?;
        let copied = match prefix {
            Some(_) => self.copied_files(&mut connection).await?,
            None => None,
        };
        let extensions = &self.target.template_base.extensions;
        let what = || "create the extensions".to_owned();
        let created = create_extensions(&mut connection, extensions);
        limited(address, what, created).await??;
        let source = &self.plan.source;
        let mut recorded = Recorded::default();
        match prefix {
            // Before the session begins, which may have no search path.
            Some(prefix) => {
                for sqlx in source.steps[..prefix.done]
                    .iter()
                    .filter_map(SchemaStep::sqlx)
                {
                    self.read_recorded(&mut connection, &sqlx.table, &mut recorded)
                        .await?;
                }
            }
            // The template of a prefix has them, whatever its number of steps.
            None => {
                for step in &self.target.template_base.before {
                    self.run_step(&mut connection, step, building).await?;
                }
            }
        }
        let texts = source.steps.iter().filter_map(SchemaStep::text);
        let begin = BuildSession::begin(&mut connection, texts);
        let what = || "read the state of the build's session".to_owned();
        let session = limited(address, what, begin).await?.context(what)?;
        if let Some(prefix) = prefix {
            // Not before the session began: `sqlx migrate run` has no session that starts with the settings of its own migrations.
            self.admin
                .apply_settings(building, &prefix.info.settings)
                .await?;
            let left = prefix.info.session.clone().unwrap_or_default();
            let what = || "restore the state of a session".to_owned();
            match limited(address, what, left.restore(&mut connection)).await? {
                Err(error) if code_of(&error).is_some() => return Ok(None),
                restored => restored.context(what)?,
            }
        }
        let done = prefix.map_or(0, |prefix| prefix.done);
        let ran = self.run_steps(&mut connection, building, done, recorded);
        match ran.await {
            // The session has not used the sequence whose current value a migration reads.
            Err(error) if prefix.is_some() && is_missing_state(&error) => return Ok(None),
            ran => ran?,
        }
        let what = || "reset the session of the build".to_owned();
        let left = limited(address, what, session.end(&mut connection)).await?;
        let left = left.context(what)?;
        let (profile, contents) = self.vacuum_and_close(connection, copied.as_ref()).await?;
        Ok(Some(Built {
            profile,
            session: left,
            contents,
        }))
    }

    /// Runs the steps from `done` on.
    async fn run_steps(
        &self,
        connection: &mut PgConnection,
        building: &DbName,
        done: usize,
        mut recorded: Recorded<'_>,
    ) -> Result<(), TemplateError> {
        let address = self.target.address;
        let source = &self.plan.source;
        for step in &source.steps[done..] {
            match step {
                SchemaStep::Sqlx(sqlx) => {
                    self.read_recorded(connection, &sqlx.table, &mut recorded)
                        .await?;
                    if !recorded.has(&sqlx.table, sqlx.migration.version) {
                        self.migrate_sqlx(connection, sqlx).await?;
                        self.report_named_databases(&sqlx.file(), step.text());
                    }
                }
                SchemaStep::File(step) => {
                    let what = || format!("run `{}`", step.file);
                    let applied = limited(address, what, step.apply(connection));
                    self.step(&step.file, async { applied.await?.map(drop) })
                        .await?;
                    self.report_named_databases(&step.file, Some(step.sql()));
                }
                SchemaStep::Step(step) => self.run_step(connection, step, building).await?,
            }
        }
        // Of empty directories.
        for table in &source.tables {
            self.read_recorded(connection, table, &mut recorded).await?;
        }
        Ok(())
    }

    /// Creates the table in which sqlx records migrations, and reads which ones it has: an earlier step, such as a dump of the schema, may have filled it.
    async fn read_recorded<'t>(
        &self,
        connection: &mut PgConnection,
        table: &'t MigrationsTable,
        recorded: &mut Recorded<'t>,
    ) -> Result<(), TemplateError> {
        if recorded.0.iter().any(|(known, _)| *known == table) {
            return Ok(());
        }
        let read = async {
            let created = create_migrations_table(connection, table).await;
            created.map_err(|error| unlocated(TABLE, &error))?;
            let versions = internal::applied_versions(connection, &table.table).await;
            versions.map_err(|error| unlocated(TABLE, &error))
        };
        let what = || format!("read `{}`", table.table);
        recorded
            .0
            .push((table, limited(self.target.address, what, read).await??));
        Ok(())
    }

    /// Reports the databases that a migration has changed by their names.
    fn report_named_databases(&self, file: &str, text: Option<&str>) {
        for (line, database) in hints::named_databases(text.unwrap_or_default()) {
            let (place, database) = (&*format!("{file}:{line}"), &*database);
            self.observer
                .event(&BuildEvent::OtherDatabase { place, database });
        }
    }

    async fn copied_files(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<Files>, TemplateError> {
        let (address, facts) = (self.target.address, self.target.facts);
        let what = || "list the tables of the template".to_owned();
        limited(address, what, copied_files(connection, facts)).await?
    }

    pub(super) async fn vacuum_and_close(
        &self,
        connection: PgConnection,
        copied: Option<&Files>,
    ) -> Result<(Option<Profile>, Contents), TemplateError> {
        let (address, facts) = (self.target.address, self.target.facts);
        let what = || "vacuum the template".to_owned();
        let vacuumed = vacuum_and_close(connection, address, facts, copied);
        limited(address, what, vacuumed).await?
    }

    async fn migrate_sqlx(
        &self,
        connection: &mut PgConnection,
        sqlx: &SqlxMigration,
    ) -> Result<(), TemplateError> {
        let (table, migration) = (&sqlx.table.table, &sqlx.migration);
        let file = sqlx.file();
        let apply = async {
            match internal::apply_migration(connection, table, migration).await {
                Ok(()) => Ok(()),
                Err(MigrateError::ExecuteMigration(error, _) | MigrateError::Execute(error)) => {
                    let failed = migration_error(connection, migration, &file, &error);
                    Err(failed.await.into())
                }
                Err(error) => Err(unlocated(&file, &error).into()),
            }
        };
        let what = || format!("run `{file}`");
        let apply = limited(self.target.address, what, apply);
        self.step(&file, async { apply.await? }).await
    }

    /// Reports a step that runs.
    async fn step(
        &self,
        file: &str,
        work: impl Future<Output = Result<(), TemplateError>>,
    ) -> Result<(), TemplateError> {
        self.observer.event(&BuildEvent::Step { file });
        let begun = Instant::now();
        work.await?;
        let took = begun.elapsed();
        self.observer.event(&BuildEvent::Ran { file, took });
        Ok(())
    }

    async fn run_step(
        &self,
        connection: &mut PgConnection,
        step: &BuildStep,
        building: &DbName,
    ) -> Result<(), TemplateError> {
        let site = Site {
            address: self.target.address,
            database: &building.to_string(),
            facts: self.target.facts,
        };
        self.step(step.name(), run_step(connection, step, site))
            .await
    }

    async fn seed(
        &mut self,
        building: &DbName,
        settings: &[String],
    ) -> Result<Built, TemplateError> {
        self.admin.apply_settings(building, settings).await?;
        let (mut connection, _own) = self.connect(building).await?;
        let copied = self.copied_files(&mut connection).await?;
        for later in &self.plan.source.later {
            self.run_step(&mut connection, &later.step, building)
                .await?;
        }
        let (profile, contents) = self.vacuum_and_close(connection, copied.as_ref()).await?;
        Ok(Built {
            profile,
            // Nothing is built upon a template with seeds.
            session: None,
            contents,
        })
    }
}

/// What an error of the migrations table names.
const TABLE: &str = "the migrations table";

/// The versions in each table in which sqlx records migrations.
#[derive(Default)]
struct Recorded<'t>(Vec<(&'t MigrationsTable, BTreeSet<i64>)>);

impl Recorded<'_> {
    fn has(&self, table: &MigrationsTable, version: i64) -> bool {
        let mut tables = self.0.iter();
        tables.any(|(known, versions)| *known == table && versions.contains(&version))
    }
}

/// An error of a migration outside its text.
fn unlocated(file: &str, error: &MigrateError) -> ScriptError {
    match error {
        MigrateError::ExecuteMigration(error, _) | MigrateError::Execute(error) => {
            ScriptError::from_server(file, ScriptPosition::Whole, error)
        }
        error => ScriptError::new(file, error.to_string()),
    }
}

/// Whether a statement failed for lack of something that an earlier migration may have left in its session.
fn is_missing_state(error: &TemplateError) -> bool {
    let code = match error {
        TemplateError::Failed(error) => error.code.as_deref(),
        _ => None,
    };
    code == Some(sqlstate::NOT_IN_PREREQUISITE_STATE)
}

/// The template that a build starts from.
struct Prefix {
    /// Number of its steps.
    done: usize,
    name: DbName,
    info: TemplateInfo,
}

/// What is known about a building database that is complete.
pub(super) struct Built {
    pub profile: Option<Profile>,
    pub session: Option<SessionState>,
    pub contents: Contents,
}

pub(super) struct Published {
    pub name: DbName,
    pub settings: Vec<String>,
    pub profile: Option<Profile>,
}
