//! What the attribute says of a test: the macro writes a chain of these calls.

use super::template::{self, Wanted};
use super::{Arguments, TestDb, TestDbError, TestDbOptions, fixtures};
use crate::config::Leaks;
use crate::driver::{EmbeddedMigrator, Version};

/// How a test is kept apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A clone of its own.
    #[default]
    Database,
    /// The run's shared clone, as it is.
    Shared,
    /// A sandbox: a transaction on the shared clone that is never committed.
    Transaction,
}

/// Where the schema of a test's database comes from.
#[derive(Debug, Clone, Copy, Default)]
pub enum Migrations {
    /// From the folder of the test's package (`migrations`, or what its `sqlx.toml` says) where it has one, else from the run's template.
    #[default]
    Inferred,
    /// From that folder, relative to the package.
    Folder(&'static str),
    /// From what is compiled into the test.
    Embedded(&'static dyn EmbeddedMigrator),
    /// From nowhere: an empty database.
    None,
}

/// What the attribute says of a test.
///
/// ```
/// use kapsel_testdb::testing::{Isolation, Plan};
///
/// let plan = Plan::new(env!("CARGO_MANIFEST_DIR")).isolation(Isolation::Shared).connections(10);
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) package: &'static str,
    pub(super) isolation: Isolation,
    pub(super) connections: Option<u32>,
    pub(super) leaks: Option<Leaks>,
    pub(super) should_panic: bool,
    pub(super) migrations: Migrations,
    pub(super) fixtures: Vec<&'static str>,
}

impl Plan {
    /// A clone of the template, for a test of the package that was compiled in that folder.
    pub fn new(package: &'static str) -> Self {
        Self {
            package,
            isolation: Isolation::default(),
            connections: None,
            leaks: None,
            should_panic: false,
            migrations: Migrations::default(),
            fixtures: Vec::new(),
        }
    }

    /// How it is kept apart.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many connections it needs at once.
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = Some(connections);
        self
    }

    /// What happens where it leaves connections open.
    pub fn leaks(mut self, leaks: Leaks) -> Self {
        self.leaks = Some(leaks);
        self
    }

    /// A panic is what it is for.
    pub fn should_panic(mut self) -> Self {
        self.should_panic = true;
        self
    }

    /// The schema is what that folder makes, relative to the package.
    pub fn migrations(mut self, folder: &'static str) -> Self {
        self.migrations = Migrations::Folder(folder);
        self
    }

    /// The schema is what that migrator makes.
    pub fn migrator(mut self, migrator: &'static dyn EmbeddedMigrator) -> Self {
        self.migrations = Migrations::Embedded(migrator);
        self
    }

    /// The database is empty.
    pub fn without_migrations(mut self) -> Self {
        self.migrations = Migrations::None;
        self
    }

    /// Runs those scripts before the test; paths relative to the package.
    pub fn fixtures(mut self, scripts: &[&'static str]) -> Self {
        self.fixtures.extend(scripts);
        self
    }

    /// What the test takes, and the databases that it is on.
    pub(super) async fn databases<A: Arguments>(
        &self,
    ) -> Result<(Vec<TestDb<A::Version>>, A), TestDbError> {
        let mut databases = Vec::with_capacity(A::DATABASES);
        for _ in 0..A::DATABASES {
            databases.push(self.database().await?);
        }
        let package = template::package(self.package);
        for at in 0..databases.len() {
            let applied = fixtures::apply(&databases[at], &package, &self.fixtures).await;
            if let Err(error) = applied {
                databases.swap_remove(at).fail();
                return Err(error);
            }
        }
        let arguments = A::on(&databases).await?;
        Ok((databases, arguments))
    }

    async fn database<V: Version>(&self) -> Result<TestDb<V>, TestDbError> {
        let options = TestDbOptions::new().wanted(Wanted {
            package: self.package,
            migrations: self.migrations,
        });
        let options = self.connections.map_or(options, |n| options.connections(n));
        let options = self.leaks.map_or(options, |leaks| options.leaks(leaks));
        match self.isolation {
            Isolation::Database => options.lease_as().await,
            Isolation::Shared => options.shared_as().await,
            Isolation::Transaction => options.sandbox_as().await,
        }
    }
}
