//! The pool of a sandbox: see `driver::sandbox`.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, join};

use super::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use super::sqlx::{Connection, Error as Sqlx, Executor, PgConnection, PgPool, Row, raw_sql};
use super::{This, own_error, trusted};
use crate::driver::Version;
use crate::driver::sandbox::{
    FATE, FIRST, Loss, MARK, NEXT, NO_SECOND, SandboxSettings, UNDO, UNDO_TO_CUSHION,
};
use crate::pg::error::code;

/// Most errors that statements left behind whose futures were dropped.
const DROPPED: usize = 32;

struct Hooks {
    settings: SandboxSettings,
    opened: AtomicBool,
    /// Whether there are cushions: once the first acquire is over.
    cushioned: AtomicBool,
    /// Why it could not be opened: the pool keeps that to itself.
    failure: Mutex<Option<Sqlx>>,
}

/// See [`Version::open_sandbox`].
pub fn open(
    settings: SandboxSettings,
    mut connect: PgConnectOptions,
) -> BoxFuture<'static, Result<PgPool, sqlx::Error>> {
    Box::pin(async move {
        let startup = settings.startup();
        if !startup.is_empty() {
            connect = connect.options(startup);
        }
        let hooks = Arc::new(Hooks {
            settings,
            opened: AtomicBool::new(false),
            cushioned: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let opened = This::open(options(&hooks), connect.clone());
        // Polled second: the server has been asked by then.
        let meanwhile = async { hooks.settings.sandbox.opening() };
        let (opened, ()) = join(opened, meanwhile).await;
        match (opened, hooks.failure().take()) {
            (Ok(pool), _) => {
                pool.set_connect_options(connect.database(NO_SECOND));
                Ok(pool)
            }
            (Err(_), Some(failure)) => Err(own_error(failure)),
            (Err(error), None) => Err(error),
        }
    })
}

/// Nothing but the application may end the connection: no time-outs, and no test before an acquire, which, cancelled, would close it (the
/// pool tests it after each release anyhow).
fn options(hooks: &Arc<Hooks>) -> PgPoolOptions {
    let (opening, acquiring, returning) = (hooks.clone(), hooks.clone(), hooks.clone());
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(hooks.settings.acquire_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let hooks = opening.clone();
            Box::pin(async move { hooks.opened(connection).await })
        })
        .before_acquire(move |_, _| {
            acquiring.settings.sandbox.acquired();
            Box::pin(ready(Ok(true)))
        })
        .after_release(move |connection, _| {
            let hooks = returning.clone();
            Box::pin(async move { Ok(hooks.returned(connection).await) })
        })
}

impl Hooks {
    async fn opened(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        if self.opened.load(Relaxed) {
            self.settings.sandbox.lost(Loss::Taken);
            return Err(Sqlx::Configuration(NO_SECOND.into()));
        }
        let begun = self.begin(connection).await;
        self.opened.store(begun.is_ok(), Relaxed);
        begun.map_err(|error| {
            let text = error.to_string();
            *self.failure() = Some(error);
            Sqlx::Configuration(text.into())
        })
    }

    fn failure(&self) -> MutexGuard<'_, Option<Sqlx>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outer transaction, and the mark.
    async fn begin(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        let begin = self.settings.begin(connection.server_version_num());
        std::mem::forget(connection.begin_with(trusted(begin)).await?);
        Ok(())
    }

    /// The cushions, and the mark.
    async fn cushion(&self, connection: &mut PgConnection, count: usize) -> Result<(), Sqlx> {
        for _ in 0..count {
            std::mem::forget(connection.begin().await?);
        }
        run(connection, MARK).await?;
        self.cushioned.store(true, Relaxed);
        Ok(())
    }

    /// Whether the connection can be used again.
    async fn returned(&self, connection: &mut PgConnection) -> bool {
        self.settings.sandbox.returning();
        let settled = self.settle(connection).await;
        if let Err(loss) = &settled {
            self.settings.sandbox.lost(loss.clone());
        }
        self.settings.sandbox.returned();
        self.settings.observer.released().await;
        settled.is_ok()
    }

    async fn settle(&self, connection: &mut PgConnection) -> Result<(), Loss> {
        let Err(error) = self.keep(connection).await else {
            return Ok(());
        };
        self.settings.sandbox.settling();
        sqlstate(&error)?;
        // That may have been the error of a statement whose future was dropped, and what it was in may be rolled back already.
        drain(connection).await?;
        let Err(error) = self.keep(connection).await else {
            return Ok(());
        };
        if sqlstate(&error)? == code::IN_FAILED_SQL_TRANSACTION
            && run(connection, UNDO).await.is_ok()
        {
            return Ok(());
        }
        self.without_mark(connection).await
    }

    /// Keeps what the acquire did, and prepares for the next one.
    async fn keep(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        if self.cushioned.load(Relaxed) {
            return run(connection, NEXT).await;
        }
        run(connection, FIRST).await?;
        self.cushion(connection, UNDO_TO_CUSHION.len()).await
    }

    /// The mark is gone. Where a cushion is still there, sqlx has rolled back to it; where there has been none yet, to nothing.
    async fn without_mark(&self, connection: &mut PgConnection) -> Result<(), Loss> {
        if !self.cushioned.load(Relaxed) {
            if connection.is_in_transaction() || !self.settings.protected {
                return Err(self.loss(connection).await);
            }
            self.begin(connection).await.map_err(unknown)?;
            self.settings.sandbox.undone();
            return Ok(());
        }
        let mut missing = 0;
        loop {
            let Some(undo) = UNDO_TO_CUSHION.get(missing) else {
                return Err(self.loss(connection).await);
            };
            missing += 1;
            match run(connection, undo).await {
                Ok(()) => break,
                Err(error) => sqlstate(&error)?,
            };
        }
        if !connection.is_in_transaction() {
            return Err(Loss::Begin);
        }
        self.cushion(connection, missing).await.map_err(unknown)?;
        self.settings.sandbox.undone();
        Ok(())
    }

    /// What became of the outer transaction.
    async fn loss(&self, connection: &mut PgConnection) -> Loss {
        // sqlx counts, so it was sqlx.
        if !connection.is_in_transaction() {
            return Loss::Begin;
        }
        match self.fate(connection).await.as_deref() {
            Ok("committed") => Loss::Committed,
            Ok("prepared") => Loss::Prepared,
            Ok(_) => Loss::RolledBack,
            Err(error) => Loss::Unknown(error.to_string()),
        }
    }

    /// Whatever transaction the connection is in by now, it is not that one.
    async fn fate(&self, connection: &mut PgConnection) -> Result<String, Sqlx> {
        run(connection, "ROLLBACK").await?;
        fetch(connection, FATE).await?.try_get(0)
    }
}

/// The server's word for it; anything but an answer of the server means that the connection is gone.
fn sqlstate(error: &Sqlx) -> Result<String, Loss> {
    let answer = error.as_database_error();
    match answer.and_then(|error| error.code()) {
        Some(code) if !code.starts_with("57P") => Ok(code.into_owned()),
        _ => Err(Loss::Broken(error.to_string())),
    }
}

fn unknown(error: Sqlx) -> Loss {
    Loss::Unknown(error.to_string())
}

/// Reads what the server still has to say to earlier statements, errors included.
async fn drain(connection: &mut PgConnection) -> Result<(), Loss> {
    for _ in 0..DROPPED {
        match connection.ping().await {
            Ok(()) => return Ok(()),
            Err(error) => sqlstate(&error)?,
        };
    }
    Err(Loss::Unknown("the server's errors do not end".to_owned()))
}

fn run<'a>(connection: &'a mut PgConnection, sql: &'static str) -> BoxFuture<'a, Result<(), Sqlx>> {
    // Boxed by the trait's method: with 0.8 the query's own is not `Send` in every place.
    let ran = connection.execute(raw_sql(sql));
    Box::pin(async { ran.await.map(drop) })
}

fn fetch<'a>(
    connection: &'a mut PgConnection,
    sql: &'static str,
) -> BoxFuture<'a, Result<PgRow, Sqlx>> {
    connection.fetch_one(raw_sql(sql))
}
