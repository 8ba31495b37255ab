//! Builds a template. The caller holds the build lock; the run that the building database is named after is alive.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::migrate::{MigrateError, Migration};
use sqlx::{Connection, PgConnection};

use super::source::Seed;
use super::{
    Event, Input, Notes, Observer, Plan, Site, Template, TemplateError, TemplateInfo, usable, why,
};
use crate::driver::own;
use crate::name::{DbName, Kind, RunId};
use crate::pg::PgError;
use crate::pg::admin::Admin;
use crate::pg::connect;
use crate::pg::connect::Patience;
use crate::pg::databases::DatabaseRow;
use crate::pg::error::{Doing, Refusal, code, code_of};
use crate::pg::{script, sql};
use crate::template::fingerprint::Link;

pub(super) struct Builder<'a> {
    pub admin: &'a mut Admin,
    pub site: Site<'a>,
    pub plan: &'a Plan,
    pub run: &'a RunId,
    pub observer: &'a dyn Observer,
}

impl Builder<'_> {
    /// Looks again now that nobody else builds, and builds what is missing.
    pub async fn build_if_missing(mut self) -> Result<Template, TemplateError> {
        let existing = self.admin.databases(self.site.namespace).await?;
        let row = existing.iter().find(|row| row.name == self.plan.name);
        if let Some(template) = usable(&self.plan.name, row, self.site.facts)? {
            return Ok(template);
        }
        self.announce(&existing);
        let migrated = self.build_schema(&existing).await?;
        let settings = match &self.plan.chain.seeded {
            Some(link) => {
                self.clear_wreck(link, &existing).await?;
                self.build_seeded(&migrated, link).await?
            }
            None => migrated.settings,
        };
        self.observer.event(&Event::Built);
        Ok(Template {
            name: self.plan.name.clone(),
            settings,
            current: false,
        })
    }

    fn announce(&self, existing: &[DatabaseRow]) {
        let templates: Vec<TemplateInfo> = existing
            .iter()
            .filter(|row| row.is_usable_template())
            .filter_map(|row| TemplateInfo::parse(row.comment.as_deref()))
            .collect();
        let reused = self.longest_prefix(existing).map_or(0, |(k, _)| k);
        let source = &self.plan.source;
        self.observer.event(&Event::Building {
            why: &why(&self.plan.chain.inputs, &templates),
            reused,
            steps: source.migrations.len() - reused + source.seeds.len(),
        });
    }

    /// The template with the most migrations of ours, and how many.
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

    /// Builds the template of all migrations, unless it is there.
    async fn build_schema(&mut self, existing: &[DatabaseRow]) -> Result<Published, TemplateError> {
        let prefix = self.longest_prefix(existing);
        let all = self.plan.source.migrations.len();
        if let Some((k, row)) = prefix
            && k == all
        {
            return Ok(Published::existing(row));
        }
        let (done, source, settings) = match prefix {
            Some((k, row)) => {
                let published = Published::existing(row);
                (k, row.name.to_string(), published.settings)
            }
            None => (0, self.site.basis.base.clone(), Vec::new()),
        };
        let link = self.plan.chain.migrated();
        self.clear_wreck(link, existing).await?;
        let building = self.create_building(link, &source, &settings).await?;
        let result = self.migrate(&building, done).await;
        self.finish(building, link, self.plan.chain.migrated_inputs(), result)
            .await
    }

    /// Builds the template with seeds from the one without.
    async fn build_seeded(
        &mut self,
        migrated: &Published,
        link: &Link,
    ) -> Result<Vec<String>, TemplateError> {
        let source = migrated.name.to_string();
        let building = self
            .create_building(link, &source, &migrated.settings)
            .await?;
        let result = self.seed(&building).await;
        self.finish(building, link, &self.plan.chain.inputs, result)
            .await
            .map(|published| published.settings)
    }

    /// Drops what has the name that we are about to publish, is ours and is no template: an interrupted collection's leftover, or
    /// somebody unsealed it.
    async fn clear_wreck(
        &mut self,
        link: &Link,
        existing: &[DatabaseRow],
    ) -> Result<(), TemplateError> {
        let name = DbName::template(self.site.namespace, &link.fingerprint());
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
            self.site.namespace,
            Kind::Building,
            &link.fingerprint(),
            self.run,
        );
        let strategy = super::strategy(self.site.facts);
        self.admin
            .create_database(&building, source, strategy)
            .await?;
        self.admin.apply_settings(&building, settings).await?;
        Ok(building)
    }

    /// Publishes a building database, or drops it where it failed: what stays after a crash here is swept with the run.
    async fn finish(
        &mut self,
        building: DbName,
        link: &Link,
        inputs: &[Input],
        result: Result<(), TemplateError>,
    ) -> Result<Published, TemplateError> {
        let published = match result {
            Ok(()) => self.publish(&building, link, inputs).await,
            Err(error) => Err(self.with_remedy(error).await),
        };
        if published.is_err() {
            let _ = self.admin.drop_database(&building, true, true).await;
        }
        published
    }

    /// Where a file or the vacuuming failed for lack of room, says where that is and what to do.
    async fn with_remedy(&mut self, error: TemplateError) -> TemplateError {
        match error {
            TemplateError::Failed {
                file,
                position,
                message,
                code,
            } if code.as_deref() == Some(code::DISK_FULL) => TemplateError::Failed {
                file,
                position,
                message: format!("{message}; {}", self.admin.full_disk().await),
                code,
            },
            TemplateError::Pg(error) if error.is(code::DISK_FULL) => PgError::DiskFull {
                remedy: self.admin.full_disk().await,
                refused: Box::new(error),
            }
            .into(),
            error => error,
        }
    }

    /// Comment, seal, rename: in this order, because the name is what makes it visible.
    async fn publish(
        &mut self,
        building: &DbName,
        link: &Link,
        inputs: &[Input],
    ) -> Result<Published, TemplateError> {
        let now = unix_now();
        let settings = self.admin.database_settings(building).await?;
        let info = TemplateInfo {
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: link.hex(),
            inputs: inputs.to_vec(),
            settings: settings.clone(),
            built_at: now,
            used_at: now,
        };
        let comment = serde_json::to_string(&info).unwrap_or_default();
        let name = DbName::template(self.site.namespace, &link.fingerprint());
        self.admin.comment(building, &comment).await?;
        self.admin.seal_database(building).await?;
        self.admin.rename_database(building, &name).await?;
        Ok(Published { name, settings })
    }

    async fn connect(&self, building: &DbName) -> Result<PgConnection, TemplateError> {
        let address = self.site.address;
        let options = connect::quiet(address.options(&building.to_string()))
            .application_name("kapsel-testdb build");
        Ok(connect::connect(address, &options, Patience::RUNNING).await?)
    }

    async fn migrate(&self, building: &DbName, done: usize) -> Result<(), TemplateError> {
        let mut connection = self.connect(building).await?;
        create_extensions(&mut connection, &self.site.basis.extensions).await?;
        let notes = self.plan.source.notes.as_ref();
        if let Some(notes) = notes {
            let prepared = prepare_notes(&mut connection, notes).await;
            prepared.map_err(|error| self.migration_failed(None, &error))?;
        }
        let table = notes.map_or("", |notes| &notes.table);
        for migration in &self.plan.source.migrations[done..] {
            let file = self.plan.source.file_of(migration);
            self.observer.event(&Event::Step { file: &file });
            if let Err(error) = own::apply(&mut connection, table, migration).await {
                let statement = failing_statement(&mut connection, migration).await;
                return Err(self.migration_failed(Some((migration, statement)), &error));
            }
        }
        settle(connection).await
    }

    fn migration_failed(
        &self,
        at: Option<(&Migration, Option<usize>)>,
        error: &MigrateError,
    ) -> TemplateError {
        let (file, sql, statement) = match at {
            Some((migration, statement)) => (
                self.plan.source.file_of(migration),
                own::text(migration),
                statement,
            ),
            None => ("the table of migrations".to_owned(), "", None),
        };
        let statement = statement.map_or(String::new(), |n| format!(" in statement {n}"));
        match error {
            MigrateError::ExecuteMigration(error, _) | MigrateError::Execute(error) => {
                let statement = if is_syntax(error) { "" } else { &statement };
                failed(&file, statement, sql, error)
            }
            error => TemplateError::Failed {
                file,
                position: statement,
                message: error.to_string(),
                code: None,
            },
        }
    }

    async fn seed(&self, building: &DbName) -> Result<(), TemplateError> {
        let mut connection = self.connect(building).await?;
        for seed in &self.plan.source.seeds {
            self.observer.event(&Event::Step { file: &seed.file });
            run_seed(&mut connection, seed).await?;
        }
        settle(connection).await
    }
}

async fn prepare_notes(connection: &mut PgConnection, notes: &Notes) -> Result<(), MigrateError> {
    for schema in &notes.schemas {
        own::make_schema(connection, schema).await?;
    }
    own::make_table(connection, &notes.table).await
}

/// What a seed sets for its session (pg_dump empties `search_path`) ends with it.
async fn run_seed(connection: &mut PgConnection, seed: &Seed) -> Result<(), TemplateError> {
    let mut text = seed.open()?;
    script::run(connection, &seed.file, &mut text).await?;
    if text.checksum() != seed.checksum {
        return Err(TemplateError::Changed(seed.path.clone()));
    }
    let reset = own::execute(connection, "RESET ALL").await;
    reset.doing(|| "reset the session".to_owned())?;
    Ok(())
}

/// Makes every clone start with visible, analysed rows, and leaves the database without sessions.
async fn settle(mut connection: PgConnection) -> Result<(), TemplateError> {
    let doing = || "vacuum the template".to_owned();
    own::execute(&mut connection, "VACUUM (FREEZE, ANALYZE)")
        .await
        .doing(doing)?;
    connection.close().await.doing(doing)?;
    Ok(())
}

/// Which statement of a failed migration fails: it was rolled back, so the same thing happens again in a transaction that we
/// roll back, counting. A migration without transaction may have had effects, so it is not repeated.
async fn failing_statement(connection: &mut PgConnection, migration: &Migration) -> Option<usize> {
    if migration.no_tx {
        return None;
    }
    let mut transaction = connection.begin().await.ok()?;
    let result = connect::run_script(&mut transaction, own::text(migration)).await;
    let _ = transaction.rollback().await;
    result.err().map(|(done, _)| done + 1)
}

/// The server parses a script as a whole: a syntax error in any statement comes before the first one runs.
fn is_syntax(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some(code::SYNTAX_ERROR)
}

/// Creates the extensions that are missing.
pub(super) async fn create_extensions(
    connection: &mut PgConnection,
    extensions: &[String],
) -> Result<(), TemplateError> {
    for extension in extensions {
        let sql = format!(
            "CREATE EXTENSION IF NOT EXISTS {} CASCADE",
            sql::identifier(extension)
        );
        let ran = connect::run_script(connection, &sql).await;
        ran.map_err(|(_, error)| failed("template.extensions", "", &sql, &error))?;
    }
    Ok(())
}

fn failed(file: &str, statement: &str, sql: &str, error: &sqlx::Error) -> TemplateError {
    let refusal = Refusal::of(error);
    let position = match refusal.position {
        Some(position) => {
            let (line, column) = line_and_column(sql, position);
            format!(" at line {line}, column {column}{statement}")
        }
        None => statement.to_owned(),
    };
    TemplateError::Failed {
        file: file.to_owned(),
        position,
        message: refusal.message,
        code: refusal.code,
    }
}

/// The line and column of the server's one-based position in characters.
fn line_and_column(sql: &str, position: usize) -> (usize, usize) {
    let before: Vec<char> = sql.chars().take(position.saturating_sub(1)).collect();
    let line = before.iter().filter(|c| **c == '\n').count() + 1;
    let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
    (line, column)
}

struct Published {
    name: DbName,
    settings: Vec<String>,
}

impl Published {
    fn existing(row: &DatabaseRow) -> Self {
        let info = TemplateInfo::parse(row.comment.as_deref());
        Self {
            name: row.name.clone(),
            settings: info.map(|info| info.settings).unwrap_or_default(),
        }
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn positions_count_characters_not_bytes() {
        let sql = "-- ä\nSELECT ü x";
        assert_eq!(line_and_column(sql, 1), (1, 1));
        assert_eq!(line_and_column(sql, 6), (2, 1));
        assert_eq!(line_and_column(sql, 13), (2, 8));
        assert_eq!(line_and_column(sql, 15), (2, 10));
    }
}
