//! `sqlx.toml`, which sqlx reads in each package since 0.9, if its feature `sqlx-toml` is on. Then its settings for migrations apply here too.

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
    /// The settings of the package in this directory; sqlx's defaults if it has no `sqlx.toml`, or if sqlx does not read it (see [`is_read_by_sqlx`]).
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or parsed.
    pub fn of_package(package: &Path, is_read: bool) -> Result<Self, ConfigError> {
        // Before 0.9, sqlx does not read the file.
        if cfg!(not(feature = "sqlx-0_9")) || !is_read {
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
    pub fn of_migrations(
        root: &Path,
        migrations: &Path,
        is_read: bool,
    ) -> Result<Self, ConfigError> {
        let of_root = Self::of_package(root, is_read)?;
        let named = of_root.migrations_dir.as_ref().map(|dir| root.join(dir));
        if named.is_some_and(|named| is_same_dir(&named, migrations)) {
            return Ok(of_root);
        }
        match package_around(migrations) {
            Some(package) => Self::of_package(&package, is_read),
            None => Ok(Self::default()),
        }
    }
}

/// Whether the sqlx of the workspace around a directory reads `sqlx.toml`: with its feature `sqlx-toml`, `sqlx-core` depends on `toml`, which `Cargo.lock`
/// shows. If no package of the workspace uses sqlx, its file is for sqlx's command, which reads it.
pub fn is_read_by_sqlx(directory: &Path) -> bool {
    let locks = directory.ancestors().map(|dir| dir.join("Cargo.lock"));
    let text = locks.map(std::fs::read_to_string).find_map(Result::ok);
    text.is_none_or(|text| lock_has_sqlx_toml(&text))
}

/// cargo writes the file in this form only, and a parser would take longer.
fn lock_has_sqlx_toml(lock: &str) -> bool {
    let mut is_used = false;
    for package in lock.split("[[package]]").skip(1) {
        let mut strings = package.split('"').skip(1).step_by(2);
        let name = strings.next().unwrap_or_default();
        let (_, dependencies) = package.split_once("dependencies = [").unwrap_or_default();
        let mut dependencies = dependencies.split('"').skip(1).step_by(2);
        let is = |dependency: &str, name: &str| dependency.split(' ').next() == Some(name);
        if name == "sqlx-core" {
            if dependencies.any(|dependency| is(dependency, "toml")) {
                return true;
            }
        } else if !name.starts_with("sqlx") && !name.starts_with("kapsel-testdb") {
            is_used |= dependencies.any(|dependency| is(dependency, "sqlx"));
        }
    }
    !is_used
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
        let found =
            MigrateSettings::of_migrations(dir.path(), &migrations, true).expect("it is valid");
        assert_eq!(
            found,
            MigrateSettings::of_package(dir.path(), true).expect("it is valid")
        );
        let other = MigrateSettings::of_migrations(dir.path(), &dir.path().join("db/other"), true);
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
        let found = MigrateSettings::of_migrations(&inner, &inner.join("migrations"), true)
            .expect("defaults");
        assert_eq!(found, MigrateSettings::default());
        let outer = MigrateSettings::of_migrations(&inner, &dir.path().join("migrations"), true);
        let outer = outer.expect("it is valid");
        assert_eq!(outer.table_name.as_deref(), Some("outer"));
    }

    #[test]
    fn an_invalid_file_is_reported_with_the_line() {
        let dir = package("[migrate]\ntable-name = 7\n");
        let error = MigrateSettings::of_package(dir.path(), true).expect_err("no string");
        let text = error.to_string();
        assert!(
            text.contains("sqlx.toml") && text.contains("line 2"),
            "{text}"
        );
    }

    #[test]
    fn the_lock_file_shows_whether_sqlx_reads_the_file() {
        let lock = |core: &str, app: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"{app}\",\n]\n\n\
                 [[package]]\nname = \"kapsel-testdb-core\"\nversion = \"0.1.0\"\ndependencies = [\n \"sqlx\",\n \"toml\",\n]\n\n\
                 [[package]]\nname = \"sqlx-core\"\nversion = \"0.9.0\"\nsource = \"registry\"\ndependencies = [\n \"base64\",{core}\n]\n"
            )
        };
        for (core, app, expected) in [
            ("", "sqlx", false),
            ("", "sqlx 0.9.0", false),
            ("\n \"toml\",", "sqlx", true),
            ("\n \"toml 0.9.8\",", "sqlx", true),
            ("\n \"toml_edit\",", "sqlx", false),
            // sqlx's command alone.
            ("", "diesel", true),
        ] {
            assert_eq!(
                lock_has_sqlx_toml(&lock(core, app)),
                expected,
                "{core} {app}"
            );
        }
        let dir = package("[migrate]\ntable-name = 'app.noted'\n");
        assert!(is_read_by_sqlx(dir.path()), "no lock file");
        std::fs::write(dir.path().join("Cargo.lock"), lock("", "sqlx")).expect("a file");
        assert!(!is_read_by_sqlx(&dir.path().join("db")));
        let ignored = MigrateSettings::of_package(dir.path(), false).expect("defaults");
        assert_eq!(ignored, MigrateSettings::default());
    }
}
