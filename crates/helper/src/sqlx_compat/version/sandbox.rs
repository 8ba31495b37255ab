//! The pool of a sandbox: see `sqlx_compat::sandbox`.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, join};
use tokio::time::timeout;

use kapsel_testdb_core::pg::session::STATEMENT_LIMIT;
use kapsel_testdb_core::sqlstate;

use super::pool::no_answer;
use super::sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use super::sqlx::{Connection, Error as Sqlx, Executor, PgConnection, PgPool, Row, raw_sql};
use super::{This, to_internal_error, trusted};
use crate::sqlx_compat::Version;
use crate::sqlx_compat::sandbox::{
    KEEP_AND_PREPARE, KEEP_FIRST, Loss, NO_SECOND_CONNECTION, OUTCOME, SET_MARK, SandboxSettings,
    UNDO, UNDO_TO_GUARD,
};

/// The maximum number of pending errors of statements whose futures were dropped.
const MAX_PENDING_ERRORS: usize = 32;

struct Hooks {
    settings: SandboxSettings,
    opened: AtomicBool,
    /// Whether the guard savepoints are set: from the first return on.
    guarded: AtomicBool,
    /// Why the sandbox could not be opened: the pool does not pass the error on.
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
            guarded: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let opened = This::open(options(&hooks), connect.clone());
        // Polled second: by then the connect is under way.
        let prepare = async { hooks.settings.sandbox.opening() };
        let (opened, ()) = join(opened, prepare).await;
        match (opened, hooks.failure().take()) {
            (Ok(pool), _) => {
                pool.set_connect_options(connect.database(NO_SECOND_CONNECTION));
                Ok(pool)
            }
            (Err(_), Some(failure)) => Err(to_internal_error(failure)),
            (Err(error), None) => Err(error),
        }
    })
}

/// Only the application may end the connection. So there are no timeouts, and no test before an acquire: if that test is cancelled, the pool
/// closes the connection. (The pool tests it after each release anyway.)
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
            self.settings.sandbox.lost(Loss::Detached);
            return Err(Sqlx::Configuration(NO_SECOND_CONNECTION.into()));
        }
        let opened = self.open_transaction(connection).await;
        self.opened.store(opened.is_ok(), Relaxed);
        opened.map_err(|error| {
            let text = error.to_string();
            *self.failure() = Some(error);
            Sqlx::Configuration(text.into())
        })
    }

    fn failure(&self) -> MutexGuard<'_, Option<Sqlx>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the outer transaction and sets the mark.
    async fn open_transaction(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        let begin = self.settings.begin(connection.server_version_num());
        std::mem::forget(connection.begin_with(trusted(begin)).await?);
        Ok(())
    }

    /// Sets guard savepoints and the mark.
    async fn set_guards(&self, connection: &mut PgConnection, count: usize) -> Result<(), Sqlx> {
        for _ in 0..count {
            std::mem::forget(connection.begin().await?);
        }
        run(connection, SET_MARK).await?;
        self.guarded.store(true, Relaxed);
        Ok(())
    }

    /// Called when the connection returns. The result: whether it can be used again.
    async fn returned(&self, connection: &mut PgConnection) -> bool {
        self.settings.sandbox.returning();
        let settled = timeout(STATEMENT_LIMIT, self.settle(connection)).await;
        let settled = settled.unwrap_or_else(|_| Err(Loss::Broken(no_answer().to_string())));
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
        // This may be the error of a statement whose future was dropped, and its transaction may be rolled back already.
        drain(connection).await?;
        let Err(error) = self.keep(connection).await else {
            return Ok(());
        };
        if sqlstate(&error)? == sqlstate::IN_FAILED_SQL_TRANSACTION
            && run(connection, UNDO).await.is_ok()
        {
            return Ok(());
        }
        self.recover_without_mark(connection).await
    }

    /// Keeps the work of the acquire, and prepares for the next one.
    async fn keep(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        if self.guarded.load(Relaxed) {
            return run(connection, KEEP_AND_PREPARE).await;
        }
        run(connection, KEEP_FIRST).await?;
        self.set_guards(connection, UNDO_TO_GUARD.len()).await
    }

    /// The mark is gone. If a guard savepoint remains, sqlx rolled back to it; if none was set yet, sqlx rolled back the transaction.
    async fn recover_without_mark(&self, connection: &mut PgConnection) -> Result<(), Loss> {
        if !self.guarded.load(Relaxed) {
            if connection.is_in_transaction() || !self.settings.protected {
                return Err(self.loss(connection).await);
            }
            self.open_transaction(connection).await.map_err(unknown)?;
            self.settings.sandbox.undone();
            return Ok(());
        }
        let mut missing = 0;
        loop {
            let Some(undo) = UNDO_TO_GUARD.get(missing) else {
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
        self.set_guards(connection, missing)
            .await
            .map_err(unknown)?;
        self.settings.sandbox.undone();
        Ok(())
    }

    /// How the outer transaction ended.
    async fn loss(&self, connection: &mut PgConnection) -> Loss {
        // sqlx counts depth 0, so sqlx rolled it back.
        if !connection.is_in_transaction() {
            return Loss::Begin;
        }
        match self.outcome(connection).await.as_deref() {
            Ok("committed") => Loss::Committed,
            Ok("prepared") => Loss::Prepared,
            Ok(_) => Loss::RolledBack,
            Err(error) => Loss::Unknown(error.to_string()),
        }
    }

    /// If the connection is in a transaction now, it is another one.
    async fn outcome(&self, connection: &mut PgConnection) -> Result<String, Sqlx> {
        run(connection, "ROLLBACK").await?;
        fetch(connection, OUTCOME).await?.try_get(0)
    }
}

/// The SQLSTATE. An error without one, or one that ends the session (57P…), means that the connection is gone.
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

/// Reads the pending responses to earlier statements, errors included.
async fn drain(connection: &mut PgConnection) -> Result<(), Loss> {
    for _ in 0..MAX_PENDING_ERRORS {
        match connection.ping().await {
            Ok(()) => return Ok(()),
            Err(error) => sqlstate(&error)?,
        };
    }
    Err(Loss::Unknown(
        "the connection has too many pending errors".to_owned(),
    ))
}

fn run<'a>(connection: &'a mut PgConnection, sql: &'static str) -> BoxFuture<'a, Result<(), Sqlx>> {
    // The trait's method boxes the future: with 0.8 the query's own future is not `Send` everywhere.
    let ran = connection.execute(raw_sql(sql));
    Box::pin(async { ran.await.map(drop) })
}

fn fetch<'a>(
    connection: &'a mut PgConnection,
    sql: &'static str,
) -> BoxFuture<'a, Result<PgRow, Sqlx>> {
    connection.fetch_one(raw_sql(sql))
}
