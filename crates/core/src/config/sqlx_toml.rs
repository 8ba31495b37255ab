//! `sqlx.toml`, which sqlx reads in each package since 0.9. Its settings for migrations apply here too.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::config::layers::with_position;
use crate::platform::is_same_dir;
use crate::protocol::MigrateSettings;

/// The name of the file.
pub const SQLX_TOML: &str = "sqlx.toml";

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct SqlxTomlFile {
    migrate: MigrateSettings,
}

impl MigrateSettings {
    /// The settings of the package in this directory; sqlx's defaults if it has no `sqlx.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or parsed.
    pub fn of_package(package: &Path) -> Result<Self, ConfigError> {
        // Before 0.9, sqlx does not read the file.
        if cfg!(not(feature = "sqlx-0_9")) {
            return Ok(Self::default());
        }
        let path = package.join(SQLX_TOML);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let file: SqlxTomlFile = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            message: with_position(&text, &error),
            path,
        })?;
        Ok(file.migrate)
    }

    /// The settings for a directory of migrations: those of the workspace root if its `sqlx.toml` names the directory, else those of the package
    /// that contains it.
    ///
    /// # Errors
    /// See [`Self::of_package`].
    pub fn of_migrations(root: &Path, migrations: &Path) -> Result<Self, ConfigError> {
        let of_root = Self::of_package(root)?;
        let named = of_root.migrations_dir.as_ref().map(|dir| root.join(dir));
        if named.is_some_and(|named| is_same_dir(&named, migrations)) {
            return Ok(of_root);
        }
        package_around(migrations).map_or_else(|| Ok(Self::default()), |p| Self::of_package(&p))
    }
}

/// The nearest directory above a directory that is a package or has a `sqlx.toml`.
fn package_around(migrations: &Path) -> Option<PathBuf> {
    let migrations = std::path::absolute(migrations).ok()?;
    let mut above = migrations.ancestors().skip(1);
    let found = above.find(|dir| {
        ["Cargo.toml", SQLX_TOML]
            .iter()
            .any(|name| dir.join(name).is_file())
    });
    found.map(Path::to_path_buf)
}

#[cfg(all(test, feature = "sqlx-0_9"))]
mod tests {
    use super::*;

    fn package(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("Cargo.toml"), "").expect("a file");
        std::fs::write(dir.path().join(SQLX_TOML), text).expect("a file");
        std::fs::create_dir_all(dir.path().join("db/migrations")).expect("a directory");
        dir
    }

    #[test]
    fn documented_keys_are_read_and_others_ignored() {
        let dir = package(
            "[common]\ndatabase-url-var = 'X'\n[macros.type-overrides]\nuuid = 'app::Id'\n[migrate]\nmigrations-dir = 'db/migrations'\n\
             table-name = 'app.noted'\ncreate-schemas = ['b', 'app']\nignored-chars = [\"\\r\", ' ']\ndefaults.migration-type = 'reversible'\n",
        );
        let migrations = dir.path().join("db/migrations");
        // The root's file names the directory, so its settings apply, whichever package the directory is in.
        std::fs::write(dir.path().join("db/Cargo.toml"), "").expect("a file");
        let found = MigrateSettings::of_migrations(dir.path(), &migrations).expect("it is valid");
        assert_eq!(
            found,
            MigrateSettings::of_package(dir.path()).expect("it is valid")
        );
        let other = MigrateSettings::of_migrations(dir.path(), &dir.path().join("db/other"));
        assert_eq!(other.expect("defaults"), MigrateSettings::default());
        assert_eq!(found.migrations_dir.as_deref(), Some("db/migrations"));
        assert_eq!(found.table_name.as_deref(), Some("app.noted"));
        assert!(found.create_schemas.iter().eq(["app", "b"]));
        assert!(found.ignored_chars.iter().eq(&['\r', ' ']));
    }

    #[test]
    fn a_package_without_the_file_has_the_defaults() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(
            dir.path().join(SQLX_TOML),
            "[migrate]\ntable-name = 'outer'\n",
        )
        .expect("a file");
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).expect("a directory");
        std::fs::write(inner.join("Cargo.toml"), "").expect("a file");
        let found =
            MigrateSettings::of_migrations(&inner, &inner.join("migrations")).expect("defaults");
        assert_eq!(found, MigrateSettings::default());
        let outer = MigrateSettings::of_migrations(&inner, &dir.path().join("migrations"));
        let outer = outer.expect("it is valid");
        assert_eq!(outer.table_name.as_deref(), Some("outer"));
    }

    #[test]
    fn an_invalid_file_is_reported_with_the_line() {
        let dir = package("[migrate]\ntable-name = 7\n");
        let error = MigrateSettings::of_package(dir.path()).expect_err("no string");
        let text = error.to_string();
        assert!(
            text.contains("sqlx.toml") && text.contains("line 2"),
            "{text}"
        );
    }
}
