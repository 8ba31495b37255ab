//! The sources of a template: migrations, files of SQL, and commands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha384};
use sqlx::migrate::Migration;

use crate::config::{Config, SchemaSource, StepConfig, find_root, shown_path};
use crate::protocol::{BuildStep, MigrateSettings, MigrationDirectory, Script, TemplateBase, hex};
use crate::sqlx_compat::{EmbeddedMigrator, MigrationsTable, internal};
use crate::template::files::{self, MigrationFile};
use crate::template::{TemplateError, command};

impl Script {
    fn read(root: &Path, path: &Path, key: &str) -> Result<Self, TemplateError> {
        let checksum = HashingReader::open(path).and_then(|mut text| {
            io::copy(&mut text, &mut io::sink())?;
            Ok(text.checksum())
        });
        Ok(Self {
            file: shown_path(root, path),
            path: path.to_path_buf(),
            checksum: checksum.map_err(|error| TemplateError::Read {
                path: path.to_path_buf(),
                message: format!("{error} (listed in `{key}`)"),
            })?,
        })
    }

    /// Opens the file to run it, and hashes it again while it is read.
    pub(super) fn open(&self) -> Result<HashingReader, TemplateError> {
        HashingReader::open(&self.path).map_err(|error| TemplateError::Read {
            path: self.path.clone(),
            message: error.to_string(),
        })
    }
}

impl BuildStep {
    /// Reads a file, or the input files of a command. `key`: the key that lists it.
    fn read(root: &Path, step: &StepConfig, key: &str) -> Result<Self, TemplateError> {
        Ok(match step {
            StepConfig::Path(path) => Self::Script(Script::read(root, path, key)?),
            StepConfig::Command(config) => Self::Command(command::read(root, config)?),
        })
    }

    fn read_all(root: &Path, steps: &[StepConfig], key: &str) -> Result<Vec<Self>, TemplateError> {
        steps
            .iter()
            .map(|step| Self::read(root, step, key))
            .collect()
    }

    /// The file or the command, for output.
    pub fn name(&self) -> &str {
        match self {
            Self::Script(script) => &script.file,
            Self::Command(command) => &command.name,
        }
    }

    pub(super) fn checksum(&self) -> &str {
        match self {
            Self::Script(script) => &script.checksum,
            Self::Command(command) => &command.checksum,
        }
    }
}

/// Hashes a file while it is read.
#[derive(Debug)]
pub(super) struct HashingReader {
    file: File,
    hash: Sha384,
}

impl HashingReader {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            hash: Sha384::new(),
        })
    }

    /// The checksum of the bytes that were read, in hexadecimal.
    pub fn checksum(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A step of the schema.
#[derive(Debug, Clone)]
pub enum SchemaStep {
    /// A migration of sqlx.
    Sqlx(SqlxMigration),
    /// A migration of another tool.
    File(MigrationFile),
    /// A file of SQL or a command.
    Step(BuildStep),
}

impl SchemaStep {
    /// The migration of sqlx that it is.
    pub(super) fn sqlx(&self) -> Option<&SqlxMigration> {
        match self {
            Self::Sqlx(sqlx) => Some(sqlx),
            Self::File(_) | Self::Step(_) => None,
        }
    }

    /// The text of a migration, which can leave something in the session. Scripts leave nothing, and commands have other sessions.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Sqlx(sqlx) => Some(internal::migration_sql(&sqlx.migration)),
            Self::File(file) => Some(file.sql()),
            Self::Step(_) => None,
        }
    }
}

/// A migration of sqlx.
#[derive(Debug, Clone)]
pub struct SqlxMigration {
    /// The workspace root, for messages.
    root: PathBuf,
    /// The directory, unless it is compiled into a test.
    pub directory: Option<PathBuf>,
    /// The table in which sqlx records it.
    pub table: MigrationsTable,
    /// The migration.
    pub migration: Migration,
}

/// A step after the last migration.
#[derive(Debug, Clone)]
pub struct LaterStep {
    /// `after` or `seed`.
    pub kind: &'static str,
    /// The step.
    pub step: BuildStep,
}

/// Everything that a build runs, in order, after what the [`TemplateBase`] has.
#[derive(Debug, Clone)]
pub struct Source {
    /// The workspace root, for messages.
    root: PathBuf,
    /// The directories of migrations, unless they are compiled into a test.
    pub directories: Vec<MigrationDirectory>,
    /// The tables in which sqlx records migrations, one for each directory or compiled migrator.
    pub tables: Vec<MigrationsTable>,
    /// The steps of the schema.
    pub steps: Vec<SchemaStep>,
    /// What runs after them.
    pub later: Vec<LaterStep>,
}

impl Source {
    /// Reads the configured files. sqlx itself reads its migrations, so their names and checksums are those of sqlx.
    ///
    /// # Errors
    /// A directory is missing or empty, or a file cannot be read.
    pub async fn read(config: &Config) -> Result<Self, TemplateError> {
        let mut source = Self::schema(config).await?;
        source.add_later(config, "after", &config.template.after)?;
        source.add_later(config, "seed", &config.template.seeds)?;
        Ok(source)
    }

    fn add_later(
        &mut self,
        config: &Config,
        kind: &'static str,
        steps: &[StepConfig],
    ) -> Result<(), TemplateError> {
        let key = match kind {
            "after" => "template.after",
            _ => "template.seeds",
        };
        let steps = BuildStep::read_all(&config.root, steps, key)?;
        let steps = steps.into_iter();
        self.later
            .extend(steps.map(|step| LaterStep { kind, step }));
        Ok(())
    }

    /// [`Self::read`] without the seeds, because large seeds take time to hash.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub async fn without_seeds(config: &Config) -> Result<Self, TemplateError> {
        let mut source = Self::schema(config).await?;
        source.add_later(config, "after", &config.template.after)?;
        Ok(source)
    }

    async fn schema(config: &Config) -> Result<Self, TemplateError> {
        let mut source = Self::empty();
        source.root.clone_from(&config.root);
        for item in &config.template.migrations {
            match item {
                SchemaSource::Directory(directory) => {
                    let before = source.steps.len();
                    source.add_directory(directory.clone()).await?;
                    if source.steps.len() == before {
                        return Err(TemplateError::EmptyMigrations(directory.path.clone()));
                    }
                }
                SchemaSource::Step(step) => {
                    let step = BuildStep::read(&config.root, step, "template.migrations")?;
                    source.steps.push(SchemaStep::Step(step));
                }
            }
        }
        source.check_versions()?;
        Ok(source)
    }

    /// The migrations of a directory, without seeds. It may be empty.
    ///
    /// # Errors
    /// The directory is missing, or a file cannot be read.
    pub async fn from_directory(
        path: PathBuf,
        migrate: &MigrateSettings,
    ) -> Result<Self, TemplateError> {
        let mut source = Self::empty();
        source.root = find_root(&path);
        let migrate = migrate.clone();
        source
            .add_directory(MigrationDirectory { path, migrate })
            .await?;
        Ok(source)
    }

    async fn add_directory(&mut self, directory: MigrationDirectory) -> Result<(), TemplateError> {
        if !directory.path.is_dir() {
            return Err(TemplateError::NoMigrations(directory.path));
        }
        if let Some(files) = files::read(&directory.path)? {
            self.steps.extend(files.into_iter().map(SchemaStep::File));
        } else {
            let migrations = read_migrations(&directory.path, &directory.migrate).await?;
            let table = MigrationsTable::configured(&directory.migrate);
            self.add_sqlx(Some(&directory.path), table, migrations);
        }
        self.directories.push(directory);
        Ok(())
    }

    fn add_sqlx(
        &mut self,
        directory: Option<&Path>,
        table: MigrationsTable,
        migrations: Vec<Migration>,
    ) {
        let root = self.root.clone();
        let steps = migrations.into_iter().map(|migration| SqlxMigration {
            root: root.clone(),
            directory: directory.map(Path::to_path_buf),
            table: table.clone(),
            migration,
        });
        self.steps.extend(steps.map(SchemaStep::Sqlx));
        self.tables.push(table);
    }

    /// Refuses migrations of two directories with the same version in the same table.
    fn check_versions(&self) -> Result<(), TemplateError> {
        let mut seen = BTreeMap::new();
        for sqlx in self.sqlx() {
            let key = (&sqlx.table.table, sqlx.migration.version);
            if let Some(other) = seen.insert(key, sqlx)
                && let (Some(first), Some(second)) = (&other.directory, &sqlx.directory)
            {
                return Err(TemplateError::SameVersion {
                    first: first.clone(),
                    second: second.clone(),
                    version: sqlx.migration.version,
                    table: sqlx.table.table.clone(),
                });
            }
        }
        Ok(())
    }

    /// The migrations of sqlx.
    pub(super) fn sqlx(&self) -> impl Iterator<Item = &SqlxMigration> {
        self.steps.iter().filter_map(SchemaStep::sqlx)
    }

    /// The migrations of a migrator that is compiled into a test.
    pub fn from_migrator(migrator: &dyn EmbeddedMigrator) -> Self {
        let mut source = Self::empty();
        let migrations = migrator.up().iter().map(internal::migration).collect();
        source.add_sqlx(None, MigrationsTable::of(migrator), migrations);
        source
    }

    /// No migrations and no seeds.
    pub fn empty() -> Self {
        Self {
            root: PathBuf::new(),
            directories: Vec::new(),
            tables: Vec::new(),
            steps: Vec::new(),
            later: Vec::new(),
        }
    }
}

impl TemplateBase {
    /// From the configuration.
    ///
    /// # Errors
    /// A file of `template.before` cannot be read.
    pub fn of(config: &Config) -> Result<Self, TemplateError> {
        let template = &config.template;
        Ok(Self {
            base: template.base.clone(),
            extensions: template.extensions.clone(),
            roles: template.roles.clone(),
            before: BuildStep::read_all(&config.root, &template.before, "template.before")?,
        })
    }
}

impl SqlxMigration {
    /// The file, for messages: relative to the workspace root, if it is below it.
    pub fn file(&self) -> String {
        let migration = &self.migration;
        let found = self.directory.iter().find_map(|directory| {
            std::fs::read_dir(directory)
                .ok()?
                .flatten()
                .find_map(|entry| {
                    let name = entry.file_name().into_string().ok()?;
                    let version: i64 = name.split_once('_')?.0.parse().ok()?;
                    let found = version == migration.version && !name.ends_with(".down.sql");
                    found.then(|| shown_path(&self.root, &entry.path()))
                })
        });
        found.unwrap_or_else(|| format!("{}_{}", migration.version, migration.description))
    }
}

async fn read_migrations(
    directory: &Path,
    migrate: &MigrateSettings,
) -> Result<Vec<Migration>, TemplateError> {
    let migrator = internal::read_migrations(directory, &migrate.ignored_chars).await;
    let migrator = migrator.map_err(|error| TemplateError::Read {
        path: directory.to_path_buf(),
        message: error.to_string(),
    })?;
    let migrations: Vec<Migration> = migrator
        .iter()
        .filter(|m| !m.migration_type.is_down_migration())
        .cloned()
        .collect();
    if let Some(pair) = migrations.windows(2).find(|m| m[0].version == m[1].version) {
        return Err(TemplateError::Read {
            path: directory.to_path_buf(),
            message: format!(
                "two migrations have the version {}: `{}` and `{}`; rename one",
                pair[0].version, pair[0].description, pair[1].description
            ),
        });
    }
    Ok(migrations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_seed_covers_its_whole_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("seed.sql");
        for text in [String::new(), "SELECT 1; -- ü\n".repeat(100_000)] {
            std::fs::write(&path, &text).expect("a file");
            let seed = Script::read(dir.path(), &path, "template.seeds").expect("a seed");
            assert_eq!(seed.file, "seed.sql");
            assert_eq!(seed.checksum, hex(&Sha384::digest(&text)));
        }
    }
}
