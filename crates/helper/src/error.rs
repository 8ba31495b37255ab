//! The error of the helper.

use kapsel_testdb_core::address::tls;
use kapsel_testdb_core::config::ConfigError;
use kapsel_testdb_core::pg::PgError;
use kapsel_testdb_core::pg::script::ScriptError;
use kapsel_testdb_core::protocol::RunDirError;
use kapsel_testdb_core::run::RunError;

/// Why a test got no database. The message names the object that failed, and a remedy if there is one.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use kapsel_testdb::{TestDb, TestDbError};
///
/// let db = match TestDb::lease().await {
///     Ok(db) => db,
///     // `{}` and `{:?}` both print the message.
///     Err(error @ TestDbError::Config(_)) => panic!("this suite's configuration: {error}"),
///     Err(error) => panic!("{error}"),
/// };
/// # Ok(())
/// # }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TestDbError {
    /// The setup script failed, so there is no database for this test. Contains its error.
    #[error("{0}")]
    SetupScript(String),
    /// The run directory cannot be used: wrong owner or mode, another protocol version, or the run has ended.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The configuration is invalid. Only the slow path (without the setup script) reads it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server, the template or the clone is not available.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An administrative statement of the helper failed.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The connect to the test's database failed.
    #[error(
        "failed to connect to the test's database `{database}`: {source}{}",
        tls::hint(source)
    )]
    Connect {
        /// The name of the database.
        database: String,
        /// The error of sqlx.
        source: sqlx::Error,
    },
    /// A fixture failed. The database is kept, like that of a failed test.
    #[error("the fixture {0}")]
    Fixture(#[from] ScriptError),
    /// The helper's background runtime did not start, or a task on it failed or timed out (60 s).
    #[error("the helper's background runtime failed: {0}")]
    Background(String),
}

/// Prints the message: tests `unwrap`, and their output is all that the user sees.
impl std::fmt::Debug for TestDbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
