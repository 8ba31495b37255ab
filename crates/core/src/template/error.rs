//! Why a template could not be found or built.

use std::path::PathBuf;

use crate::pg::PgError;
use crate::pg::script::ScriptError;
use crate::protocol::DbName;

/// Why a template could not be found or built.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A connection or a statement failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The directory of the migrations does not exist.
    #[error(
        "found no migrations directory at `{}`; create it, set `template.migrations` to another directory (\"\" for none), or name the \
         workspace root with --root or KAPSEL_TESTDB_ROOT",
        .0.display()
    )]
    NoMigrations(PathBuf),
    /// The directory contains no migrations.
    #[error(
        "`{}` contains no migrations (files named `<version>_<description>.sql`); add one, or set `template.migrations` to \"\"",
        .0.display()
    )]
    EmptyMigrations(PathBuf),
    /// A file cannot be read.
    #[error("failed to read `{}`: {message}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        message: String,
    },
    /// A migration or seed file failed.
    #[error(transparent)]
    Failed(#[from] ScriptError),
    /// Two directories have a migration with the same version, and record it in the same table.
    #[error(
        "`{}` and `{}` both have a migration with the version {version}, and sqlx records both in the table `{table}`; rename one, or give one \
         package a `table-name` of its own in its `sqlx.toml`",
        first.display(), second.display()
    )]
    SameVersion {
        /// The first directory.
        first: PathBuf,
        /// The second directory.
        second: PathBuf,
        /// The version.
        version: i64,
        /// The table.
        table: String,
    },
    /// The input files of a command cannot be found.
    #[error("`{pattern}` of the command `{command}`: {message}; correct its `inputs`")]
    Inputs {
        /// The command.
        command: String,
        /// The pattern.
        pattern: String,
        /// The problem.
        message: String,
    },
    /// A command failed.
    #[error("the command `{command}` {reason}{}", shown(output))]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        reason: String,
        /// The end of its output.
        output: String,
    },
    /// The template that a database was created from no longer exists.
    #[error(
        "the template `{0}` no longer exists; to rebuild it, run `kapsel-testdb prepare` on the revision that the database belongs to \
         (`template.keep` sets how many templates stay)"
    )]
    Gone(DbName),
    /// The current template does not exist.
    #[error("the template `{0}` does not exist; `kapsel-testdb template build` builds it")]
    NotBuilt(DbName),
    /// The persistent database may not be dropped.
    #[error("the database `{name}` was not reset: {reason}")]
    NotReset {
        /// The database.
        name: String,
        /// The reason, and the remedy.
        reason: String,
    },
    /// A file changed after the fingerprint was computed.
    #[error("the file `{}` changed while the template was being built; run the command again", .0.display())]
    Changed(PathBuf),
    /// Another role owns the database with the template's name.
    #[error(
        "the template `{name}` belongs to the role `{owner}`, not to `{role}`; let its owner drop it, or choose another `namespace`"
    )]
    OtherOwner {
        /// The database.
        name: String,
        /// Its owner.
        owner: String,
        /// Our role.
        role: String,
    },
}

fn shown(output: &str) -> String {
    if output.is_empty() {
        return "; it printed nothing".to_owned();
    }
    let lines = output.lines().map(|line| format!("\n  {line}"));
    format!("; the end of its output:{}", lines.collect::<String>())
}
