//! The template of a test's clone: the run's, or a custom template if the test names other migrations than the run's.
//!
//! The comparison with the run's template checks the package for `sqlx.toml` and for its migration directory, and hashes a compiled migrator.
//! A custom template is found on the server; if it is missing, the first test that needs it builds it like the run's. Its name is
//! registered in the run directory, so that the keeper holds its lock and collectors on this host do not drop it. A crash leaves what a
//! crash of `prepare` leaves: a `building` database of the run.

use std::path::{Path, PathBuf};
use std::sync::Once;

use kapsel_testdb_core::config::ConfigError;
use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::pg::lock::LockKey;
use kapsel_testdb_core::platform::is_same_dir;
use kapsel_testdb_core::protocol::{
    DbName, Kind, MigrateSettings, RunDir, RunDirError, RunFile, TemplateInputs,
};
use kapsel_testdb_core::run::RunError;
use kapsel_testdb_core::sqlx_compat::EmbeddedMigrator;
use kapsel_testdb_core::template::{
    self, BuildTarget, Input, Link, LogObserver, Source, Template, TemplateError, TemplateInfo,
    TemplatePlan,
};

use crate::{TestDbError, report};

/// The source of the schema of a test's database.
#[derive(Debug, Clone, Copy, Default)]
pub enum Migrations {
    /// The package's migration directory (`migrations`, or `migrations-dir` of its `sqlx.toml`) if it exists, else the run's template.
    #[default]
    Inferred,
    /// A directory, relative to the package.
    Directory(&'static str),
    /// A migrator that is compiled into the test.
    Embedded(&'static dyn EmbeddedMigrator),
    /// No schema: an empty database.
    None,
}

/// The schema that a test requests.
#[derive(Debug, Clone, Copy)]
pub struct SchemaRequest {
    /// The package's directory when it was compiled.
    pub package: &'static str,
    pub migrations: Migrations,
}

/// A template other than the run's.
#[derive(Debug)]
pub struct CustomTemplate {
    source: Source,
    name: DbName,
    /// Whether the migrations are compiled into the test, so that they can be out of date.
    embedded: bool,
}

impl SchemaRequest {
    /// The custom template that the test needs. `None` means the run's template.
    pub async fn custom_template(
        &self,
        file: &RunFile,
    ) -> Result<Option<CustomTemplate>, TestDbError> {
        let template_inputs = &file.template_inputs;
        let start = || Link::parse(&template_inputs.start).ok_or_else(invalid_start);
        let (source, last, embedded) = match self.migrations {
            Migrations::Inferred | Migrations::Directory(_) => {
                let Some((directory, migrate)) = self.directory(file)? else {
                    return Ok(None);
                };
                let source = Source::from_directory(directory, &migrate).await;
                let source = source.map_err(RunError::from)?;
                let last = start()?.after_source(&source);
                (source, last, false)
            }
            Migrations::Embedded(migrator) => {
                let last = start()?.after_migrator(migrator);
                if last.hex() == template_inputs.schema {
                    return Ok(None);
                }
                (Source::from_migrator(migrator), last, true)
            }
            Migrations::None => (Source::empty(), start()?, false),
        };
        let empty = matches!(self.migrations, Migrations::None);
        if last.hex() == template_inputs.schema && !(empty && template_inputs.seeds) {
            return Ok(None);
        }
        let name = DbName::template(&file.namespace, &last.fingerprint());
        Ok(Some(CustomTemplate {
            source,
            name,
            embedded,
        }))
    }

    /// Whether the test names no migrations.
    pub fn is_inferred(&self) -> bool {
        matches!(self.migrations, Migrations::Inferred)
    }

    /// The migration directory that the test names, or else the package's own.
    pub fn named_directory(&self, reads_sqlx_toml: bool) -> Option<PathBuf> {
        let package = package_directory(self.package);
        match self.migrations {
            Migrations::Directory(directory) => Some(package.join(directory)),
            Migrations::Inferred => {
                let migrate = MigrateSettings::of_package(&package, reads_sqlx_toml).ok()?;
                let directory = migrate.migrations_dir.as_deref();
                Some(package.join(directory.unwrap_or("migrations")))
            }
            Migrations::Embedded(_) | Migrations::None => None,
        }
    }

    /// The migration directory that the test names, or else the package's own, with the settings of the package's `sqlx.toml`. `None` if
    /// it is the run's directory, or if the package has none.
    fn directory(&self, file: &RunFile) -> Result<Option<(PathBuf, MigrateSettings)>, ConfigError> {
        let package = package_directory(self.package);
        let migrate = MigrateSettings::of_package(&package, !file.ignores_sqlx_toml)?;
        let directory = match (self.migrations, &migrate.migrations_dir) {
            (Migrations::Directory(directory), _) => directory,
            (_, Some(directory)) => directory,
            (_, None) => "migrations",
        };
        let directory = package.join(directory);
        let is_runs = is_run_directory(&directory, &migrate, &file.template_inputs);
        let exists = matches!(self.migrations, Migrations::Directory(_)) || directory.is_dir();
        Ok((!is_runs && exists).then_some((directory, migrate)))
    }
}

fn invalid_start() -> RunDirError {
    RunFile::invalid("`template_inputs.start` is not a hash")
}

/// The present directory of a package, which may have moved since it was compiled. nextest sets the variable when it runs from an archive.
pub fn package_directory(compiled: &str) -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| compiled.into(), PathBuf::from)
}

/// Whether the run's template has the migrations of the directory, with the same settings.
fn is_run_directory(
    directory: &Path,
    migrate: &MigrateSettings,
    template_inputs: &TemplateInputs,
) -> bool {
    let mut run = template_inputs.migrations.iter();
    run.any(|run| is_same_dir(&run.path, directory) && run.migrate == *migrate)
}

impl CustomTemplate {
    /// The name of a new clone.
    pub fn new_clone_name(&self, file: &RunFile) -> DbName {
        let fingerprint = self.name.fingerprint();
        DbName::for_run(&file.namespace, Kind::Clone, fingerprint, &file.run)
    }

    /// Finds or builds the template, and holds its lock on the session. Returns `file` as it would be if this were the run's template.
    pub async fn ensure(
        &self,
        admin: &mut Admin,
        file: &RunFile,
        dir: &RunDir,
    ) -> Result<RunFile, TestDbError> {
        dir.register_template(&self.name)?;
        let template = self
            .find_or_build(admin, file)
            .await
            .map_err(RunError::from)?;
        Ok(RunFile {
            template: template.name,
            settings: template.settings,
            ..file.clone()
        })
    }

    async fn find_or_build(
        &self,
        admin: &mut Admin,
        file: &RunFile,
    ) -> Result<Template, TemplateError> {
        let names = [self.name.clone(), file.template.clone()];
        let lock = LockKey::template(&self.name);
        let found = admin.lock_and_find(&[lock], &names).await?;
        let info = |name: &DbName| {
            let row = found.iter().find(|row| row.name == *name)?;
            TemplateInfo::of(row).ok()
        };
        let run = info(&file.template);
        if let Some(custom) = info(&self.name)
            && custom.check_extensions(admin).await?.is_none()
        {
            self.report_stale(run.as_ref(), &custom.inputs);
            return Ok(Template {
                name: self.name.clone(),
                settings: custom.settings,
                profile: custom.profile,
                existed: true,
            });
        }
        let template_base = &file.template_inputs.template_base;
        let facts = admin.facts(&template_base.base).await?;
        let plan = TemplatePlan::of(self.source.clone(), &file.namespace, template_base, &facts);
        self.report_stale(run.as_ref(), &plan.chain.inputs);
        let target = BuildTarget {
            namespace: &file.namespace,
            template_base,
            address: file.admin_address(),
            facts: &facts,
        };
        template::ensure(admin, target, &plan, &file.run, &LogObserver).await
    }

    /// Reports once per process how compiled migrations differ from the run's.
    fn report_stale(&self, run: Option<&TemplateInfo>, inputs: &[Input]) {
        static ONCE: Once = Once::new();
        if !self.embedded {
            return;
        }
        if let Some(lines) = run.and_then(|run| template::explain_stale(&run.inputs, inputs)) {
            ONCE.call_once(|| report::stale_migrator(&lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kapsel_testdb_core::protocol::{MigrationDirectory, TemplateBase};

    use super::*;

    #[test]
    fn the_runs_directory_is_recognized_by_path_and_by_inode() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let at = |name: &str| dir.path().join(name);
        for directory in ["migrations", "other"] {
            fs::create_dir(at(directory)).expect("a directory");
        }
        std::os::unix::fs::symlink(at("migrations"), at("link")).expect("a link");
        let migrate = MigrateSettings::default();
        let is_run_directory = |directory: &Path, run: &TemplateInputs| {
            is_run_directory(directory, &MigrateSettings::default(), run)
        };
        let template_inputs = |migrations: Option<PathBuf>| TemplateInputs {
            migrations: migrations
                .map(|path| MigrationDirectory {
                    path,
                    migrate: migrate.clone(),
                })
                .into_iter()
                .collect(),
            seeds: false,
            template_base: TemplateBase {
                base: "template0".to_owned(),
                extensions: Vec::new(),
                roles: Vec::new(),
                before: Vec::new(),
            },
            start: String::new(),
            schema: String::new(),
        };
        let run = template_inputs(Some(at("migrations")));
        assert!(is_run_directory(&at("migrations"), &run));
        assert!(is_run_directory(&at("link"), &run));
        assert!(is_run_directory(&at("other/../migrations"), &run));
        assert!(!is_run_directory(&at("other"), &run));
        assert!(!is_run_directory(&at("gone"), &run));
        let gone = template_inputs(Some(at("gone as well")));
        assert!(!is_run_directory(&at("gone"), &gone));
        assert!(!is_run_directory(&at("migrations"), &template_inputs(None)));
    }
}
