//! Builds a template. The caller holds the build lock. The building database carries the id of a live run.

use std::collections::BTreeSet;
use std::time::Instant;

use sqlx::PgConnection;
use sqlx::migrate::MigrateError;

use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect::{self, RetryLimits};
use crate::pg::databases::DatabaseRow;
use crate::pg::own::OwnSession;
use crate::pg::script::{ScriptError, ScriptPosition};
use crate::protocol::{BuildStep, DbName, Kind, Profile, RunId, unix_now};
use crate::sqlstate;
use crate::sqlx_compat::{MigrationsTable, internal};
use crate::template::fingerprint::Link;
use crate::template::source::{SchemaStep, SqlxMigration};
use crate::template::steps::{
    Site, create_extensions, create_migrations_table, limited, migration_error, run_step,
    vacuum_and_close,
};
use crate::template::{
    BuildEvent, BuildObserver, BuildTarget, Input, Template, TemplateError, TemplateInfo,
    TemplatePlan, explain_build, usable_template,
};

pub(super) struct Builder<'a> {
    pub admin: &'a mut Admin,
    pub target: BuildTarget<'a>,
    pub plan: &'a TemplatePlan,
    pub run: &'a RunId,
    pub observer: &'a dyn BuildObserver,
}

impl Builder<'_> {
    /// Checks again for the template under the build lock, and builds it if it is missing.
    pub async fn build_if_missing(mut self) -> Result<Template, TemplateError> {
        let existing = self.admin.databases(self.target.namespace).await?;
        let row = existing.iter().find(|row| row.name == self.plan.name);
        if let Some(template) = usable_template(&self.plan.name, row, self.target.facts)? {
            return Ok(template);
        }
        self.announce(&existing);
        for role in &self.target.template_base.roles {
            self.admin.ensure_role(role, "template.roles").await?;
        }
        let migrated = self.build_schema(&existing).await?;
        let built = match &self.plan.chain.seeded {
            Some(link) => {
                self.drop_wreck(link, &existing).await?;
                self.build_seeded(&migrated, link).await?
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

    fn announce(&self, existing: &[DatabaseRow]) {
        let templates: Vec<TemplateInfo> = existing
            .iter()
            .filter(|row| row.is_usable_template())
            .filter_map(|row| TemplateInfo::parse(row.comment.as_deref()))
            .collect();
        let prefix = self.longest_prefix(existing).map(|(k, _)| k);
        let reused = prefix.unwrap_or(0);
        let source = &self.plan.source;
        let before = match prefix {
            Some(_) => 0,
            None => self.target.template_base.before.len(),
        };
        self.observer.event(&BuildEvent::Building {
            reasons: &explain_build(&self.plan.chain.inputs, &templates),
            reused,
            steps: before + source.steps.len() - reused + source.later.len(),
        });
    }

    /// The template with the longest prefix of our steps, and its number of steps.
    fn longest_prefix<'b>(&self, existing: &'b [DatabaseRow]) -> Option<(usize, &'b DatabaseRow)> {
        let links = self.plan.chain.schema.iter().enumerate().rev();
        links
            .filter_map(|(k, link)| {
                let fingerprint = link.fingerprint();
                let row = existing.iter().find(|row| {
                    row.is_usable_template() && *row.name.fingerprint() == fingerprint
                })?;
                Some((k, row))
            })
            .next()
    }

    /// Builds the template of all migrations, unless it exists.
    async fn build_schema(&mut self, existing: &[DatabaseRow]) -> Result<Published, TemplateError> {
        let prefix = self.longest_prefix(existing);
        let all = self.plan.source.steps.len();
        if let Some((k, row)) = prefix
            && k == all
        {
            return Ok(Published::existing(row));
        }
        let (done, source, settings) = match prefix {
            Some((k, row)) => {
                let published = Published::existing(row);
                (Some(k), row.name.to_string(), published.settings)
            }
            None => (None, self.target.template_base.base.clone(), Vec::new()),
        };
        let link = self.plan.chain.migrated();
        self.drop_wreck(link, existing).await?;
        let building = self.create_building(link, &source, &settings).await?;
        let result = self.migrate(&building, done).await;
        self.finish(building, link, self.plan.chain.migrated_inputs(), result)
            .await
    }

    /// Builds the template with seeds from the template without.
    async fn build_seeded(
        &mut self,
        migrated: &Published,
        link: &Link,
    ) -> Result<Published, TemplateError> {
        let source = migrated.name.to_string();
        let building = self
            .create_building(link, &source, &migrated.settings)
            .await?;
        let result = self.seed(&building).await;
        self.finish(building, link, &self.plan.chain.inputs, result)
            .await
    }

    /// Drops a database of ours with the template's name that is no usable template: an interrupted collection left it, or a user
    /// unsealed it.
    async fn drop_wreck(
        &mut self,
        link: &Link,
        existing: &[DatabaseRow],
    ) -> Result<(), TemplateError> {
        let name = DbName::template(self.target.namespace, &link.fingerprint());
        match existing.iter().find(|row| row.name == name && row.owned) {
            Some(row) => Ok(self
                .admin
                .drop_database(&name, row.is_template, false)
                .await?),
            None => Ok(()),
        }
    }

    async fn create_building(
        &mut self,
        link: &Link,
        source: &str,
        settings: &[String],
    ) -> Result<DbName, TemplateError> {
        let building = DbName::for_run(
            self.target.namespace,
            Kind::Building,
            &link.fingerprint(),
            self.run,
        );
        let strategy = super::strategy(self.target.facts);
        self.admin
            .create_database(&building, source, strategy)
            .await?;
        self.admin.apply_settings(&building, settings).await?;
        Ok(building)
    }

    /// Publishes the building database, or drops it if the build failed. A crash leaves it to the sweep of the run.
    async fn finish(
        &mut self,
        building: DbName,
        link: &Link,
        inputs: &[Input],
        result: Result<Option<Profile>, TemplateError>,
    ) -> Result<Published, TemplateError> {
        let published = match result {
            Ok(profile) => self.publish(&building, link, inputs, profile).await,
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
            error => error,
        }
    }

    /// Comments, seals and renames. The rename comes last, because the name makes the template visible.
    async fn publish(
        &mut self,
        building: &DbName,
        link: &Link,
        inputs: &[Input],
        profile: Option<Profile>,
    ) -> Result<Published, TemplateError> {
        let now = unix_now();
        let settings = self.admin.database_settings(building).await?;
        let info = TemplateInfo {
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: link.hex(),
            inputs: inputs.to_vec(),
            settings: settings.clone(),
            profile: profile.clone(),
            built_at: now,
            used_at: now,
        };
        let comment = serde_json::to_string(&info).unwrap_or_default();
        let name = DbName::template(self.target.namespace, &link.fingerprint());
        self.admin.comment(building, &comment).await?;
        self.admin.seal_database(building).await?;
        self.admin.rename_database(building, &name).await?;
        Ok(Published {
            name,
            settings,
            profile,
        })
    }

    async fn connect(
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

    async fn migrate(
        &self,
        building: &DbName,
        done: Option<usize>,
    ) -> Result<Option<Profile>, TemplateError> {
        let address = self.target.address;
        let (mut connection, _own) = self.connect(building).await?;
        let extensions = &self.target.template_base.extensions;
        let what = || "create the extensions".to_owned();
        limited(
            address,
            what,
            create_extensions(&mut connection, extensions),
        )
        .await??;
        // The template of a prefix has them, whatever its number of steps.
        if done.is_none() {
            for step in &self.target.template_base.before {
                self.run_step(&mut connection, step, building).await?;
            }
        }
        let source = &self.plan.source;
        let mut recorded: Vec<(&MigrationsTable, BTreeSet<i64>)> = Vec::new();
        for step in &source.steps[done.unwrap_or(0)..] {
            match step {
                SchemaStep::Sqlx(sqlx) => {
                    let table = &sqlx.table;
                    if recorded.iter().all(|(known, _)| *known != table) {
                        let versions = recorded_versions(&mut connection, table);
                        let what = || "read the migrations table".to_owned();
                        recorded.push((table, limited(address, what, versions).await??));
                    }
                    let version = &sqlx.migration.version;
                    let mut known = recorded.iter();
                    if !known.any(|(known, all)| *known == table && all.contains(version)) {
                        self.migrate_sqlx(&mut connection, sqlx).await?;
                    }
                }
                SchemaStep::File(step) => {
                    let what = || format!("run `{}`", step.file);
                    let applied = limited(address, what, step.apply(&mut connection));
                    self.step(&step.file, async { applied.await?.map(drop) })
                        .await?;
                }
                SchemaStep::Step(step) => self.run_step(&mut connection, step, building).await?,
            }
        }
        for table in &source.tables {
            if recorded.iter().all(|(known, _)| *known != table) {
                let versions = recorded_versions(&mut connection, table);
                let what = || "create the migrations table".to_owned();
                limited(address, what, versions).await??;
            }
        }
        self.vacuum_and_close(connection).await
    }

    async fn vacuum_and_close(
        &self,
        connection: PgConnection,
    ) -> Result<Option<Profile>, TemplateError> {
        let (address, facts) = (self.target.address, self.target.facts);
        let what = || "vacuum the template".to_owned();
        limited(address, what, vacuum_and_close(connection, address, facts)).await?
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

    async fn seed(&self, building: &DbName) -> Result<Option<Profile>, TemplateError> {
        let (mut connection, _own) = self.connect(building).await?;
        for later in &self.plan.source.later {
            self.run_step(&mut connection, &later.step, building)
                .await?;
        }
        self.vacuum_and_close(connection).await
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

struct Published {
    name: DbName,
    settings: Vec<String>,
    profile: Option<Profile>,
}

impl Published {
    fn existing(row: &DatabaseRow) -> Self {
        let info = TemplateInfo::parse(row.comment.as_deref());
        let (settings, profile) = info
            .map(|info| (info.settings, info.profile))
            .unwrap_or_default();
        Self {
            name: row.name.clone(),
            settings,
            profile,
        }
    }
}

/// What an error of the migrations table names.
const TABLE: &str = "the migrations table";

/// Creates the table in which sqlx records migrations, and reads which ones it has: an earlier step, such as a dump of the schema, may have filled it.
async fn recorded_versions(
    connection: &mut PgConnection,
    table: &MigrationsTable,
) -> Result<BTreeSet<i64>, TemplateError> {
    let created = create_migrations_table(connection, table).await;
    created.map_err(|error| unlocated(TABLE, &error))?;
    let versions = internal::applied_versions(connection, &table.table).await;
    Ok(versions.map_err(|error| unlocated(TABLE, &error))?)
}
