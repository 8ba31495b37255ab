//! The versions of sqlx that tests use, and the one that the helper itself uses: the newest that is compiled.
//!
//! The files in `version/` are compiled once for each version, which is `super::sqlx` there. Everywhere else in this crate `sqlx` is the
//! helper's own version.

mod error;
pub mod sandbox;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use kapsel_testdb_core::address::Address;

use kapsel_testdb_core::recycle::{TextRow, TextSession};

pub use sandbox::SandboxSettings;

#[cfg(feature = "sqlx-0_8")]
pub use sqlx_0_8::Sqlx0_8;
#[cfg(feature = "sqlx-0_9")]
pub use sqlx_0_9::Sqlx0_9;

/// The version that the helper itself uses; also the default of [`crate::TestDb`].
#[cfg(feature = "sqlx-0_9")]
pub type InternalSqlx = Sqlx0_9;
/// The version that the helper itself uses; also the default of [`crate::TestDb`].
#[cfg(not(feature = "sqlx-0_9"))]
pub type InternalSqlx = Sqlx0_8;

/// A version of sqlx: the types of its pools and options. Implemented by `Sqlx0_9` and `Sqlx0_8`, for
/// helper functions that work with both.
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

    /// A complete configuration for a database. If the address has no password, sqlx takes it from the passfile.
    #[doc(hidden)]
    fn connect_options(address: &Address, database: &str, label: &str) -> Self::ConnectOptions;

    /// The options of a pool.
    #[doc(hidden)]
    fn pool_options(settings: &PoolSettings) -> Self::PoolOptions;

    /// Opens a pool with one connection in it.
    ///
    /// # Errors
    /// The connect failed. The error is its cause, and not the pool's timeout.
    #[doc(hidden)]
    fn open(
        pool: Self::PoolOptions,
        connect: Self::ConnectOptions,
    ) -> BoxFuture<'static, Result<Self::Pool, sqlx::Error>>;

    /// Opens the pool of a sandbox: see [`sandbox`].
    ///
    /// # Errors
    /// The connect or the begin failed. The error is its cause, and not the pool's timeout.
    #[doc(hidden)]
    fn open_sandbox(
        settings: SandboxSettings,
        connect: Self::ConnectOptions,
    ) -> BoxFuture<'static, Result<Self::Pool, sqlx::Error>>;
}

/// The settings of a test's pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The maximum number of connections.
    pub connections: u32,
    /// How long an acquire waits for a connection.
    pub acquire_timeout: Duration,
    /// Is notified of each connection that returns.
    pub observer: Arc<dyn PoolObserver>,
}

/// Is notified of events of a test's pool.
pub trait PoolObserver: Debug + Send + Sync + 'static {
    /// A connection was opened for the application, or taken out of the pool.
    fn acquired(&self);
    /// A connection returned to the pool.
    fn released(&self) -> BoxFuture<'static, ()>;
}

/// A test's pool, of any version of sqlx.
pub trait SharedPool: Debug + Send + Sync + 'static {
    /// The number of open connections.
    fn size(&self) -> u32;
    /// The number of idle connections.
    fn num_idle(&self) -> usize;
    /// Whether the pool was closed.
    fn is_closed(&self) -> bool;
    /// Closes the idle connections.
    fn close_idle(&self) -> BoxFuture<'_, ()>;
    /// Closes the pool, and waits for the connections that are in use.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// Takes an idle connection, if there is one.
    fn try_acquire(&self) -> Option<Box<dyn PooledConnection>>;
    /// Takes an idle connection, or opens one.
    fn acquire(&self) -> BoxFuture<'_, Result<Box<dyn PooledConnection>, sqlx::Error>>;
}

/// A connection that was acquired from a pool, and returns when it is dropped.
pub trait PooledConnection: Debug + Send {
    /// Runs statements in one message. Every column is text; every name and literal in `sql` is quoted.
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, sqlx::Error>>;
    /// Closes the connection instead of returning it.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A test's connection, as the session that cleans the test's clone.
#[derive(Debug)]
pub(crate) struct WarmSession<'a>(pub &'a mut dyn PooledConnection);

impl TextSession for WarmSession<'_> {
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, sqlx::Error>> {
        self.0.texts(sql)
    }
}

#[cfg(feature = "sqlx-0_8")]
pub(crate) mod sqlx_0_8;
#[cfg(feature = "sqlx-0_9")]
pub(crate) mod sqlx_0_9;
