//! A test's database, the pool on it, and the end of its lease.
//!
//! A process that dies without ending a lease leaves a leased entry whose `flock` is free. The keeper, the end of the run, or the sweep
//! keeps that database like that of a failed test.

mod options;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use kapsel_testdb_core::protocol::{Claim, Cleaning, DbName, Leak, Leaks, Reason, UseMode};
use kapsel_testdb_core::recycle;

pub use self::options::TestDbOptions;
use crate::lease::{self, Lease, LeaseRequest, Leased};
use crate::sandbox::{SandboxLost, is_pool_timeout};
use crate::session::{Session, TemplateRequest};
use crate::shared_use::SharedRequest;
use crate::slots::Permit;
use crate::sqlx_compat::{InternalSqlx, PooledConnection, SharedPool, Version, WarmSession};
use crate::{TestDbError, TestTransaction, left_rows, report};

/// How long the end of a lease waits for connections that the test still uses.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A database for a test, with a pool on it. Dropping it releases the database. The database is kept for inspection if it is dropped
/// during a panic, or if the process ends without dropping it, because a killed test counts as failed. So do not leak a `TestDb`, and do
/// not store it in a `static`.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = kapsel_testdb::TestDb::lease().await?;
/// sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(db.pool()).await?;
/// db.release().await;
/// # Ok(())
/// # }
/// ```
///
/// `V` is the version of sqlx that the pool belongs to: `Sqlx0_9` or `Sqlx0_8`.
#[derive(Debug)]
pub struct TestDb<V: Version = InternalSqlx> {
    pub(super) pool: V::Pool,
    pub(super) db_name: DbName,
    /// `db_name` as text, for [`Self::name`].
    name: String,
    pub(super) lease: Lease,
    pub(super) session: Arc<Session>,
    pub(super) permit: Permit,
    /// Overrides `pool.leaks`.
    leaks: Option<Leaks>,
    /// Whether the attribute gives the test several databases.
    pub(super) one_of_several: bool,
}

impl TestDb {
    /// Leases a clone of the template for this test alone (isolation `database`). A test may lease several.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let tenant = kapsel_testdb::TestDb::lease().await?;
    /// assert_ne!(db.name(), tenant.name());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TestDbError`] if there is no server, no template or no connection. The message names the remedy.
    pub async fn lease() -> Result<Self, TestDbError> {
        TestDbOptions::new().lease().await
    }

    /// Leases the run's shared clone (isolation `shared`). Tests avoid conflicts by using their own keys: see [`crate::test_id`].
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

    /// Opens a sandbox (isolation `transaction`). Its pool has one connection, in a transaction on the run's shared clone that is never
    /// committed. A transaction that the application begins is a savepoint in it. `docs/SANDBOX.md` lists the differences from a database
    /// of its own.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::sandbox().await?;
    /// let mut tx = db.pool().begin().await?;
    /// sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(&mut *tx).await?;
    /// tx.commit().await?;
    /// db.release().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Self::url`], [`Self::connect_options`] and [`Self::pool_options`] lead to the shared clone, outside of the sandbox.
    ///
    /// # Errors
    /// See [`Self::lease`].
    pub async fn sandbox() -> Result<Self, TestDbError> {
        TestDbOptions::new().sandbox().await
    }

    /// Begins a transaction on the run's shared clone. It rolls back when it is dropped.
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
        let request = LeaseRequest::Shared(SharedRequest::TRANSACTION);
        let leased = lease::obtain(request, TemplateRequest::default(), Some(1)).await?;
        TestTransaction::begin(leased).await
    }
}

impl<V: Version> TestDb<V> {
    fn new(leased: Leased<V>, leaks: Option<Leaks>) -> Self {
        Self {
            pool: leased.pool,
            name: leased.name.to_string(),
            db_name: leased.name,
            lease: leased.lease,
            session: leased.session,
            permit: leased.permit,
            leaks,
            one_of_several: false,
        }
    }

    /// The pool on the database. It opens connections as needed, by default at most `pool.max_connections`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(db.pool()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool(&self) -> &V::Pool {
        &self.pool
    }

    /// The database's name.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// println!("works on {}", db.name());
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The database's URL for other drivers, including the password if the server needs one. Do not print it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let server = std::process::Command::new("my-server").env("DATABASE_URL", db.url()).spawn()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn url(&self) -> String {
        self.session.file.server.url_with_password(&self.name)
    }

    /// The options of a pool of your own on the database. Its maximum size is that of [`Self::pool`] less 1 (at least 1), because the
    /// `TestDb` keeps one connection open.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let options = db.pool_options().test_before_acquire(false);
    /// let pool = options.connect_with(db.connect_options()).await?;
    /// pool.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool_options(&self) -> V::PoolOptions {
        let mut settings = self.session.pool_settings(&self.permit);
        settings.connections = (settings.connections - 1).max(1);
        V::pool_options(&settings)
    }

    /// The complete options of a connection of your own.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use sqlx::Connection;
    ///
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let mut connection = sqlx::PgConnection::connect_with(&db.connect_options()).await?;
    /// connection.ping().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_options(&self) -> V::ConnectOptions {
        self.session.connect_options::<V>(&self.db_name)
    }

    /// The options of a connection of the helper's own version of sqlx.
    pub(super) fn internal_options(&self) -> PgConnectOptions {
        self.session.file.server.options(&self.name)
    }

    /// Closes the pool and releases the database. If the test left connections, pools or transactions open, that is reported, makes the
    /// test fail, or is ignored: see `pool.leaks`. Dropping a `TestDb` releases the database too, but neither closes the pool nor checks
    /// for leaks, because a destructor cannot wait for connections that are being returned.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// sqlx::query("DELETE FROM tenants").execute(db.pool()).await?;
    /// db.release().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Panics, so that the test fails, in two cases:
    ///
    /// - The sandbox was lost. (Dropping the `TestDb` panics as well, but only if the loss is known by then.)
    /// - The test left something open, and [`Leaks::Fail`] is set. The database is then kept, like that of any failed test.
    pub async fn release(self) {
        let ended = self.end(Outcome::Passed).await;
        if let Some(lost) = ended.sandbox_lost {
            panic!("{lost}");
        }
        if let Some(leak) = ended.fatal_leak {
            panic!("{}", leak.message);
        }
    }

    /// Ends a lease of any kind: ends the sandbox, checks a passed test for leaks, closes the pool, and releases or keeps the database.
    pub(super) async fn end(mut self, outcome: Outcome<'_>) -> EndReport {
        let mut ended = EndReport::default();
        let policy = self.leaks.unwrap_or(self.session.file.pool.leaks);
        let mut lease = std::mem::replace(&mut self.lease, Lease::Ended);
        if let Lease::Sandbox(sandbox, _) = &lease {
            ended.sandbox_lost = sandbox.end(&self.pool, outcome.failure()).await.err();
        }
        if let Outcome::Failed(message) = outcome {
            self.report_exhausted_pool(&lease, message);
            // Leaks are not checked: they may be a consequence of the failure.
            if let Lease::Clone(_) = &lease {
                // The connection that reads the rows needs a slot.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
            }
            self.release_or_keep(lease, Some(message));
            return ended;
        }
        if let Lease::Sandbox(sandbox, shared_use) = lease {
            drop(sandbox);
            lease = Lease::Shared(shared_use);
        }
        let check = match policy {
            Leaks::Off => LeakCheck {
                leak: None,
                connection: self.pool.try_acquire(),
            },
            Leaks::Warn | Leaks::Fail => self.check_for_leaks(&lease).await,
        };
        let leak = check.leak;
        if let Some(mut connection) = check.connection {
            if let Lease::Clone(claim) = &lease {
                self.clean(claim, connection.as_mut()).await;
            }
            connection.close().await;
        }
        // The check for leaks has already waited for connections in use.
        let timeout = if leak.is_some() {
            Duration::ZERO
        } else {
            CLOSE_TIMEOUT
        };
        let closed = tokio::time::timeout(timeout, self.pool.close()).await;
        if let (Ok(()), Lease::Shared(shared_use)) = (closed, &mut lease)
            && let Some(shared_use) = shared_use.take()
        {
            shared_use.end();
        }
        let fails = leak.as_ref().filter(|_| policy == Leaks::Fail);
        self.release_or_keep(lease, fails.map(|leak| leak.message.as_str()));
        if fails.is_some() {
            ended.fatal_leak = leak;
        } else if let Some(leak) = leak {
            leak.warn();
        }
        ended
    }

    /// After a failed test: reports that its pool had too few connections, if it had.
    fn report_exhausted_pool(&self, lease: &Lease, failure: &str) {
        if let Lease::Sandbox(..) | Lease::Ended = lease {
            return;
        }
        let timeout = Duration::from_secs(self.session.file.pool.acquire_timeout_secs);
        let exhausted = self.permit.longest_exhaustion();
        let exhausted = Some(exhausted).filter(|time| *time >= timeout);
        let certain = is_pool_timeout(failure);
        if exhausted.is_some() || certain {
            report::exhausted_pool(self.permit.connections, timeout, exhausted, certain);
        }
    }

    /// Resets the clone on the test's own connection, which is warm. Without a result in the entry, the keeper does it, or drops the clone.
    async fn clean(&self, claim: &Claim, connection: &mut dyn PooledConnection) {
        let file = &self.session.file;
        // Behind a pooler, the server's session does not end with the connection.
        let (Some(method), None) = (file.recycle, &file.admin) else {
            return;
        };
        let Some(baseline) = claim.baseline() else {
            return;
        };
        // Other idle connections of the pool would be in the way.
        self.pool.close_idle().await;
        let dir = self.session.dir();
        let mut session = WarmSession(connection);
        let cleaned = recycle::clean(&mut session, &baseline, || dir.profile(), method).await;
        match cleaned {
            Ok(cleaning) => claim.note_cleaning(&cleaning),
            Err(error) => {
                tracing::debug!("failed to clean `{}`: {error}", self.name);
                claim.note_cleaning(&Cleaning::Dirty(Reason::Failed));
            }
        }
    }

    /// Releases a clone, or keeps it if the test failed.
    fn release_or_keep(&self, lease: Lease, failure: Option<&str>) {
        let failure = failure.filter(|_| self.session.file.keep.failed);
        match (lease, failure) {
            (Lease::Clone(claim), Some(failure)) => self.keep(claim, failure),
            (Lease::Clone(claim), None) => {
                if let Err(error) = self.session.release(claim) {
                    report::left_to_sweep(&error);
                }
            }
            (Lease::Shared(_), Some(_)) => report::nothing_kept(UseMode::Shared),
            (Lease::Sandbox(..), Some(_)) => report::nothing_kept(UseMode::Begin),
            (Lease::Shared(_) | Lease::Sandbox(..) | Lease::Ended, _) => {}
        }
    }

    /// Keeps a failed test's clone. Its rows are read first: once its entry says that the test failed, the keeper renames it.
    fn keep(&self, claim: Claim, failure: &str) {
        let claimant = claim.claimant().cloned();
        let rows = left_rows::describe(&self.session, &claim);
        match self.session.keep(claim, failure) {
            Ok(kept) => report::kept(&kept, &rows, claimant.as_ref(), self.one_of_several),
            Err(error) => report::not_kept(&self.db_name, &error),
        }
    }
}

/// The outcome of a test.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome<'a> {
    Passed,
    /// With the message of the panic or of the returned error, empty if there is none.
    Failed(&'a str),
}

impl<'a> Outcome<'a> {
    fn failure(self) -> Option<&'a str> {
        match self {
            Self::Passed => None,
            Self::Failed(message) => Some(message),
        }
    }
}

/// What the end of a lease learns from a check for leaks.
#[derive(Debug, Default)]
pub(super) struct LeakCheck {
    /// What is open.
    pub leak: Option<FoundLeak>,
    /// If nothing is open: the connection that the check used. Others of the pool may be idle.
    pub connection: Option<Box<dyn PooledConnection>>,
}

/// What a test left open.
#[derive(Debug)]
pub(super) struct FoundLeak {
    /// For the test's output.
    pub message: String,
    pub record: Leak,
    pub run_dir: PathBuf,
}

impl FoundLeak {
    /// Prints it, and records it for a later command: the output of a passing test is hidden.
    pub fn warn(&self) {
        report::left_open(&self.message);
        if let Err(error) = self.record.append(&self.run_dir) {
            tracing::debug!("failed to record a leak: {error}");
        }
    }
}

/// What the end of a lease detected.
#[derive(Debug, Default)]
pub(super) struct EndReport {
    pub sandbox_lost: Option<SandboxLost>,
    /// What is open, if that makes the test fail.
    pub fatal_leak: Option<FoundLeak>,
}

impl<V: Version> Drop for TestDb<V> {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        // A destructor cannot read the message.
        let failure = panicking.then_some("the test panicked");
        match std::mem::replace(&mut self.lease, Lease::Ended) {
            Lease::Sandbox(sandbox, shared_use) => {
                match sandbox.ended(&self.pool, panicking.then_some("")) {
                    Err(lost) if panicking => report::lost_sandbox(&lost),
                    Err(lost) => panic!("{lost}"),
                    Ok(()) => {}
                }
                self.release_or_keep(Lease::Sandbox(sandbox, shared_use), failure);
            }
            lease => {
                if panicking {
                    self.report_exhausted_pool(&lease, "");
                }
                self.release_or_keep(lease, failure);
            }
        }
    }
}
