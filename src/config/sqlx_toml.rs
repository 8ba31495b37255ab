//! `sqlx.toml`, sqlx's own file, which it reads in a package since 0.9: what the migrations mean there, they mean here.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::layers::located;
use crate::platform::is_same_folder;

/// Its name.
pub const SQLX_TOML: &str = "sqlx.toml";

/// Its table `[migrate]`, as far as it matters to who runs the migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Migrate {
    /// Where they are, relative to the package; none for sqlx's default.
    pub migrations_dir: Option<String>,
    /// The table in which they are noted, as it stands in SQL; none for sqlx's default.
    pub table_name: Option<String>,
    /// Schemas that are made first.
    pub create_schemas: BTreeSet<String>,
    /// Characters that their checksums leave out.
    pub ignored_chars: BTreeSet<char>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct File {
    migrate: Migrate,
}

impl Migrate {
    /// Of the package in this folder; sqlx's defaults where it has no such file.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read or understood.
    pub fn of_package(folder: &Path) -> Result<Self, ConfigError> {
        // Before 0.9 sqlx did not know of it.
        if cfg!(not(feature = "sqlx-0_9")) {
            return Ok(Self::default());
        }
        let path = folder.join(SQLX_TOML);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let file: File = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            message: located(&text, &error),
            path,
        })?;
        Ok(file.migrate)
    }

    /// Of the workspace's root, where that names this folder of migrations, else of the package that the folder is in.
    ///
    /// # Errors
    /// See [`Self::of_package`].
    pub fn of_migrations(root: &Path, migrations: &Path) -> Result<Self, ConfigError> {
        let own = Self::of_package(root)?;
        let named = own.migrations_dir.as_ref().map(|dir| root.join(dir));
        if named.is_some_and(|named| is_same_folder(&named, migrations)) {
            return Ok(own);
        }
        package_around(migrations).map_or_else(|| Ok(Self::default()), |p| Self::of_package(&p))
    }
}

/// The nearest folder above that one which is a package, or has the file without being one.
fn package_around(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    let mut above = folder.ancestors().skip(1);
    let found = above.find(|folder| {
        ["Cargo.toml", SQLX_TOML]
            .iter()
            .any(|name| folder.join(name).is_file())
    });
    found.map(Path::to_path_buf)
}

#[cfg(all(test, feature = "sqlx-0_9"))]
mod tests {
    use super::*;

    fn package(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("Cargo.toml"), "").expect("a file");
        std::fs::write(dir.path().join(SQLX_TOML), text).expect("a file");
        std::fs::create_dir_all(dir.path().join("db/migrations")).expect("a folder");
        dir
    }

    #[test]
    fn what_sqlx_documents_is_read_and_the_rest_passed_over() {
        let dir = package(
            "[common]\ndatabase-url-var = 'X'\n[macros.type-overrides]\nuuid = 'app::Id'\n[migrate]\nmigrations-dir = 'db/migrations'\n\
             table-name = 'app.noted'\ncreate-schemas = ['b', 'app']\nignored-chars = [\"\\r\", ' ']\ndefaults.migration-type = 'reversible'\n",
        );
        let migrations = dir.path().join("db/migrations");
        // Named by the root's file, it is that file's, whatever package it is in.
        std::fs::write(dir.path().join("db/Cargo.toml"), "").expect("a file");
        let found = Migrate::of_migrations(dir.path(), &migrations).expect("it is valid");
        assert_eq!(found, Migrate::of_package(dir.path()).expect("it is valid"));
        let other = Migrate::of_migrations(dir.path(), &dir.path().join("db/other"));
        assert_eq!(other.expect("defaults"), Migrate::default());
        assert_eq!(found.migrations_dir.as_deref(), Some("db/migrations"));
        assert_eq!(found.table_name.as_deref(), Some("app.noted"));
        assert!(found.create_schemas.iter().eq(["app", "b"]));
        assert!(found.ignored_chars.iter().eq(&['\r', ' ']));
    }

    #[test]
    fn a_package_without_it_has_the_defaults() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(
            dir.path().join(SQLX_TOML),
            "[migrate]\ntable-name = 'outer'\n",
        )
        .expect("a file");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a folder");
        std::fs::write(inner.join("Cargo.toml"), "").expect("a file");
        let found = Migrate::of_migrations(&inner, &inner.join("migrations")).expect("defaults");
        assert_eq!(found, Migrate::default());
        let outer = Migrate::of_migrations(&inner, &dir.path().join("migrations"));
        let outer = outer.expect("it is valid");
        assert_eq!(outer.table_name.as_deref(), Some("outer"));
    }

    #[test]
    fn one_that_is_broken_is_named_with_the_line() {
        let dir = package("[migrate]\ntable-name = 7\n");
        let error = Migrate::of_package(dir.path()).expect_err("no string");
        let text = error.to_string();
        assert!(
            text.contains("sqlx.toml") && text.contains("line 2"),
            "{text}"
        );
    }
}
