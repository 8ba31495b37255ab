//! The options of a test's database.

use kapsel_testdb_core::protocol::{Leaks, UseMode};

use crate::TestDbError;
use crate::db::TestDb;
use crate::lease::{self, LeaseRequest};
use crate::session::TemplateRequest;
use crate::shared_use::SharedRequest;
use crate::sqlx_compat::Version;
use crate::template::SchemaRequest;

/// The options of one test's database. They override the configuration.
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
    template: TemplateRequest,
    own_keys: bool,
}

impl TestDbOptions {
    /// The options that the configuration sets.
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

    /// The number of connections that the test needs at the same time (0 counts as 1). The pool may open that many, and the process waits
    /// until the server has them free. The default is `pool.max_connections`, or fewer if the server has few.
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

    /// What [`TestDb::release`] does if the test leaves connections open. The default is `pool.leaks`.
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

    /// Declares that the test commits into the shared clone only under keys of its own ([`crate::test_id`]). The rows that it adds are then not
    /// reported at the end of the run; rows of the template that it changes or removes still are. The default is `shared.own_keys`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().own_keys().shared().await?;
    /// let name = kapsel_testdb::test_id();
    /// sqlx::query("INSERT INTO tenants (name) VALUES ($1)").bind(&name).execute(db.pool()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn own_keys(mut self) -> Self {
        self.own_keys = true;
        self
    }

    /// The template of that name, if the configuration has several (`[[template]]`). The default is the one that lists the test's package, else the
    /// first one.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let db = kapsel_testdb::TestDbOptions::new().template("audit").lease().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn template(mut self, name: &'static str) -> Self {
        self.template.name = Some(name);
        self
    }

    /// The schema that the attribute names.
    pub(crate) fn schema(mut self, schema: SchemaRequest) -> Self {
        self.template.schema = Some(schema);
        self
    }

    /// Leases a clone with these options: see [`TestDb::lease`].
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

    /// [`Self::lease`] with a pool of the given version of sqlx.
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
        // A template that is named has its own migrations.
        let schema = self
            .template
            .schema
            .filter(|_| self.template.name.is_none());
        self.obtain(LeaseRequest::Clone(schema)).await
    }

    async fn obtain<V: Version>(self, request: LeaseRequest) -> Result<TestDb<V>, TestDbError> {
        let connections = match request {
            LeaseRequest::Sandbox => Some(1),
            LeaseRequest::Clone(_) | LeaseRequest::Shared(_) => self.connections,
        };
        let leased = lease::obtain(request, self.template, connections).await?;
        Ok(TestDb::new(leased, self.leaks))
    }

    /// Leases the shared clone with these options: see [`TestDb::shared`].
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

    /// [`Self::shared`] with a pool of the given version of sqlx.
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
        let request = SharedRequest {
            mode: UseMode::Shared,
            own_keys: self.own_keys,
        };
        self.obtain(LeaseRequest::Shared(request)).await
    }

    /// Opens a sandbox with these options: see [`TestDb::sandbox`]. A sandbox has one connection, so [`Self::connections`] has no effect.
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

    /// [`Self::sandbox`] with a pool of the given version of sqlx.
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
        self.obtain(LeaseRequest::Sandbox).await
    }
}
