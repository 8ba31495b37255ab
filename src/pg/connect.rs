//! Connecting: what passes is waited out, what does not is an error with its remedy. A crash leaves nothing.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Either, Error as Sqlx, Executor, PgConnection};

use tokio::time::timeout;

use super::address::Address;
use super::error::{
    ConnectFailure, Doing, PgError, backoff, backoff_coming_up, classify, code, code_of,
};
use super::tls;
use crate::driver::own::trusted;

/// How long a server may take to answer one attempt: something may listen there that never says a word.
pub const ATTEMPT: Duration = Duration::from_secs(10);

/// How long to go on trying to connect.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While nothing answers at all (refused, no socket).
    pub absent: Duration,
    /// While the server answers that it cannot just now (starting up, too many connections).
    pub busy: Duration,
}

impl Patience {
    /// One attempt: whoever asks decides whether to go on.
    pub const ONCE: Self = Self {
        absent: Duration::ZERO,
        busy: Duration::ZERO,
    };

    /// For a server that is known to run.
    pub const RUNNING: Self = Self {
        absent: Duration::from_secs(2),
        busy: Duration::from_secs(30),
    };
}

/// Options of a session that may hold locks: no time-out may end it, and keepalives notice a dead peer within about a minute.
pub(super) fn lock_session(options: PgConnectOptions) -> PgConnectOptions {
    quiet(options).options([
        // Nothing that somebody put into a writable `public` is ever called here.
        ("search_path", "pg_catalog"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}

/// Sessions of our own: no time-out ends them, and what is normal here stays out of the log (builds and waits for locks are slow,
/// and VACUUM warns of every catalog that is not ours).
pub fn quiet(options: PgConnectOptions) -> PgConnectOptions {
    options
        .options([
            ("client_min_messages", "error"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ])
        .disable_statement_logging()
}

/// Pauses between attempts at something that fails for a reason that passes.
#[derive(Debug)]
pub struct Retry {
    begun: Instant,
    patience: Duration,
    failures: u32,
}

impl Retry {
    /// For attempts that begin now and go on for at most `patience`.
    pub fn within(patience: Duration) -> Self {
        Self {
            begun: Instant::now(),
            patience,
            failures: 0,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// Time is up: the failure comes back.
    pub async fn pause<E>(&mut self, failure: E) -> Result<(), E> {
        if self.begun.elapsed() > self.patience {
            return Err(failure);
        }
        tokio::time::sleep(backoff(self.failures)).await;
        self.failures += 1;
        Ok(())
    }
}

/// Connects, waiting out what passes within `patience`. A database that does not exist comes back as a statement error with
/// SQLSTATE 3D000.
///
/// # Errors
/// [`PgError`] with the remedy.
pub async fn connect(
    address: &Address,
    options: &PgConnectOptions,
    patience: Patience,
) -> Result<PgConnection, PgError> {
    if let Some(message) = address.unreadable_file() {
        let address = address.to_string();
        return Err(PgError::Tls { address, message });
    }
    let begun = Instant::now();
    for attempt in 0.. {
        let error = match timeout(ATTEMPT, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => Sqlx::Io(std::io::ErrorKind::TimedOut.into()),
        };
        let waited = begun.elapsed();
        let limit = match (&error, classify(&error)) {
            (Sqlx::Io(io), _) if is_absent(io) => patience.absent,
            // A server that recovers from a crash may leave a client waiting.
            (Sqlx::Io(io), _) if io.kind() == std::io::ErrorKind::TimedOut => patience.busy,
            (_, ConnectFailure::Passing) => patience.busy,
            _ => Duration::ZERO,
        };
        if waited >= limit {
            return Err(connect_error(address, error, waited));
        }
        if attempt == 3 {
            tracing::info!("waiting for PostgreSQL at `{address}`: {error}");
        }
        // Whom too many connections keep out comes back less and less often: each attempt costs the server a process.
        let pause = match code_of(&error).as_deref() {
            Some(code::TOO_MANY_CONNECTIONS) => backoff(attempt),
            _ => backoff_coming_up(attempt),
        };
        tokio::time::sleep(pause.min(limit - waited)).await;
    }
    unreachable!("the loop ends by returning")
}

/// Opens a session on a database and ends it.
///
/// # Errors
/// See [`connect`].
pub async fn connect_once(address: &Address, database: &str) -> Result<(), PgError> {
    let options = quiet(address.options(database)).application_name("kapsel-testdb keeper");
    let connection = connect(address, &options, Patience::RUNNING).await?;
    connection
        .close()
        .await
        .doing(|| format!("end a session on `{database}`"))
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionRefused | Io::NotFound)
}

fn connect_error(address: &Address, error: Sqlx, waited: Duration) -> PgError {
    let address = address.to_string();
    let message = error.to_string();
    if classify(&error) == ConnectFailure::Passing {
        return PgError::Busy {
            address,
            message,
            waited,
        };
    }
    if let Some(message) = tls::failure(&error) {
        return PgError::Tls { address, message };
    }
    match error {
        Sqlx::Io(source) => PgError::Unreachable { address, source },
        Sqlx::Database(ref e) if e.code().is_some_and(|c| c.starts_with("28")) => PgError::Login {
            address,
            message: e.message().to_owned(),
        },
        source => PgError::Statement {
            doing: format!("connect to PostgreSQL at `{address}`"),
            source,
        },
    }
}

/// Runs a script and tells how many of its statements had succeeded when one failed.
///
/// # Errors
/// The number of statements that succeeded, and what the next one met.
pub async fn run_script(connection: &mut PgConnection, sql: &str) -> Result<(), (usize, Sqlx)> {
    let mut done = 0;
    let mut results = connection.fetch_many(sqlx::raw_sql(trusted(sql)));
    loop {
        match results.try_next().await {
            Ok(Some(Either::Left(_))) => done += 1,
            Ok(Some(Either::Right(_))) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err((done, error)),
        }
    }
}

/// Whether a connect failed because the database does not exist, or no more than an interrupted DROP left of it.
pub fn is_missing_database(error: &Sqlx) -> bool {
    matches!(
        code_of(error).as_deref(),
        Some(code::INVALID_CATALOG_NAME | code::NOT_IN_PREREQUISITE_STATE)
    )
}
