//! The versions of sqlx that tests use, and the one that we work with ourselves: the newest that is compiled.
//!
//! The files of `version/` are compiled once for each, and see it as `super::sqlx`. Everything else in the crate says `sqlx` and means our own.

mod error;
pub(crate) mod own;
pub mod sandbox;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::pg::Address;
pub use sandbox::{SandboxObserver, SandboxSettings};

#[cfg(feature = "sqlx-0_8")]
pub use sqlx_0_8::Sqlx0_8;
#[cfg(feature = "sqlx-0_9")]
pub use sqlx_0_9::Sqlx0_9;

/// The version that we work with ourselves, and that [`crate::TestDb`] has where nobody says otherwise.
#[cfg(feature = "sqlx-0_9")]
pub type Own = Sqlx0_9;
/// The version that we work with ourselves, and that [`crate::TestDb`] has where nobody says otherwise.
#[cfg(not(feature = "sqlx-0_9"))]
pub type Own = Sqlx0_8;

/// A complete configuration for our own.
pub fn options(address: &Address, database: &str) -> sqlx::postgres::PgConnectOptions {
    #[cfg(feature = "sqlx-0_9")]
    return sqlx_0_9::options::of(address, database);
    #[cfg(not(feature = "sqlx-0_9"))]
    sqlx_0_8::options::of(address, database)
}

/// A version of sqlx: what its pools and options are, and how they are made. Implemented by `Sqlx0_9` and `Sqlx0_8`; for code of
/// yours that works with both.
///
/// ```
/// use kapsel_testdb::{TestDb, Version};
///
/// fn pool_of<V: Version>(db: &TestDb<V>) -> V::Pool {
///     db.pool().clone()
/// }
/// ```
pub trait Version: Debug + Sized + 'static {
    /// `PgPool`.
    type Pool: SharedPool + Clone;
    /// `PgConnectOptions`.
    type ConnectOptions: Debug + Clone + Send + Sync + 'static;
    /// `PgPoolOptions`.
    type PoolOptions: Debug + Clone + Send + Sync + 'static;

    /// A complete configuration for a database. A password that the address does not have is looked up in the passfile.
    #[doc(hidden)]
    fn connect_options(address: &Address, database: &str, label: &str) -> Self::ConnectOptions;

    /// A pool's options.
    #[doc(hidden)]
    fn pool_options(settings: &PoolSettings) -> Self::PoolOptions;

    /// Opens a pool with one connection in it.
    ///
    /// # Errors
    /// Why it cannot connect.
    #[doc(hidden)]
    fn open(
        pool: Self::PoolOptions,
        connect: Self::ConnectOptions,
    ) -> BoxFuture<'static, Result<Self::Pool, sqlx::Error>>;

    /// Opens the pool of a sandbox: see [`sandbox`].
    ///
    /// # Errors
    /// Why it cannot connect, or begin.
    #[doc(hidden)]
    fn open_sandbox(
        settings: SandboxSettings,
        connect: Self::ConnectOptions,
    ) -> BoxFuture<'static, Result<Self::Pool, sqlx::Error>>;
}

/// What a test's pool is like.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Most connections.
    pub connections: u32,
    /// How long an acquire waits.
    pub acquire_timeout: Duration,
    /// Is told of each connection that is given back.
    pub observer: Arc<dyn PoolObserver>,
}

/// Is told what happens to a test's pool.
pub trait PoolObserver: Debug + Send + Sync + 'static {
    /// A connection was given back.
    fn released(&self) -> BoxFuture<'static, ()>;
}

/// A test's pool, of whatever version.
pub trait SharedPool: Debug + Send + Sync + 'static {
    /// How many connections are open.
    fn size(&self) -> u32;
    /// How many of them nobody uses.
    fn num_idle(&self) -> usize;
    /// Whether somebody has closed it.
    fn is_closed(&self) -> bool;
    /// Closes those that nobody uses.
    fn close_idle(&self) -> BoxFuture<'_, ()>;
    /// Closes all, and waits for those that are in use.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// One that nobody uses, if there is one.
    fn try_take(&self) -> Option<Box<dyn Taken>>;
    /// One that nobody uses, or a new one.
    fn take(&self) -> BoxFuture<'_, Result<Box<dyn Taken>, sqlx::Error>>;
}

/// A row of texts.
pub type Texts = Vec<Option<String>>;

/// A connection that was taken out of a pool; goes back when it is dropped.
pub trait Taken: Debug + Send {
    /// What a query finds, all of whose columns must be text. One round trip.
    fn texts<'a>(&'a mut self, sql: &'static str)
    -> BoxFuture<'a, Result<Vec<Texts>, sqlx::Error>>;
    /// Closes it.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Migrations that are compiled into a test: a `Migrator`, of whatever version.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no migrator of a version of sqlx that kapsel-testdb is compiled with",
    label = "expected a `sqlx::migrate::Migrator`"
)]
pub trait EmbeddedMigrator: Debug + Sync {
    /// The migrations that it runs, in its order.
    fn up(&self) -> Vec<EmbeddedMigration<'_>>;
    /// Where it notes them.
    fn table(&self) -> &str;
    /// Schemas that it makes first, as they stand in SQL.
    fn schemas(&self) -> Vec<&str>;
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedMigration<'a> {
    /// Its version.
    pub version: i64,
    /// Its description.
    pub description: &'a str,
    /// Its text.
    pub sql: &'a str,
    /// What sqlx notes of the text.
    pub checksum: &'a [u8],
    /// Whether it runs without a transaction.
    pub no_tx: bool,
}

#[cfg(feature = "sqlx-0_8")]
mod sqlx_0_8;
#[cfg(feature = "sqlx-0_9")]
mod sqlx_0_9;
