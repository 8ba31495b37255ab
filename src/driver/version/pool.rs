//! A test's pool.

use futures_util::future::BoxFuture;

use super::sqlx::pool::PoolConnection;
use super::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use super::sqlx::{ConnectOptions, Error as Sqlx, Executor, PgPool, Postgres, Row};
use super::{This, options, own_error, sandbox};
use crate::driver::{PoolSettings, SandboxSettings, SharedPool, Taken, Texts, Version};
use crate::pg::Address;

impl Version for This {
    type Pool = PgPool;
    type ConnectOptions = PgConnectOptions;
    type PoolOptions = PgPoolOptions;

    fn connect_options(address: &Address, database: &str, label: &str) -> PgConnectOptions {
        options::of(address, database).application_name(label)
    }

    /// One connection stays because nothing ends idle ones: a leased database always has a session.
    /// (`min_connections` would open a second one: sqlx's maintenance races with the connect.)
    fn pool_options(settings: &PoolSettings) -> PgPoolOptions {
        let observer = settings.observer.clone();
        PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
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
                // The pool keeps the reason to itself; a plain connect tells it.
                Err(Sqlx::PoolTimedOut) => {
                    let reason = connect.connect().await.err();
                    Err(own_error(reason.unwrap_or(Sqlx::PoolTimedOut)))
                }
                result => result.map_err(own_error),
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
                let _ = connection.close().await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(PgPool::close(self))
    }

    fn try_take(&self) -> Option<Box<dyn Taken>> {
        let taken = self.try_acquire()?;
        Some(Box::new(taken))
    }

    fn take(&self) -> BoxFuture<'_, Result<Box<dyn Taken>, sqlx::Error>> {
        Box::pin(async {
            let taken = self.acquire().await.map_err(own_error)?;
            Ok(Box::new(taken) as Box<dyn Taken>)
        })
    }
}

impl Taken for PoolConnection<Postgres> {
    fn texts<'a>(
        &'a mut self,
        sql: &'static str,
    ) -> BoxFuture<'a, Result<Vec<Texts>, sqlx::Error>> {
        // Without a prepared statement: no second round trip, and nothing that a pooler minds.
        let found = (&mut **self).fetch_all(super::sqlx::raw_sql(sql));
        Box::pin(async {
            let rows = found.await.map_err(own_error)?;
            let texts = |row: &PgRow| (0..row.len()).map(|at| row.try_get(at)).collect();
            let rows: Result<Vec<Texts>, Sqlx> = rows.iter().map(texts).collect();
            rows.map_err(own_error)
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {
            let _ = PoolConnection::close(*self).await;
        })
    }
}
