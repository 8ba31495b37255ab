//! Connects to a server: retries after transient failures, and returns other failures with their remedies. A crash leaves nothing.

use std::fmt::Display;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Either, Error as Sqlx, Executor, PgConnection};
use tokio::time::timeout;

use crate::address::{Address, tls};
use crate::pg::error::{ConnectFailure, PgError, backoff, backoff_starting, classify, code_of};
use crate::sqlstate;
use crate::sqlx_compat::internal::trusted;
use crate::waiting::waiting;

/// How long one attempt may take: a program that never answers may listen at the address.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to retry a connection.
#[derive(Debug, Clone, Copy)]
pub struct RetryLimits {
    /// While nothing listens at the address (connection refused, no socket).
    pub unreachable: Duration,
    /// While the server rejects connections for a transient reason (starting up, too many connections).
    pub busy: Duration,
}

impl RetryLimits {
    /// One attempt, no retry.
    pub const ONCE: Self = Self {
        unreachable: Duration::ZERO,
        busy: Duration::ZERO,
    };

    /// For a server that should be running.
    pub const RUNNING: Self = Self {
        unreachable: Duration::from_secs(2),
        busy: Duration::from_secs(30),
    };
}

/// Options of a session that may hold locks: no timeout ends it, and keepalives detect a dead peer within about a minute.
pub(super) fn lock_session(options: PgConnectOptions) -> PgConnectOptions {
    quiet(options).options([
        // Objects in a writable `public` schema must never be called here.
        ("search_path", "pg_catalog"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}

/// Options of our own sessions: no timeout ends them, and expected messages stay out of the log (builds and waits for locks are
/// slow, and VACUUM warns about every catalog that we do not own).
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

/// Pauses between attempts after transient failures.
#[derive(Debug)]
pub struct Retry {
    started: Instant,
    limit: Duration,
    failures: u32,
}

impl Retry {
    /// For attempts from now on, for at most `limit`.
    pub fn within(limit: Duration) -> Self {
        Self {
            started: Instant::now(),
            limit,
            failures: 0,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// Returns `failure` if the limit is exceeded.
    pub async fn pause<E>(&mut self, failure: E) -> Result<(), E> {
        if self.started.elapsed() > self.limit {
            return Err(failure);
        }
        tokio::time::sleep(backoff(self.failures)).await;
        self.failures += 1;
        Ok(())
    }
}

/// Connects, and retries within `limits` after transient failures. If the database does not exist, returns
/// [`PgError::Statement`] with SQLSTATE 3D000.
///
/// # Errors
/// [`PgError`] with the remedy.
pub async fn connect(
    address: &Address,
    options: &PgConnectOptions,
    limits: RetryLimits,
) -> Result<PgConnection, PgError> {
    if let Some(message) = address.unreadable_tls_file() {
        let address = address.to_string();
        return Err(PgError::Tls { address, message });
    }
    let started = Instant::now();
    let mut waiting = waiting(
        format_args!("an answer of PostgreSQL at `{address}`"),
        ATTEMPT_TIMEOUT,
    );
    for attempt in 0.. {
        let error = match timeout(ATTEMPT_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => Sqlx::Io(std::io::ErrorKind::TimedOut.into()),
        };
        let waited = started.elapsed();
        let limit = match (&error, classify(&error)) {
            (Sqlx::Io(io), _) if is_unreachable(io) => limits.unreachable,
            // A server in crash recovery may not answer.
            (Sqlx::Io(io), _) if io.kind() == std::io::ErrorKind::TimedOut => limits.busy,
            (_, ConnectFailure::Transient) => limits.busy,
            _ => Duration::ZERO,
        };
        if waited >= limit {
            return Err(connect_error(address, error, waited));
        }
        if attempt == 0 {
            let reason: &dyn Display = match &error {
                Sqlx::Io(error) => error,
                error => error,
            };
            let what = format!("PostgreSQL at `{address}`: {reason}");
            waiting.becomes(what, limit);
        }
        if attempt == 3 {
            tracing::info!("waiting for PostgreSQL at `{address}`: {error}");
        }
        // With too many connections, attempts become rare: each costs the server a process.
        let pause = match code_of(&error).as_deref() {
            Some(sqlstate::TOO_MANY_CONNECTIONS) => backoff(attempt),
            _ => backoff_starting(attempt),
        };
        tokio::time::sleep(pause.min(limit - waited)).await;
    }
    unreachable!("the loop ends by returning")
}

fn is_unreachable(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionRefused | Io::NotFound)
}

fn connect_error(address: &Address, error: Sqlx, waited: Duration) -> PgError {
    let address = address.to_string();
    let message = error.to_string();
    if classify(&error) == ConnectFailure::Transient {
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
            context: format!("connect to PostgreSQL at `{address}`"),
            source,
        },
    }
}

/// Runs a script.
///
/// # Errors
/// The number of statements that succeeded, and the error of the next one.
pub async fn run_script(connection: &mut PgConnection, sql: &str) -> Result<(), (usize, Sqlx)> {
    let mut succeeded = 0;
    let mut results = connection.fetch_many(sqlx::raw_sql(trusted(sql)));
    loop {
        match results.try_next().await {
            Ok(Some(Either::Left(_))) => succeeded += 1,
            Ok(Some(Either::Right(_))) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err((succeeded, error)),
        }
    }
}

/// Whether the connection failed because the database does not exist, or an interrupted DROP left it invalid.
pub fn is_missing_database(error: &Sqlx) -> bool {
    matches!(
        code_of(error).as_deref(),
        Some(sqlstate::INVALID_CATALOG_NAME | sqlstate::NOT_IN_PREREQUISITE_STATE)
    )
}
