//! A test's pool.

use futures_util::future::BoxFuture;

use tokio::time::timeout;

use kapsel_testdb_core::address::Address;
use kapsel_testdb_core::pg::connect::ATTEMPT_TIMEOUT;
use kapsel_testdb_core::pg::session::{CLOSE_LIMIT, STATEMENT_LIMIT};
use kapsel_testdb_core::recycle::TextRow;

use super::sqlx::pool::PoolConnection;
use super::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use super::sqlx::{ConnectOptions, Error as Sqlx, Executor, PgPool, Postgres};
use super::{This, options, sandbox, texts, to_internal_error, trusted_text};
use crate::sqlx_compat::{PoolSettings, PooledConnection, SandboxSettings, SharedPool, Version};

/// The error of a server that did not answer in time.
pub fn no_answer() -> Sqlx {
    Sqlx::Io(std::io::ErrorKind::TimedOut.into())
}

impl Version for This {
    type Pool = PgPool;
    type ConnectOptions = PgConnectOptions;
    type PoolOptions = PgPoolOptions;

    fn connect_options(address: &Address, database: &str, label: &str) -> PgConnectOptions {
        options::of(address, database).application_name(label)
    }

    /// Nothing closes idle connections, so a leased database always has a session. (`min_connections` would open a second one, because
    /// sqlx's maintenance task races with the connect.)
    fn pool_options(settings: &PoolSettings) -> PgPoolOptions {
        let observer = settings.observer.clone();
        let (opened, acquired) = (observer.clone(), observer.clone());
        PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |_, _| {
                opened.acquired();
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |_, _| {
                acquired.acquired();
                Box::pin(async { Ok(true) })
            })
            .after_release(move |_, _| {
                let released = observer.released();
                Box::pin(async {
                    released.await;
                    Ok(true)
                })
            })
    }

    fn open(
        pool: PgPoolOptions,
        connect: PgConnectOptions,
    ) -> BoxFuture<'static, Result<PgPool, sqlx::Error>> {
        Box::pin(async move {
            match pool.connect_with(connect.clone()).await {
                // The pool does not pass the cause on; a plain connect reports it.
                Err(Sqlx::PoolTimedOut) => {
                    let reason = match timeout(ATTEMPT_TIMEOUT, connect.connect()).await {
                        Ok(connected) => connected.err().unwrap_or(Sqlx::PoolTimedOut),
                        Err(_) => no_answer(),
                    };
                    Err(to_internal_error(reason))
                }
                result => result.map_err(to_internal_error),
            }
        })
    }

    fn open_sandbox(
        settings: SandboxSettings,
        connect: PgConnectOptions,
    ) -> BoxFuture<'static, Result<PgPool, sqlx::Error>> {
        sandbox::open(settings, connect)
    }
}

impl SharedPool for PgPool {
    fn size(&self) -> u32 {
        PgPool::size(self)
    }

    fn num_idle(&self) -> usize {
        PgPool::num_idle(self)
    }

    fn is_closed(&self) -> bool {
        PgPool::is_closed(self)
    }

    fn close_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while let Some(connection) = self.try_acquire() {
                let _ = timeout(CLOSE_LIMIT, connection.close()).await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(PgPool::close(self))
    }

    fn try_acquire(&self) -> Option<Box<dyn PooledConnection>> {
        let acquired = self.try_acquire()?;
        Some(Box::new(acquired))
    }

    fn acquire(&self) -> BoxFuture<'_, Result<Box<dyn PooledConnection>, sqlx::Error>> {
        Box::pin(async {
            let acquired = self.acquire().await.map_err(to_internal_error)?;
            Ok(Box::new(acquired) as Box<dyn PooledConnection>)
        })
    }
}

impl PooledConnection for PoolConnection<Postgres> {
    fn texts<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<TextRow>, sqlx::Error>> {
        // Without a prepared statement: that would cost a second round trip, and fail behind some poolers.
        let found = (&mut **self).fetch_all(super::sqlx::raw_sql(trusted_text(sql)));
        Box::pin(async {
            let found = timeout(STATEMENT_LIMIT, found).await;
            let rows = found.unwrap_or_else(|_| Err(no_answer()));
            let rows = rows.map_err(to_internal_error)?;
            let rows: Result<Vec<TextRow>, Sqlx> = rows.iter().map(texts).collect();
            rows.map_err(to_internal_error)
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {
            let _ = timeout(CLOSE_LIMIT, PoolConnection::close(*self)).await;
        })
    }
}
