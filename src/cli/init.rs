//! `kapsel-testdb init`: makes a workspace use us under nextest, without disturbing what is written there.
//!
//! Every edit is an insertion into the text (see `splice`), so comments, order and line endings stay byte for byte. All
//! new texts are planned and written to temporary files before the first rename: a crash leaves the old files, or some new and
//! some old ones (each complete, and a second run finishes the rest), and at worst a stray `.tmp` file beside them.

mod members;
mod nextest;
mod settings;
mod splice;
#[cfg(test)]
mod tests;
mod write;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use splice::EditError;

/// Name of our script in nextest's configuration.
const SCRIPT: &str = "kapsel-testdb";

/// What a person may choose; nothing chosen is the default.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Command of the setup script, as a shell would split it; default `kapsel-testdb prepare`.
    pub command: Option<String>,
    /// Filterset of the tests that need the script; default: the members that depend on us, else `all()`.
    pub filter: Option<String>,
    /// Write `allow_remote = true`, for servers that are not on this machine.
    pub allow_remote: bool,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was none before.
    Created(PathBuf),
    /// Something was added.
    Updated(PathBuf),
    /// It already said everything.
    Unchanged(PathBuf),
}

/// Why nothing was written, or, for [`InitError::Write`], perhaps not all.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file exists but cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file or its folder cannot be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that a person wrote cannot be extended as it is. Lines and columns count from 1.
    #[error("failed to edit `{}` at line {line}, column {column}: {problem}", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// Line of the problem.
        line: usize,
        /// Column of the problem, in characters.
        column: usize,
        /// What is wrong there.
        problem: Problem,
    },
}

/// What is wrong at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// TOML, but not what the program that reads it accepts.
    #[error("`{key}` should be {expected}, not {found}")]
    Unexpected {
        /// The dotted key.
        key: String,
        /// What may stand there.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// `--filter` was given, but the existing rule does more than run our script.
    #[error(
        "this rule of yours already runs `{SCRIPT}`: change its `filter` by hand, or leave out `--filter`"
    )]
    RuleExists,
}

/// What the workspace is like, apart from the two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Default namespace, from the folder's name.
    pub namespace: String,
    /// Filterset of the packages that depend on us.
    pub filter: String,
}

/// The texts of the two files: the existing ones before, the new ones after planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// `.config/nextest.toml`
    pub nextest: Option<String>,
    /// `.config/kapsel-testdb.toml`
    pub settings: Option<String>,
}

/// Sets the workspace at `root` up and says what became of each file.
///
/// # Errors
/// When a file cannot be read, edited or written; except for a failed rename, nothing was written then.
pub fn init(root: &Path, options: &InitOptions) -> Result<Vec<Change>, InitError> {
    let nextest_path = root.join(".config/nextest.toml");
    let settings_path = root.join(".config/kapsel-testdb.toml");
    let existing = Texts {
        nextest: read(&nextest_path)?,
        settings: read(&settings_path)?,
    };
    let project = members::project(root, options.filter.is_none())?;
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
    Ok(files
        .into_iter()
        .map(|(path, existed, new)| change(path, existed, new.is_some()))
        .collect())
}

fn change(path: PathBuf, existed: bool, written: bool) -> Change {
    match (existed, written) {
        (_, false) => Change::Unchanged(path),
        (true, true) => Change::Updated(path),
        (false, true) => Change::Created(path),
    }
}

/// Which of the two files a problem is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `.config/nextest.toml`
    Nextest,
    /// `.config/kapsel-testdb.toml`
    Settings,
}

/// From the existing texts to the new ones; `None` in the answer: leave the file as it is.
///
/// # Errors
/// When an existing text is not TOML, or has something else where our entries belong.
pub fn plan(
    existing: &Texts,
    project: &Project,
    options: &InitOptions,
) -> Result<Texts, (File, EditError)> {
    let entry = nextest::Entry {
        command: options.command.as_deref(),
        filter: options.filter.as_deref(),
        default_filter: &project.filter,
    };
    let nextest = nextest::edit(existing.nextest.as_deref().unwrap_or_default(), &entry);
    let settings = match &existing.settings {
        None => Ok(Some(settings::create(
            &project.namespace,
            options.allow_remote,
        ))),
        Some(text) if options.allow_remote => settings::allow_remote(text),
        Some(_) => Ok(None),
    };
    Ok(Texts {
        nextest: nextest.map_err(|error| (File::Nextest, error))?,
        settings: settings.map_err(|error| (File::Settings, error))?,
    })
}

/// The text of a file that may not exist.
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
