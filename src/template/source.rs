//! What a template is made of: migrations and seed files, read from disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha384};
use sqlx::migrate::Migration;

use super::TemplateError;
use crate::config::{Config, Migrate};
use crate::driver::EmbeddedMigrator;
use crate::driver::own::{self, MIGRATIONS_TABLE};
use crate::name::hex;

/// A seed file, of any size: its text is never held.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its path, relative to the root where it is below it.
    pub file: String,
    /// Where it is.
    pub path: PathBuf,
    /// SHA-384 of the text, in hexadecimal.
    pub checksum: String,
}

/// Where sqlx notes what has been applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notes {
    /// The table.
    pub table: String,
    /// Schemas that are made first.
    pub schemas: Vec<String>,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            table: MIGRATIONS_TABLE.to_owned(),
            schemas: Vec::new(),
        }
    }
}

impl Notes {
    /// What a package's `sqlx.toml` says.
    fn configured(migrate: &Migrate) -> Self {
        let table = migrate.table_name.as_deref();
        Self {
            table: table.unwrap_or(MIGRATIONS_TABLE).to_owned(),
            schemas: migrate.create_schemas.iter().cloned().collect(),
        }
    }

    /// A migrator's.
    pub fn of(migrator: &dyn EmbeddedMigrator) -> Self {
        Self {
            table: migrator.table().to_owned(),
            schemas: migrator.schemas().into_iter().map(str::to_owned).collect(),
        }
    }
}

impl Seed {
    fn read(root: &Path, path: &Path) -> Result<Self, TemplateError> {
        let checksum = Hashed::open(path).and_then(|mut text| {
            io::copy(&mut text, &mut io::sink())?;
            Ok(text.checksum())
        });
        let file = path.strip_prefix(root).unwrap_or(path);
        Ok(Self {
            file: file.to_string_lossy().into_owned(),
            path: path.to_path_buf(),
            checksum: checksum.map_err(|error| unreadable_seed(path, &error))?,
        })
    }

    /// Opens it to be run; what is read is hashed again.
    pub(super) fn open(&self) -> Result<Hashed, TemplateError> {
        Hashed::open(&self.path).map_err(|error| unreadable_seed(&self.path, &error))
    }
}

fn unreadable_seed(path: &Path, error: &io::Error) -> TemplateError {
    TemplateError::Read {
        path: path.to_path_buf(),
        message: format!("{error} (it is in `template.seeds`)"),
    }
}

/// A file that is hashed while it is read.
#[derive(Debug)]
pub(super) struct Hashed {
    file: File,
    hash: Sha384,
}

impl Hashed {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            hash: Sha384::new(),
        })
    }

    /// Of what has been read, in hexadecimal.
    pub fn checksum(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Everything that runs to make a template, in order.
#[derive(Debug, Clone)]
pub struct Source {
    /// The directory of the migrations.
    pub directory: Option<PathBuf>,
    /// Up-migrations by version.
    pub migrations: Vec<Migration>,
    /// Where they are noted; none where there is no migrator.
    pub notes: Option<Notes>,
    /// Seed files in the configured order.
    pub seeds: Vec<Seed>,
}

impl Source {
    /// Reads the configured files. Migrations are read by sqlx itself, so that names and checksums mean what they mean there.
    ///
    /// # Errors
    /// The directory is missing or empty, or a file cannot be read.
    pub async fn read(config: &Config) -> Result<Self, TemplateError> {
        let migrations = Self::migrations(config).await?;
        let seeds = config.template.seeds.iter();
        let seeds = seeds.map(|path| Seed::read(&config.root, path));
        Ok(Self {
            seeds: seeds.collect::<Result<_, _>>()?,
            ..migrations
        })
    }

    /// [`Self::read`] without the seeds, which cost time where they are large.
    ///
    /// # Errors
    /// The same.
    pub async fn migrations(config: &Config) -> Result<Self, TemplateError> {
        let Some(directory) = config.template.migrations.clone() else {
            return Ok(Self::empty());
        };
        let source = Self::folder(directory.clone(), &config.template.migrate).await?;
        if source.migrations.is_empty() {
            return Err(TemplateError::EmptyMigrations(directory));
        }
        Ok(source)
    }

    /// The migrations of a folder, without seeds. It may be empty.
    ///
    /// # Errors
    /// The folder is missing, or a file cannot be read.
    pub async fn folder(directory: PathBuf, migrate: &Migrate) -> Result<Self, TemplateError> {
        Ok(Self {
            migrations: read_migrations(&directory, migrate).await?,
            notes: Some(Notes::configured(migrate)),
            directory: Some(directory),
            seeds: Vec::new(),
        })
    }

    /// The migrations that are compiled into a test.
    pub fn embedded(migrator: &dyn EmbeddedMigrator) -> Self {
        Self {
            directory: None,
            migrations: migrator.up().iter().map(own::migration).collect(),
            notes: Some(Notes::of(migrator)),
            seeds: Vec::new(),
        }
    }

    /// None at all.
    pub fn empty() -> Self {
        Self {
            directory: None,
            migrations: Vec::new(),
            notes: None,
            seeds: Vec::new(),
        }
    }

    /// The file of a migration, for messages.
    pub fn file_of(&self, migration: &Migration) -> String {
        let found = self.directory.iter().find_map(|directory| {
            std::fs::read_dir(directory)
                .ok()?
                .flatten()
                .find_map(|entry| {
                    let name = entry.file_name().into_string().ok()?;
                    let version: i64 = name.split_once('_')?.0.parse().ok()?;
                    (version == migration.version && !name.ends_with(".down.sql")).then_some(name)
                })
        });
        found.unwrap_or_else(|| format!("{}_{}", migration.version, migration.description))
    }
}

async fn read_migrations(
    directory: &Path,
    migrate: &Migrate,
) -> Result<Vec<Migration>, TemplateError> {
    if !directory.is_dir() {
        return Err(TemplateError::NoMigrations(directory.to_path_buf()));
    }
    let migrator = own::read(directory, &migrate.ignored_chars).await;
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
    fn a_seeds_checksum_is_that_of_its_whole_text() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("seed.sql");
        for text in [String::new(), "SELECT 1; -- ü\n".repeat(100_000)] {
            std::fs::write(&path, &text).expect("a file");
            let seed = Seed::read(dir.path(), &path).expect("a seed");
            assert_eq!(seed.file, "seed.sql");
            assert_eq!(seed.checksum, hex(&Sha384::digest(&text)));
        }
    }
}
