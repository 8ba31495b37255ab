//! The sources of a template: migrations and seed files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha384};
use sqlx::migrate::Migration;

use crate::config::{Config, find_root, shown_path};
use crate::protocol::{MigrateSettings, hex};
use crate::sqlx_compat::{EmbeddedMigrator, MigrationsTable, internal};
use crate::template::TemplateError;

/// A seed file of any size; memory never holds its text.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The path for output: relative to the root, if it is below it.
    pub file: String,
    /// The path.
    pub path: PathBuf,
    /// SHA-384 of the text, in hexadecimal.
    pub checksum: String,
}

impl Seed {
    fn read(root: &Path, path: &Path) -> Result<Self, TemplateError> {
        let checksum = HashingReader::open(path).and_then(|mut text| {
            io::copy(&mut text, &mut io::sink())?;
            Ok(text.checksum())
        });
        Ok(Self {
            file: shown_path(root, path),
            path: path.to_path_buf(),
            checksum: checksum.map_err(|error| unreadable_seed(path, &error))?,
        })
    }

    /// Opens the file to run it, and hashes it again while it is read.
    pub(super) fn open(&self) -> Result<HashingReader, TemplateError> {
        HashingReader::open(&self.path).map_err(|error| unreadable_seed(&self.path, &error))
    }
}

fn unreadable_seed(path: &Path, error: &io::Error) -> TemplateError {
    TemplateError::Read {
        path: path.to_path_buf(),
        message: format!("{error} (listed in `template.seeds`)"),
    }
}

/// Hashes a file while it is read.
#[derive(Debug)]
pub(super) struct HashingReader {
    file: File,
    hash: Sha384,
}

impl HashingReader {
    fn open(path: &Path) -> io::Result<Self> {
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

/// Everything that a build runs, in order.
#[derive(Debug, Clone)]
pub struct Source {
    /// The workspace root, for messages.
    root: PathBuf,
    /// The directory of the migrations, unless they are compiled into a test.
    pub directory: Option<PathBuf>,
    /// Up-migrations by version.
    pub migrations: Vec<Migration>,
    /// The table in which sqlx records them; none without a migrator.
    pub migrations_table: Option<MigrationsTable>,
    /// Seed files in the configured order.
    pub seeds: Vec<Seed>,
}

impl Source {
    /// Reads the configured files. sqlx itself reads the migrations, so their names and checksums are those of sqlx.
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

    /// [`Self::read`] without the seeds, because large seeds take time to hash.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub async fn migrations(config: &Config) -> Result<Self, TemplateError> {
        let Some(directory) = config.template.migrations.clone() else {
            return Ok(Self::empty());
        };
        let source = Self::from_directory(directory.clone(), &config.template.migrate).await?;
        if source.migrations.is_empty() {
            return Err(TemplateError::EmptyMigrations(directory));
        }
        let root = config.root.clone();
        Ok(Self { root, ..source })
    }

    /// The migrations of a directory, without seeds. It may be empty.
    ///
    /// # Errors
    /// The directory is missing, or a file cannot be read.
    pub async fn from_directory(
        directory: PathBuf,
        migrate: &MigrateSettings,
    ) -> Result<Self, TemplateError> {
        Ok(Self {
            root: find_root(&directory),
            migrations: read_migrations(&directory, migrate).await?,
            migrations_table: Some(MigrationsTable::configured(migrate)),
            directory: Some(directory),
            seeds: Vec::new(),
        })
    }

    /// The migrations of a migrator that is compiled into a test.
    pub fn from_migrator(migrator: &dyn EmbeddedMigrator) -> Self {
        Self {
            root: PathBuf::new(),
            directory: None,
            migrations: migrator.up().iter().map(internal::migration).collect(),
            migrations_table: Some(MigrationsTable::of(migrator)),
            seeds: Vec::new(),
        }
    }

    /// No migrations and no seeds.
    pub fn empty() -> Self {
        Self {
            root: PathBuf::new(),
            directory: None,
            migrations: Vec::new(),
            migrations_table: None,
            seeds: Vec::new(),
        }
    }

    /// The file of a migration, for messages: relative to the workspace root, if it is below it.
    pub fn file_of(&self, migration: &Migration) -> String {
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
    if !directory.is_dir() {
        return Err(TemplateError::NoMigrations(directory.to_path_buf()));
    }
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
            let seed = Seed::read(dir.path(), &path).expect("a seed");
            assert_eq!(seed.file, "seed.sql");
            assert_eq!(seed.checksum, hex(&Sha384::digest(&text)));
        }
    }
}
