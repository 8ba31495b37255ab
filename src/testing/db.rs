//! A test's database and the pool on it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

use super::session::{Session, current, own};
use super::tokens::Hold;
use super::{TestDbError, TestTransaction, report};
use crate::name::DbName;
use crate::pg::connect::{Patience, Retry, is_missing_database};
use crate::pg::error::{ConnectFailure, classify, code};
use crate::run::RunError;
use crate::run_dir::Claim;

/// How long a lease waits for a server that goes down and comes up again.
const PASSES: Duration = Patience::RUNNING.busy;

/// How long a release waits for connections that the test still uses.
const CLOSE: Duration = Duration::from_millis(100);

/// A database for a test, and a pool on it. Given back when it is dropped; kept for a look when that happens in a panic.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = kapsel_testdb::TestDb::lease().await?;
/// sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(db.pool()).await?;
/// db.release().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestDb {
    pool: PgPool,
    name: DbName,
    text: String,
    /// None: the shared clone, which is the run's.
    claim: Option<Claim>,
    session: Arc<Session>,
    _hold: Hold,
}

/// What a test asks of its database, where the configuration does not say it for all.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = kapsel_testdb::TestDbOptions::new().connections(10).lease().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TestDbOptions {
    connections: Option<u32>,
}

impl TestDbOptions {
    /// As the configuration says.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections the test needs at once. Its pool may open so many, and the process waits until the server has them to
    /// spare; without this it gets `pool.max_connections`, or fewer where the server has few.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = Some(connections.max(1));
        self
    }

    /// See [`TestDb::lease`].
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn lease(self) -> Result<TestDb, TestDbError> {
        let mut retry = Retry::within(PASSES);
        loop {
            match TestDb::lease_once(self.connections).await {
                Err(error) if error.is_passing() => retry.pause(error).await?,
                result => return result,
            }
        }
    }

    /// See [`TestDb::shared`].
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn shared(self) -> Result<TestDb, TestDbError> {
        let Shared {
            session,
            hold,
            name,
            pool,
        } = Shared::connect(self.connections).await?;
        Ok(TestDb {
            pool,
            text: name.to_string(),
            name,
            claim: None,
            session,
            _hold: hold,
        })
    }
}

impl TestDb {
    /// Isolation `database`: a clone of the template for this test alone. May be called many times in one test.
    ///
    /// # Errors
    /// [`TestDbError`] where there is no server, no template or no connection; the message says what to do.
    pub async fn lease() -> Result<Self, TestDbError> {
        TestDbOptions::new().lease().await
    }

    async fn lease_once(connections: Option<u32>) -> Result<Self, TestDbError> {
        let mut session = current(connections).await?;
        let mut hold = session.hold(connections).await?;
        let mut claim = match session.claim().await {
            Err(error) if error.is_missing_template() => {
                report::lost_template(&error);
                drop(hold);
                session = own(connections).await?;
                hold = session.hold(connections).await?;
                session.claim().await?
            }
            result => result?,
        };
        let pool = match session.connect(&claim.name, &hold).await {
            Err(error) if error.is_missing_database() => {
                // Swept or lost with the server: the entry outlived its database.
                session.release(claim)?;
                claim = session.clone_one().await?;
                session.connect(&claim.name, &hold).await
            }
            result => result,
        };
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => {
                if let Err(error) = session.release(claim) {
                    report::left_to_sweep(&error);
                }
                return Err(error);
            }
        };
        Ok(Self {
            pool,
            text: claim.name.to_string(),
            name: claim.name.clone(),
            claim: Some(claim),
            session,
            _hold: hold,
        })
    }

    /// Isolation `shared`: the run's shared clone as it is. Tests keep apart by their own keys: see [`crate::test_id`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::shared().await?;
    /// let name = kapsel_testdb::test_id();
    /// sqlx::query("INSERT INTO tenants (name) VALUES ($1)").bind(&name).execute(db.pool()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Self::lease`].
    pub async fn shared() -> Result<Self, TestDbError> {
        TestDbOptions::new().shared().await
    }

    /// A transaction on the run's shared clone that rolls back when it is dropped.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = kapsel_testdb::TestDb::begin().await?;
    /// sqlx::query("DELETE FROM tenants").execute(&mut *tx).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Self::lease`].
    pub async fn begin() -> Result<TestTransaction, TestDbError> {
        let Shared {
            session,
            hold,
            name,
            pool,
        } = Shared::connect(Some(1)).await?;
        TestTransaction::begin(session, hold, pool, &name).await
    }

    /// The pool on the database: at most `pool.max_connections` connections, opened as needed.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.text
    }

    /// The database's URL, password included where the server needs one: for other drivers. Not for printing.
    pub fn url(&self) -> String {
        self.session.file.server.url_with_password(&self.text)
    }

    /// A complete configuration for connections of your own.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.session.options(&self.name)
    }

    /// Closes the pool and gives the database back. Dropping does the same without closing first.
    pub async fn release(self) {
        self.close().await;
    }

    async fn close(&self) {
        if tokio::time::timeout(CLOSE, self.pool.close())
            .await
            .is_err()
        {
            report::still_in_use(&self.name);
        }
    }

    /// Keeps the database as a failed test's, whatever becomes of this thread.
    pub(super) fn fail(mut self) {
        self.finish(true);
    }

    fn finish(&mut self, failed: bool) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        if failed && self.session.file.keep.failed {
            match self.session.keep(claim) {
                Ok(kept) => report::kept(&kept, &self.session.file.server),
                Err(error) => report::not_kept(&self.name, &error),
            }
        } else if let Err(error) = self.session.release(claim) {
            report::left_to_sweep(&error);
        }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        self.finish(std::thread::panicking());
    }
}

impl Session {
    fn options(&self, name: &DbName) -> PgConnectOptions {
        let server = &self.file.server;
        let label: String = super::session::test_name().chars().take(63).collect();
        server.options(&name.to_string()).application_name(&label)
    }

    /// A pool with one open connection, which stays because nothing ends idle ones: a leased database always has a session.
    /// (`min_connections` would open a second one: sqlx's maintenance races with the connect.)
    async fn connect(&self, name: &DbName, hold: &Hold) -> Result<PgPool, TestDbError> {
        let settings = &self.file.pool;
        let options = self.options(name);
        let connected = hold
            .observe(PgPoolOptions::new())
            .max_connections(hold.connections)
            .acquire_timeout(Duration::from_secs(settings.acquire_timeout_secs))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await;
        let failed = |source| TestDbError::Connect {
            database: name.to_string(),
            source,
        };
        match connected {
            // The pool keeps the reason to itself; a plain connect tells it.
            Err(sqlx::Error::PoolTimedOut) => {
                let reason = options.connect().await.err();
                Err(failed(reason.unwrap_or(sqlx::Error::PoolTimedOut)))
            }
            result => result.inspect(|pool| hold.share(pool)).map_err(failed),
        }
    }

    async fn connect_shared(&self, hold: &Hold) -> Result<(DbName, PgPool), TestDbError> {
        let name = self.shared(None).await?;
        match self.connect(&name, hold).await {
            Err(error) if error.is_missing_database() => {
                let name = self.shared(Some(name)).await?;
                let pool = self.connect(&name, hold).await?;
                Ok((name, pool))
            }
            result => result.map(|pool| (name, pool)),
        }
    }
}

/// A pool on the shared clone of the exported run, or of our own where that one's template is gone.
struct Shared {
    session: Arc<Session>,
    hold: Hold,
    name: DbName,
    pool: PgPool,
}

impl Shared {
    async fn connect(connections: Option<u32>) -> Result<Self, TestDbError> {
        let mut retry = Retry::within(PASSES);
        loop {
            match Self::connect_once(connections).await {
                Err(error) if error.is_passing() => retry.pause(error).await?,
                result => return result,
            }
        }
    }

    async fn connect_once(connections: Option<u32>) -> Result<Self, TestDbError> {
        let session = current(connections).await?;
        match Self::of(session, connections).await {
            Err(error) if error.is_missing_template() => {
                report::lost_template(&error);
                Self::of(own(connections).await?, connections).await
            }
            result => result,
        }
    }

    async fn of(session: Arc<Session>, connections: Option<u32>) -> Result<Self, TestDbError> {
        let hold = session.hold(connections).await?;
        let (name, pool) = session.connect_shared(&hold).await?;
        Ok(Self {
            session,
            hold,
            name,
            pool,
        })
    }
}

impl TestDbError {
    /// A statement of ours, not a connect, met a database that does not exist: only cloning names one.
    fn is_missing_template(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => {
                error.is(code::INVALID_CATALOG_NAME)
            }
            _ => false,
        }
    }

    /// The server went down, or up, while we asked.
    fn is_passing(&self) -> bool {
        match self {
            Self::Pg(error) | Self::Run(RunError::Pg(error)) => error.is_passing(),
            Self::Connect { source, .. } => classify(source) == ConnectFailure::Passing,
            _ => false,
        }
    }

    fn is_missing_database(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if is_missing_database(source))
    }
}
