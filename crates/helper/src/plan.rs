//! The plan of a test: its attribute, as a chain of calls that the macro writes.

use kapsel_testdb_core::protocol::Leaks;
use kapsel_testdb_core::sqlx_compat::EmbeddedMigrator;

use crate::arguments::Arguments;
use crate::db::Outcome;
use crate::sqlx_compat::Version;
use crate::template::{self, Migrations, SchemaRequest};
use crate::{TestDb, TestDbError, TestDbOptions, fixtures, session};

/// How a test is isolated from other tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A clone of its own.
    #[default]
    Database,
    /// The run's shared clone.
    Shared,
    /// A sandbox: a transaction on the shared clone that is never committed.
    Transaction,
}

/// The plan of a test, from its attribute.
///
/// ```
/// use kapsel_testdb::testing::{Isolation, TestPlan};
///
/// let plan = TestPlan::new(env!("CARGO_MANIFEST_DIR")).isolation(Isolation::Shared).connections(10);
/// ```
#[derive(Debug, Clone)]
pub struct TestPlan {
    pub(super) package: &'static str,
    pub(super) isolation: Isolation,
    pub(super) connections: Option<u32>,
    pub(super) leaks: Option<Leaks>,
    pub(super) should_panic: bool,
    pub(super) own_keys: bool,
    pub(super) migrations: Migrations,
    pub(super) template: Option<&'static str>,
    pub(super) fixtures: Vec<&'static str>,
    pub(super) flavor: Flavor,
}

/// The runtime of an async test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Flavor {
    /// Everything runs on the test's thread.
    #[default]
    CurrentThread,
    /// Spawned tasks run on other threads: so many, or as many as tokio's default.
    MultiThread(Option<usize>),
}

impl TestPlan {
    /// A test on a clone of the template. `package` is the directory of its package when it was compiled.
    pub fn new(package: &'static str) -> Self {
        Self {
            package,
            isolation: Isolation::default(),
            connections: None,
            leaks: None,
            should_panic: false,
            own_keys: false,
            migrations: Migrations::default(),
            template: None,
            fixtures: Vec::new(),
            flavor: Flavor::default(),
        }
    }

    /// Sets the isolation.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets the number of connections that the test needs at the same time.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = Some(connections);
        self
    }

    /// Sets what happens if the test leaves connections open.
    pub fn leaks(mut self, leaks: Leaks) -> Self {
        self.leaks = Some(leaks);
        self
    }

    /// The test passes if it panics.
    pub fn should_panic(mut self) -> Self {
        self.should_panic = true;
        self
    }

    /// The test commits into the shared clone only under keys of its own.
    pub fn own_keys(mut self) -> Self {
        self.own_keys = true;
        self
    }

    /// Runs an async test on a runtime with several threads.
    pub fn multi_thread(mut self) -> Self {
        if self.flavor == Flavor::CurrentThread {
            self.flavor = Flavor::MultiThread(None);
        }
        self
    }

    /// Runs an async test on a runtime with this number of worker threads.
    pub fn worker_threads(mut self, threads: usize) -> Self {
        self.flavor = Flavor::MultiThread(Some(threads));
        self
    }

    /// Takes the schema from the migrations in a directory, relative to the package.
    pub fn migrations(mut self, directory: &'static str) -> Self {
        self.migrations = Migrations::Directory(directory);
        self
    }

    /// Takes the schema from a compiled migrator.
    pub fn migrator(mut self, migrator: &'static dyn EmbeddedMigrator) -> Self {
        self.migrations = Migrations::Embedded(migrator);
        self
    }

    /// Uses the template of that name.
    pub fn template(mut self, name: &'static str) -> Self {
        self.template = Some(name);
        self
    }

    /// Uses an empty database.
    pub fn without_migrations(mut self) -> Self {
        self.migrations = Migrations::None;
        self
    }

    /// Adds scripts that run before the test. Their paths are relative to the package.
    pub fn fixtures(mut self, scripts: &[&'static str]) -> Self {
        self.fixtures.extend(scripts);
        self
    }

    /// Leases the test's databases, runs the fixtures on them, and creates the test's arguments.
    pub(super) async fn set_up<A: Arguments>(
        &self,
    ) -> Result<(Vec<TestDb<A::Version>>, A), TestDbError> {
        session::set_package(self.package);
        let mut databases = Vec::with_capacity(A::DATABASES);
        for _ in 0..A::DATABASES {
            let mut db = self.lease().await?;
            db.one_of_several = A::DATABASES > 1;
            databases.push(db);
        }
        let package = template::package_directory(self.package);
        for index in 0..databases.len() {
            let applied = fixtures::apply(&databases[index], &package, &self.fixtures).await;
            if let Err(error) = applied {
                let failure = error.to_string();
                let outcome = Outcome::Failed(&failure);
                databases.swap_remove(index).end(outcome).await;
                return Err(error);
            }
        }
        let arguments = A::on(&databases).await?;
        Ok((databases, arguments))
    }

    async fn lease<V: Version>(&self) -> Result<TestDb<V>, TestDbError> {
        let options = TestDbOptions::new().schema(SchemaRequest {
            package: self.package,
            migrations: self.migrations,
        });
        let options = self.template.map_or(options, |name| options.template(name));
        let options = self.connections.map_or(options, |n| options.connections(n));
        let options = self.leaks.map_or(options, |leaks| options.leaks(leaks));
        match self.isolation {
            Isolation::Database => options.lease_as().await,
            Isolation::Shared if self.own_keys => options.own_keys().shared_as().await,
            Isolation::Shared => options.shared_as().await,
            Isolation::Transaction => options.sandbox_as().await,
        }
    }
}
