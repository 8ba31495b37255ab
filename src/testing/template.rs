//! Which template a test's clone is made from: the run's, or one of its own, where the test names other migrations than the run's.
//!
//! That it is the run's costs a look for `sqlx.toml` and at `migrations` in the package, and for a compiled migrator a few hashes. Another one is
//! found on the server, or built like the run's, by the first who needs it. It is entered in the run directory, so that the keeper holds
//! its lock and collectors on this host leave it. A crash leaves what a crash of `prepare` leaves: a `building` database of the run.

use std::path::{Path, PathBuf};
use std::sync::Once;

use super::plan::Migrations;
use super::{TestDbError, report};
use crate::config::{ConfigError, Migrate};
use crate::name::{DbName, Kind};
use crate::pg::admin::Admin;
use crate::pg::lock::LockKey;
use crate::platform::is_same_folder;
use crate::run::RunError;
use crate::run_dir::{MadeOf, RunDir, RunDirError, RunFile};
use crate::template::{
    self, Input, Link, Plan, Quiet, Site, Source, Template, TemplateError, TemplateInfo,
};

/// What a test says of its schema.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Where its package was compiled.
    pub package: &'static str,
    /// What it says.
    pub migrations: Migrations,
}

/// Another template than the run's.
#[derive(Debug)]
pub struct Other {
    source: Source,
    name: DbName,
    /// Whether it is compiled into the test, and can be stale.
    compiled: bool,
}

impl Wanted {
    /// None: the run's template.
    pub async fn other(&self, file: &RunFile) -> Result<Option<Other>, TestDbError> {
        let made_of = &file.made_of;
        let start = || Link::parse(&made_of.start).ok_or_else(damaged);
        let (source, last, compiled) = match self.migrations {
            Migrations::Inferred | Migrations::Folder(_) => {
                let Some((folder, migrate)) = self.folder(made_of)? else {
                    return Ok(None);
                };
                let source = Source::folder(folder, &migrate).await;
                let source = source.map_err(RunError::from)?;
                let last = start()?.migrated_from(&source);
                (source, last, false)
            }
            Migrations::Embedded(migrator) => {
                let last = start()?.migrated_by(migrator);
                if last.hex() == made_of.schema {
                    return Ok(None);
                }
                (Source::embedded(migrator), last, true)
            }
            Migrations::None => (Source::empty(), start()?, false),
        };
        let empty = matches!(self.migrations, Migrations::None);
        if last.hex() == made_of.schema && !(empty && made_of.seeds) {
            return Ok(None);
        }
        let name = DbName::template(&file.namespace, &last.fingerprint());
        Ok(Some(Other {
            source,
            name,
            compiled,
        }))
    }

    /// The folder that it names, or the package's own, and what `sqlx.toml` says of it; none where there is none, and where it is the
    /// run's.
    fn folder(&self, made_of: &MadeOf) -> Result<Option<(PathBuf, Migrate)>, ConfigError> {
        let package = self.package();
        let migrate = Migrate::of_package(&package)?;
        let folder = match (self.migrations, &migrate.migrations_dir) {
            (Migrations::Folder(folder), _) => folder,
            (_, Some(folder)) => folder,
            (_, None) => "migrations",
        };
        let folder = package.join(folder);
        let is_runs = is_same(&folder, made_of) && made_of.migrate == migrate;
        let is_there = matches!(self.migrations, Migrations::Folder(_)) || folder.is_dir();
        Ok((!is_runs && is_there).then_some((folder, migrate)))
    }

    /// The package's folder: where it is now, if somebody has moved it since it was compiled.
    fn package(&self) -> PathBuf {
        package(self.package)
    }
}

fn damaged() -> RunDirError {
    RunDirError::Unreadable {
        path: "run.json".into(),
        message: "`made_of.start` is no hash".to_owned(),
    }
}

/// Where a package is that was compiled in that folder. nextest says where it is when it runs from an archive.
pub fn package(compiled: &str) -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| compiled.into(), PathBuf::from)
}

/// Whether that is the folder of the run's migrations.
fn is_same(folder: &Path, made_of: &MadeOf) -> bool {
    let run = made_of.migrations.as_ref();
    run.is_some_and(|run| is_same_folder(run, folder))
}

impl Other {
    /// A new name for a clone of it.
    pub fn new_clone(&self, file: &RunFile) -> DbName {
        let fingerprint = self.name.fingerprint();
        DbName::for_run(&file.namespace, Kind::Clone, fingerprint, &file.run)
    }

    /// Finds or builds it, holds its lock on that session, and says what `run.json` would say if it were the run's.
    pub async fn ensure(
        &self,
        admin: &mut Admin,
        file: &RunFile,
        dir: &RunDir,
    ) -> Result<RunFile, TestDbError> {
        dir.enter_template(&self.name)?;
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
            let row = found
                .iter()
                .find(|row| row.name == *name && row.is_usable_template())?;
            TemplateInfo::parse(row.comment.as_deref())
        };
        let run = info(&file.template);
        if let Some(own) = info(&self.name) {
            self.tell_stale(run.as_ref(), &own.inputs);
            return Ok(Template {
                name: self.name.clone(),
                settings: own.settings,
                current: true,
            });
        }
        let basis = &file.made_of.basis;
        let facts = admin.facts(&basis.base).await?;
        let plan = Plan::of(self.source.clone(), &file.namespace, basis, &facts);
        self.tell_stale(run.as_ref(), &plan.chain.inputs);
        let site = Site {
            namespace: &file.namespace,
            basis,
            address: file.admin_address(),
            facts: &facts,
        };
        template::ensure(admin, site, &plan, &file.run, &Quiet).await
    }

    /// Says once per process what of the compiled migrations is not as in the run's.
    fn tell_stale(&self, run: Option<&TemplateInfo>, compiled: &[Input]) {
        static ONCE: Once = Once::new();
        if !self.compiled {
            return;
        }
        if let Some(lines) = run.and_then(|run| template::stale(&run.inputs, compiled)) {
            ONCE.call_once(|| report::stale_migrator(&lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::template::Basis;

    #[test]
    fn the_runs_folder_is_known_by_its_path_and_by_what_is_there() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let at = |name: &str| dir.path().join(name);
        for folder in ["migrations", "other"] {
            fs::create_dir(at(folder)).expect("a folder");
        }
        std::os::unix::fs::symlink(at("migrations"), at("link")).expect("a link");
        let made_of = |migrations| MadeOf {
            migrations,
            migrate: Migrate::default(),
            seeds: false,
            basis: Basis {
                base: "template0".to_owned(),
                extensions: Vec::new(),
            },
            start: String::new(),
            schema: String::new(),
        };
        let run = made_of(Some(at("migrations")));
        assert!(is_same(&at("migrations"), &run) && is_same(&at("link"), &run));
        assert!(is_same(&at("other/../migrations"), &run));
        assert!(!is_same(&at("other"), &run) && !is_same(&at("gone"), &run));
        assert!(!is_same(&at("gone"), &made_of(Some(at("gone as well")))));
        assert!(!is_same(&at("migrations"), &made_of(None)));
    }
}
