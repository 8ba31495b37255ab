//! Errors of PostgreSQL: which are transient, and the remedies of the others.

use std::fmt::Display;
use std::time::Duration;

use sqlx::error::Error as Sqlx;
use sqlx::postgres::PgErrorPosition;

use crate::address::tls;
use crate::sqlstate;

/// Why a statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// Nothing answers at the address.
    #[error(
        "cannot reach PostgreSQL at `{address}`: {source}; start it, correct the URL (`kapsel-testdb config` shows its source), or set \
         `server.mode = \"local\"` in `.config/kapsel-testdb.toml` for a managed server"
    )]
    Unreachable {
        /// The server's address.
        address: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The server refused the login.
    #[error(
        "PostgreSQL at `{address}` refused the login: {message}; {}",
        login_remedy(message)
    )]
    Login {
        /// The server's address.
        address: String,
        /// The server's message.
        message: String,
    },
    /// TLS failed.
    #[error(
        "TLS with PostgreSQL at `{address}` failed: {message}; {}",
        tls::remedy(message)
    )]
    Tls {
        /// The server's address.
        address: String,
        /// The message of the TLS library or of sqlx.
        message: String,
    },
    /// The server rejected connections for a transient reason until the time limit.
    #[error(
        "PostgreSQL at `{address}` did not accept a connection within {} s: {message}; wait until it is up, or, if it has too many \
         connections, raise `max_connections` or run fewer tests at once",
        waited.as_secs()
    )]
    Busy {
        /// The server's address.
        address: String,
        /// The last message.
        message: String,
        /// How long the attempts took.
        waited: Duration,
    },
    /// A statement failed.
    #[error("failed to {context}: {source}")]
    Statement {
        /// Completes "failed to …".
        context: String,
        /// The error of sqlx.
        source: Sqlx,
    },
    /// A statement took too long. The session is not used again.
    #[error(
        "failed to {context}: PostgreSQL at `{server}` did not answer within {} s; if it runs, `pg_stat_activity` shows what the statement \
         waits for",
        limit.as_secs()
    )]
    NoAnswer {
        /// Completes "failed to …".
        context: String,
        /// The server's address.
        server: String,
        /// The time limit of the statement.
        limit: Duration,
    },
    /// Another process holds a lock for long.
    #[error(
        "waited {} s for {holders}, which {purpose}; if its process hangs, end it (`pg_terminate_backend`)",
        waited.as_secs()
    )]
    Locked {
        /// The sessions that hold the lock.
        holders: String,
        /// What they hold it for.
        purpose: &'static str,
        /// How long the wait took.
        waited: Duration,
    },
    /// A statement failed for a reason with a remedy of its own, such as a full disk.
    #[error("{cause}; {remedy}")]
    WithRemedy {
        /// The failed statement.
        cause: Box<Self>,
        /// What is known about the reason, and the remedies.
        remedy: String,
    },
}

impl PgError {
    /// The SQLSTATE, if the server rejected a statement.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Statement { source, .. } => code_of(source),
            Self::WithRemedy { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// The error of a statement that took longer than `limit`.
    pub(super) fn no_answer(server: &dyn Display, limit: Duration, context: String) -> Self {
        Self::NoAnswer {
            context,
            server: server.to_string(),
            limit,
        }
    }

    /// Whether a statement failed because its session was lost, or the server is starting or shutting down: a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Statement { source, .. } => classify(source) == ConnectFailure::Transient,
            Self::NoAnswer { .. } => true,
            _ => false,
        }
    }

    /// Whether a pooler rejected the startup options of an administrative session: PgBouncer supports only a few.
    pub fn is_rejected_by_pooler(&self) -> bool {
        let Self::Statement { source, .. } = self else {
            return false;
        };
        code_of(source).as_deref() == Some(sqlstate::PROTOCOL_VIOLATION)
            && source.to_string().contains("unsupported startup parameter")
    }

    /// Whether a statement failed with this SQLSTATE.
    pub fn is(&self, code: &str) -> bool {
        self.code().as_deref() == Some(code)
    }
}

/// Adds context to an sqlx error.
pub trait Context<T> {
    /// `context` completes "failed to …".
    ///
    /// # Errors
    /// The same error as [`PgError::Statement`].
    fn context(self, context: impl FnOnce() -> String) -> Result<T, PgError>;
}

impl<T> Context<T> for Result<T, Sqlx> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T, PgError> {
        self.map_err(|source| PgError::Statement {
            context: context(),
            source,
        })
    }
}

/// The SQLSTATE of an error, if it comes from the server.
pub fn code_of(error: &Sqlx) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|c| c.into_owned())
}

/// Details of an error, parsed from the server's response.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorDetails {
    /// The server's message with SQLSTATE; or sqlx's message.
    pub message: String,
    /// The server's detail, hint and context, each in one line, with their labels.
    pub notes: Vec<(&'static str, String)>,
    /// The SQLSTATE.
    pub code: Option<String>,
    /// Position in the text that was sent, in characters from 1.
    pub position: Option<usize>,
    /// Line in the data of a COPY, from 1.
    pub copy_line: Option<usize>,
}

/// What to do about a `CREATE ROLE` whose role exists.
const ROLE_HELP: &str = "roles belong to the whole server and not to one database, so `CREATE ROLE` succeeds only once: let `template.roles` name the \
     role, which creates it if it is missing, and remove the statement, or let it succeed if the role exists \
     (`DO $$ BEGIN CREATE ROLE …; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)";

impl ErrorDetails {
    /// Parses an error.
    pub fn of(error: &Sqlx) -> Self {
        let database = error
            .as_database_error()
            .and_then(|e| e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
        let Some(database) = database else {
            return Self {
                message: error.to_string(),
                notes: Vec::new(),
                code: None,
                position: None,
                copy_line: None,
            };
        };
        let context = database.r#where();
        let created_role = database.code() == sqlstate::DUPLICATE_OBJECT
            && database.routine() == Some("CreateRole");
        let notes = [
            ("detail", database.detail()),
            ("hint", database.hint()),
            ("context", context),
            ("help", created_role.then_some(ROLE_HELP)),
        ];
        let notes = notes
            .into_iter()
            .filter_map(|(label, text)| Some((label, text?.replace('\n', ", "))));
        Self {
            message: format!("{} (SQLSTATE {})", database.message(), database.code()),
            notes: notes.collect(),
            code: Some(database.code().to_owned()),
            position: match database.position() {
                Some(PgErrorPosition::Original(position)) => Some(position),
                _ => None,
            },
            copy_line: context.and_then(copy_line),
        }
    }
}

/// The line in `COPY t, line 17, column x: "abc"`; a trigger's context may come before it.
fn copy_line(context: &str) -> Option<usize> {
    let copy = context.lines().find(|line| line.starts_with("COPY "))?;
    let (_, after) = copy.split_once(", line ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|line| *line > 0)
}

/// Category of a failed attempt to connect.
#[derive(Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Transient: retry until the deadline.
    Transient,
    /// The database does not exist.
    NoDatabase,
    /// A retry would not help.
    Final,
}

/// Classifies a failed attempt to connect.
pub fn classify(error: &Sqlx) -> ConnectFailure {
    use std::io::ErrorKind as Io;
    match error {
        Sqlx::Io(io) => match io.kind() {
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::UnexpectedEof
            | Io::WouldBlock
            | Io::BrokenPipe => ConnectFailure::Transient,
            _ => ConnectFailure::Final,
        },
        Sqlx::Database(_) => match code_of(error).as_deref() {
            Some(sqlstate::TOO_MANY_CONNECTIONS | sqlstate::CANNOT_CONNECT_NOW)
            | Some(sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN) => {
                ConnectFailure::Transient
            }
            Some(sqlstate::INVALID_CATALOG_NAME) => ConnectFailure::NoDatabase,
            _ => ConnectFailure::Final,
        },
        // sqlx reports a closed connection like this if it requested TLS first: the port of a container whose server is not up yet.
        Sqlx::Protocol(text) if text.contains("response from SSLRequest: 0x00") => {
            ConnectFailure::Transient
        }
        _ => ConnectFailure::Final,
    }
}

/// The remedy for a refused login.
fn login_remedy(message: &str) -> &'static str {
    // "no encryption" since PostgreSQL 14, "SSL off" before.
    if message.contains("no encryption") || message.contains("SSL off") {
        return "if the server requires TLS, set `sslmode=require` in the URL; otherwise allow this machine in the server's pg_hba.conf";
    }
    "correct the user or the password in the URL, in PGPASSWORD or in the passfile"
}

/// Exponential backoff with jitter: 5 ms, doubling to 250 ms, each shortened at random by up to a half, so that processes that
/// were rejected together do not retry together.
pub fn backoff(attempt: u32) -> Duration {
    jittered(5 << attempt.min(6), 250)
}

/// [`backoff`] for a server that is starting: attempts are cheap then, so the pauses stay below 80 ms for the first one or two
/// seconds.
pub fn backoff_starting(attempt: u32) -> Duration {
    jittered(5 << attempt.min(6), if attempt < 24 { 80 } else { 250 })
}

/// At most `limit` ms, shortened at random by up to a half.
fn jittered(full: u64, limit: u64) -> Duration {
    let full = full.min(limit);
    Duration::from_millis(full - crate::protocol::random() % (full / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_closed_before_tls_is_transient() {
        let answer = |byte: &str| {
            let text = format!("unexpected response from SSLRequest: 0x{byte} (a place)");
            classify(&Sqlx::Protocol(text))
        };
        assert_eq!(answer("00"), ConnectFailure::Transient);
        assert_eq!(answer("48"), ConnectFailure::Final);
    }

    #[test]
    fn the_line_of_a_copy_is_read_from_the_context() {
        assert_eq!(
            copy_line("COPY t, line 17, column x: \"a, line 3\""),
            Some(17)
        );
        let trigger = "PL/pgSQL function f() line 3 at RAISE\nCOPY t, line 2: \"1\"";
        assert_eq!(copy_line(trigger), Some(2));
        assert_eq!(copy_line("PL/pgSQL function f() line 3 at RAISE"), None);
        assert_eq!(copy_line("COPY t, Zeile 2"), None);
    }

    #[test]
    fn backoff_grows_to_its_limit_and_is_never_zero() {
        for attempt in 0..40 {
            for delay in [backoff(attempt), backoff_starting(attempt)] {
                assert!(delay >= Duration::from_millis(2), "{attempt}: {delay:?}");
                assert!(delay <= Duration::from_millis(250), "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_starting_server_is_tried_every_80_ms_at_first() {
        let mut elapsed = Duration::ZERO;
        for attempt in 0.. {
            let delay = backoff_starting(attempt);
            assert!(delay <= Duration::from_millis(80), "{attempt}: {delay:?}");
            elapsed += delay;
            if elapsed > Duration::from_secs(1) {
                assert!(attempt < 40, "too few attempts: {attempt}");
                return;
            }
        }
    }

    #[test]
    fn pauses_differ() {
        let delays: std::collections::BTreeSet<_> = (0..50).map(|_| backoff(20)).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }
}
