//! What a template is made of: migrations and seed files, read from disk.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha384};
use sqlx::migrate::{Migration, Migrator};

use super::TemplateError;
use crate::config::Config;
use crate::name::hex;

/// A seed file.
#[derive(Debug)]
pub struct Seed {
    /// Its path, relative to the root where it is below it.
    pub file: String,
    /// Its text.
    pub sql: String,
    /// SHA-384 of the text, in hexadecimal.
    pub checksum: String,
}

/// Everything that runs to make a template, in order.
#[derive(Debug)]
pub struct Source {
    /// The directory of the migrations.
    pub directory: Option<PathBuf>,
    /// Up-migrations by version.
    pub migrations: Vec<Migration>,
    /// Seed files in the configured order.
    pub seeds: Vec<Seed>,
}

impl Source {
    /// Reads the configured files. Migrations are read by sqlx itself, so that names and checksums mean what they mean there.
    ///
    /// # Errors
    /// The directory is missing or empty, or a file cannot be read.
    pub async fn read(config: &Config) -> Result<Self, TemplateError> {
        let directory = config.template.migrations.clone();
        let migrations = match &directory {
            Some(directory) => read_migrations(directory).await?,
            None => Vec::new(),
        };
        let seeds = config
            .template
            .seeds
            .iter()
            .map(|path| read_seed(&config.root, path))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            directory,
            migrations,
            seeds,
        })
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

async fn read_migrations(directory: &Path) -> Result<Vec<Migration>, TemplateError> {
    if !directory.is_dir() {
        return Err(TemplateError::NoMigrations(directory.to_path_buf()));
    }
    let migrator = Migrator::new(directory)
        .await
        .map_err(|error| TemplateError::Read {
            path: directory.to_path_buf(),
            message: error.to_string(),
        })?;
    let migrations: Vec<Migration> = migrator
        .iter()
        .filter(|m| !m.migration_type.is_down_migration())
        .cloned()
        .collect();
    if migrations.is_empty() {
        return Err(TemplateError::EmptyMigrations(directory.to_path_buf()));
    }
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

fn read_seed(root: &Path, path: &Path) -> Result<Seed, TemplateError> {
    let sql = std::fs::read_to_string(path).map_err(|error| TemplateError::Read {
        path: path.to_path_buf(),
        message: format!("{error} (it is in `template.seeds`)"),
    })?;
    let file = path.strip_prefix(root).unwrap_or(path);
    Ok(Seed {
        file: file.to_string_lossy().into_owned(),
        checksum: hex(&Sha384::digest(&sql)),
        sql,
    })
}
