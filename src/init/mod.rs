//! `kapsel-testdb init`: sets a workspace up to use kapsel-testdb under nextest, and keeps the existing configuration text.
//!
//! Every edit is an insertion into the text (see `splice`), so comments, order and line endings stay byte for byte. All
//! new texts are planned and written to temporary files before the first rename. A crash leaves old and new files (each complete; a
//! second run finishes the rest), and at worst a stray `.tmp` file beside them.

mod members;
mod migrations;
mod nextest;
mod settings;
mod splice;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use kapsel_testdb_core::config;
use kapsel_testdb_core::protocol::{MigrateSettings, Namespace};

pub use migrations::Migrations;
pub use splice::EditError;

/// Name of our script in nextest's configuration.
const SCRIPT: &str = "kapsel-testdb";
/// The filterset of all tests.
const ALL: &str = "all()";

/// Options of `init`.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Command of the setup script, split as by a shell; default `kapsel-testdb prepare`.
    pub command: Option<String>,
    /// Filterset of the tests that need the script; default: the packages that depend on kapsel-testdb, else `all()`.
    pub filter: Option<String>,
    /// Write `allow_remote = true`, for servers that are not on this machine.
    pub allow_remote: bool,
}

/// The result for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file is new.
    Created(PathBuf),
    /// The file was changed.
    Updated(PathBuf),
    /// The file was complete already.
    Unchanged(PathBuf),
}

/// What `init` did and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The result for each file.
    pub changes: Vec<Change>,
    /// The directories of migrations.
    pub migrations: Migrations,
    /// Whether a package depends on kapsel-testdb; also `true` if the manifests do not tell.
    pub has_dependents: bool,
}

/// Why `init` failed. Nothing was written, except that [`InitError::Write`] may leave some files written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file exists but cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file or its directory cannot be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// An existing file cannot be extended. Lines and columns count from 1.
    #[error("failed to edit `{}` at line {line}, column {column}: {problem}", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// Line of the problem.
        line: usize,
        /// Column of the problem, in characters.
        column: usize,
        /// The problem.
        problem: Problem,
    },
}

/// A problem at a position in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type.
    #[error("`{key}` must be {expected}, not {found}")]
    Unexpected {
        /// The dotted key.
        key: String,
        /// The accepted types.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
    /// `--filter` was given, but the existing rule also runs other scripts, or there are several rules.
    #[error(
        "an existing rule already runs `{SCRIPT}`; edit its `filter` in the file, or omit `--filter`"
    )]
    RuleExists,
}

/// Facts about the workspace that are in neither of the two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Default namespace, made from the directory's name.
    pub namespace: String,
    /// Filterset of the packages that depend on kapsel-testdb.
    pub filter: String,
    /// The directory of migrations, if it is not the default.
    pub migrations: Option<String>,
}

/// The texts of the two files: the existing ones before, the new ones after planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectTexts {
    /// `.config/nextest.toml`
    pub nextest: Option<String>,
    /// `.config/kapsel-testdb.toml`
    pub settings: Option<String>,
}

/// Sets up the workspace at `root`.
///
/// # Errors
/// A file cannot be read, edited or written. Except after a failed rename, nothing was written then.
pub fn init(root: &Path, options: &InitOptions) -> Result<Setup, InitError> {
    let nextest_path = root.join(".config/nextest.toml");
    let settings_path = root.join(".config/kapsel-testdb.toml");
    let existing = ProjectTexts {
        nextest: read(&nextest_path)?,
        settings: read(&settings_path)?,
    };
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let members = members::find(&root)?;
    let members = members.as_deref();
    let migrations = find_migrations(&root, members, &existing, &settings_path)?;
    let project = Project {
        namespace: namespace(&root),
        filter: members::filter(members),
        migrations: match &migrations {
            Migrations::Found { directory, .. } if directory != migrations::DEFAULT => {
                Some(directory.clone())
            }
            _ => None,
        },
    };
    let planned = plan(&existing, &project, options).map_err(|(file, error)| {
        let (path, text) = match file {
            File::Nextest => (nextest_path.clone(), &existing.nextest),
            File::Settings => (settings_path.clone(), &existing.settings),
        };
        error.locate(path, text.as_deref().unwrap_or_default())
    })?;
    let files = [
        (nextest_path, existing.nextest.is_some(), planned.nextest),
        (settings_path, existing.settings.is_some(), planned.settings),
    ];
    write::replace_all(
        files
            .iter()
            .filter_map(|(path, _, new)| Some((path.as_path(), new.as_deref()?))),
    )?;
    let changes = files.into_iter();
    let changes = changes.map(|(path, existed, new)| change(path, existed, new.is_some()));
    let depends = |members: &[members::Member]| members.iter().any(|member| member.term.is_some());
    Ok(Setup {
        changes: changes.collect(),
        migrations,
        has_dependents: members.is_none_or(depends),
    })
}

/// The filterset of the packages that depend on kapsel-testdb, if there are others.
pub fn narrow_filter(root: &Path) -> Option<String> {
    let root = std::fs::canonicalize(root).ok()?;
    let members = members::find(&root).ok()?;
    let filter = members::filter(members.as_deref());
    (filter != ALL).then_some(filter)
}

fn namespace(root: &Path) -> String {
    let name = root.file_name().unwrap_or_default();
    Namespace::from_directory_name(&name.to_string_lossy()).to_string()
}

fn find_migrations(
    root: &Path,
    members: Option<&[members::Member]>,
    existing: &ProjectTexts,
    settings_path: &Path,
) -> Result<Migrations, InitError> {
    let settings = existing.settings.as_deref().unwrap_or_default();
    let configured = settings::has_migrations(settings)
        .map_err(|error| error.locate(settings_path.to_owned(), settings))?;
    // An invalid file is reported by all other commands.
    let of_sqlx = MigrateSettings::of_package(root, config::is_read_by_sqlx(root));
    if configured || of_sqlx.is_ok_and(|of_sqlx| of_sqlx.migrations_dir.is_some()) {
        return Ok(Migrations::Configured);
    }
    Ok(migrations::find(root, members))
}

fn change(path: PathBuf, existed: bool, written: bool) -> Change {
    match (existed, written) {
        (_, false) => Change::Unchanged(path),
        (true, true) => Change::Updated(path),
        (false, true) => Change::Created(path),
    }
}

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `.config/nextest.toml`
    Nextest,
    /// `.config/kapsel-testdb.toml`
    Settings,
}

/// Computes the new texts from the existing ones; `None` in the result: the file stays as it is.
///
/// # Errors
/// An existing text is not TOML, or has a value of the wrong type in a place that an entry of ours needs.
pub fn plan(
    existing: &ProjectTexts,
    project: &Project,
    options: &InitOptions,
) -> Result<ProjectTexts, (File, EditError)> {
    let entry = nextest::ScriptEntry {
        command: options.command.as_deref(),
        filter: options.filter.as_deref(),
        default_filter: &project.filter,
    };
    let nextest = nextest::edit(existing.nextest.as_deref().unwrap_or_default(), &entry);
    let values = settings::Values {
        allow_remote: options.allow_remote,
        migrations: project.migrations.as_deref(),
    };
    let settings = match &existing.settings {
        None => settings::create(&project.namespace, &values).map(Some),
        Some(text) => settings::set(text, &values),
    };
    Ok(ProjectTexts {
        nextest: nextest.map_err(|error| (File::Nextest, error))?,
        settings: settings.map_err(|error| (File::Settings, error))?,
    })
}

/// The text of a file, `None` if it does not exist.
fn read(path: &Path) -> Result<Option<String>, InitError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InitError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
