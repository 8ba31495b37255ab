//! Why a test got no database.

use crate::config::ConfigError;
use crate::pg::script::ScriptError;
use crate::pg::{PgError, tls};
use crate::run::RunError;
use crate::run_dir::RunDirError;

/// Why a test got no database. The message names the thing, and the remedy where there is one.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use kapsel_testdb::{TestDb, TestDbError};
///
/// let db = match TestDb::lease().await {
///     Ok(db) => db,
///     // Printed with `{}` or `{:?}`, it is the message.
///     Err(error @ TestDbError::Config(_)) => panic!("this suite's configuration: {error}"),
///     Err(error) => panic!("{error}"),
/// };
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestDbError {
    /// The run directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The configuration is wrong (slow path).
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No server, no template, or no clone.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A statement of ours failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The test's database does not let us in.
    #[error(
        "failed to connect to the test's database `{database}`: {source}{}",
        tls::hint(source)
    )]
    Connect {
        /// The database.
        database: String,
        /// What sqlx said.
        source: sqlx::Error,
    },
    /// A fixture failed; the database is kept as a failed test's.
    #[error("the fixture {0}")]
    Fixture(#[from] ScriptError),
    /// The helper's background thread is gone.
    #[error("the helper's background thread has ended: {0}")]
    Background(String),
}

/// The message, because tests `unwrap`, and what they print is all that a person sees.
impl std::fmt::Debug for TestDbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
