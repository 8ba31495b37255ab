//! A test's database and the pool on it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::connect::{Kind, PASSES, Shared};
use super::sandbox::{SandboxLost, Sandboxed};
use super::session::{Session, current, own};
use super::shared_use::Use;
use super::template::{Other, Wanted};
use super::tokens::Hold;
use super::{TestDbError, TestTransaction, identity, report};
use crate::config::Leaks;
use crate::driver::{self, Own, SharedPool, Version};
use crate::name::DbName;
use crate::pg::connect::Retry;
use crate::run_dir::{Claim, UseMode};

/// How long a release waits for connections that the test still uses.
const CLOSE: Duration = Duration::from_millis(100);

/// A database for a test, and a pool on it. Given back when it is dropped; kept for a look when that happens in a panic, or when
/// the process ends without dropping it: a killed test has failed. So do not leak it, nor leave it in a `static`.
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
/// `V` says which sqlx the pool is of: `Sqlx0_9` or `Sqlx0_8`.
#[derive(Debug)]
pub struct TestDb<V: Version = Own> {
    pub(super) pool: V::Pool,
    name: DbName,
    text: String,
    /// None: the shared clone, which is the run's.
    pub(super) claim: Option<Claim>,
    /// Of the shared clone.
    shared_use: Option<Use>,
    /// Only with isolation `transaction`; taken out when the test ends.
    sandbox: Option<Sandboxed>,
    pub(super) session: Arc<Session>,
    pub(super) hold: Hold,
    /// What happens where it leaves connections open, if not what the configuration says.
    leaks: Option<Leaks>,
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
    leaks: Option<Leaks>,
    wanted: Option<Wanted>,
}

impl TestDbOptions {
    /// As the configuration says.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().lease().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections the test needs at once. Its pool may open so many, and the process waits until the server has them to
    /// spare; without this it gets `pool.max_connections`, or fewer where the server has few.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().connections(10).lease().await?;
    /// let all = futures_util::future::try_join_all((0..10).map(|_| db.pool().acquire())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = Some(connections.max(1));
        self
    }

    /// What [`TestDb::release`] does where the test leaves connections open; without this, what `pool.leaks` says.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().leaks(kapsel_testdb::Leaks::Fail).lease().await?;
    /// db.release().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn leaks(mut self, leaks: Leaks) -> Self {
        self.leaks = Some(leaks);
        self
    }

    /// What the attribute says of its schema.
    pub(super) fn wanted(mut self, wanted: Wanted) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// See [`TestDb::lease`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().connections(10).lease().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn lease(self) -> Result<TestDb, TestDbError> {
        self.lease_as().await
    }

    /// The same with a pool of the given version of sqlx.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use kapsel_testdb::{Sqlx0_9, TestDb, TestDbOptions};
    /// let db: TestDb<Sqlx0_9> = TestDbOptions::new().lease_as().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn lease_as<V: Version>(self) -> Result<TestDb<V>, TestDbError> {
        let mut retry = Retry::within(PASSES);
        loop {
            match TestDb::lease_once(self).await {
                Err(error) if error.is_passing() => retry.pause(error).await?,
                result => return result,
            }
        }
    }

    /// The template to clone, where it is not the run's.
    async fn other(&self, session: &Session) -> Result<Option<Arc<Other>>, TestDbError> {
        let Some(wanted) = self.wanted else {
            return Ok(None);
        };
        Ok(wanted.other(&session.file).await?.map(Arc::new))
    }

    /// See [`TestDb::shared`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().connections(2).shared().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn shared(self) -> Result<TestDb, TestDbError> {
        self.shared_as().await
    }

    /// The same with a pool of the given version of sqlx.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use kapsel_testdb::{Sqlx0_9, TestDb, TestDbOptions};
    /// let db: TestDb<Sqlx0_9> = TestDbOptions::new().shared_as().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn shared_as<V: Version>(self) -> Result<TestDb<V>, TestDbError> {
        let shared = Shared::connect(self.connections, Kind::Plain, UseMode::Shared).await?;
        Ok(TestDb::on(shared, self.leaks))
    }

    /// See [`TestDb::sandbox`]. It has one connection, whatever is asked for here.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use kapsel_testdb::{Leaks, TestDbOptions};
    /// let db = TestDbOptions::new().leaks(Leaks::Fail).sandbox().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn sandbox(self) -> Result<TestDb, TestDbError> {
        self.sandbox_as().await
    }

    /// The same with a pool of the given version of sqlx.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use kapsel_testdb::{Sqlx0_9, TestDb, TestDbOptions};
    /// let db: TestDb<Sqlx0_9> = TestDbOptions::new().sandbox_as().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`TestDb::lease`].
    pub async fn sandbox_as<V: Version>(self) -> Result<TestDb<V>, TestDbError> {
        let shared = Shared::connect(Some(1), Kind::Sandbox, UseMode::Begin).await?;
        Ok(TestDb::on(shared, self.leaks))
    }
}

impl TestDb {
    /// Isolation `database`: a clone of the template for this test alone. May be called many times in one test.
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
    /// [`TestDbError`] where there is no server, no template or no connection; the message says what to do.
    pub async fn lease() -> Result<Self, TestDbError> {
        TestDbOptions::new().lease().await
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

    /// Isolation `transaction`: a sandbox. The pool has one connection, in a transaction on the run's shared clone that is never
    /// committed; what the application begins on it is a savepoint. What is different there is in `docs/SANDBOX.md`.
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
            shared_use,
            ..
        } = Shared::<Own>::connect(Some(1), Kind::Plain, UseMode::Begin).await?;
        TestTransaction::begin(session, hold, pool, &name, shared_use).await
    }
}

impl<V: Version> TestDb<V> {
    async fn lease_once(options: TestDbOptions) -> Result<Self, TestDbError> {
        let connections = options.connections;
        let mut session = current(connections).await?;
        let mut other = options.other(&session).await?;
        let mut hold = session.hold(connections).await?;
        let claimant = || Some(identity::claimant());
        let mut claim = match session.claim(other.as_ref(), claimant()).await {
            Err(error) if error.is_missing_template() => {
                report::lost_template(&error);
                drop(hold);
                session = own(connections).await?;
                other = options.other(&session).await?;
                hold = session.hold(connections).await?;
                session.claim(other.as_ref(), claimant()).await?
            }
            result => result?,
        };
        let pool = match session.connect::<V>(&claim.name, &hold).await {
            Err(error) if error.is_missing_database() => {
                // Swept or lost with the server: the entry outlived its database.
                session.release(claim.unused())?;
                claim = session.clone_one(other.as_ref(), claimant()).await?;
                session.connect::<V>(&claim.name, &hold).await
            }
            result => result,
        };
        let pool = match pool {
            Ok(pool) => pool,
            Err(error) => {
                if let Err(error) = session.release(claim.unused()) {
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
            shared_use: None,
            sandbox: None,
            session,
            hold,
            leaks: options.leaks,
        })
    }

    fn on(shared: Shared<V>, leaks: Option<Leaks>) -> Self {
        Self {
            pool: shared.pool,
            text: shared.name.to_string(),
            name: shared.name,
            claim: None,
            shared_use: shared.shared_use,
            sandbox: shared.sandbox,
            session: shared.session,
            hold: shared.hold,
            leaks,
        }
    }

    /// The pool on the database: at most `pool.max_connections` connections, opened as needed.
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
        &self.text
    }

    /// The database's URL, password included where the server needs one: for other drivers. Not for printing.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDb::lease().await?;
    /// let server = std::process::Command::new("my-server").env("DATABASE_URL", db.url()).spawn()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn url(&self) -> String {
        self.session.file.server.url_with_password(&self.text)
    }

    /// Options of a pool of your own on it, as large as the server has connections for.
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
        let mut settings = self.session.pool_settings(&self.hold);
        // One stays open here.
        settings.connections = (settings.connections - 1).max(1);
        V::pool_options(&settings)
    }

    /// A complete configuration for connections of your own.
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
        self.session.options::<V>(&self.name)
    }

    /// The same for our own sqlx.
    pub(super) fn own_options(&self) -> PgConnectOptions {
        driver::options(&self.session.file.server, &self.text)
    }

    /// Closes the pool and gives the database back. What the test left open (connections of the pool, pools of its own,
    /// transactions) is reported; see `pool.leaks`. Dropping gives the database back as well, but neither closes nor looks: a
    /// destructor cannot wait for what is only on its way.
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
    /// Where it was a sandbox that did not hold, so that the test fails (dropping knows only what was found out until then); and
    /// where something was left open and [`Leaks::Fail`] is asked for: the database is kept then, as that of any failed test.
    pub async fn release(mut self) {
        if let Err(lost) = self.end_sandbox(None).await {
            panic!("{lost}");
        }
        if let Err(left) = self.give_back().await {
            panic!("{left}");
        }
    }

    /// The end of a test's sandbox, if it has one: `failure` is what a failed test said.
    ///
    /// # Errors
    /// The sandbox did not hold.
    pub(super) async fn end_sandbox(&mut self, failure: Option<&str>) -> Result<(), SandboxLost> {
        match self.sandbox.take() {
            Some(sandbox) => sandbox.end(&self.pool, failure).await,
            None => Ok(()),
        }
    }

    /// [`Self::release`] for who says by himself that the test failed.
    ///
    /// # Errors
    /// What was left open, where that is a failure.
    pub(super) async fn give_back(mut self) -> Result<(), String> {
        let leaks = self.leaks.unwrap_or(self.session.file.pool.leaks);
        let left = match leaks {
            Leaks::Off => None,
            Leaks::Warn | Leaks::Fail => self.left_open().await,
        };
        // What is held has been waited for already.
        let patience = if left.is_some() {
            Duration::ZERO
        } else {
            CLOSE
        };
        let closed = tokio::time::timeout(patience, self.pool.close()).await;
        if let (Ok(()), Some(used)) = (closed, self.shared_use.take()) {
            used.end();
        }
        match left {
            Some(left) if leaks == Leaks::Fail => {
                self.fail();
                Err(left)
            }
            Some(left) => {
                report::left_open(&left);
                Ok(())
            }
            None => Ok(()),
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
            let whose = claim.claimant().cloned();
            match self.session.keep(claim) {
                Ok(kept) => report::kept(&kept, &self.session.file.server, whose.as_ref()),
                Err(error) => report::not_kept(&self.name, &error),
            }
        } else if let Err(error) = self.session.release(claim) {
            report::left_to_sweep(&error);
        }
    }
}

impl<V: Version> Drop for TestDb<V> {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        self.finish(panicking);
        let Some(sandbox) = self.sandbox.take() else {
            return;
        };
        match sandbox.ended(&self.pool, panicking.then_some("")) {
            Err(lost) if panicking => report::lost_sandbox(&lost),
            Err(lost) => panic!("{lost}"),
            Ok(()) => {}
        }
    }
}
