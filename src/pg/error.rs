//! What a server's refusals mean: which pass, which do not, and what to do about them.

use std::time::Duration;

use sqlx::error::Error as Sqlx;
use sqlx::postgres::PgErrorPosition;

/// SQLSTATE codes that decide what we do.
pub mod code {
    /// The database does not exist.
    pub const INVALID_CATALOG_NAME: &str = "3D000";
    /// The database exists already.
    pub const DUPLICATE_DATABASE: &str = "42P04";
    /// Somebody is connected to the database (or a prepared transaction is on it).
    pub const OBJECT_IN_USE: &str = "55006";
    /// The role may not do that.
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// The disk is full, or the shared memory of the machine.
    pub const DISK_FULL: &str = "53100";
    /// The script cannot be parsed.
    pub const SYNTAX_ERROR: &str = "42601";
    /// Too many connections.
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    /// The server is starting up, shutting down or in recovery.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// The server was told to shut down.
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    /// A backend crashed and the server restarts.
    pub const CRASH_SHUTDOWN: &str = "57P02";
    /// Also what PgBouncer says of everything that it refuses.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// Wrong password.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// Not let in by pg_hba.conf, or no such role.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// The transaction is aborted: statements fail until it is rolled back.
    pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
    /// The database is not in a state for this: not connectable, or left invalid by an interrupted DROP.
    pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
}

/// Why a statement or a connection failed, in terms of what to do next.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// Nothing answers there.
    #[error(
        "cannot reach PostgreSQL at `{address}`: {source}; start it, or correct the URL (`kapsel-testdb config` shows where it comes from)"
    )]
    Unreachable {
        /// Where we tried.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The server does not let us in.
    #[error(
        "PostgreSQL at `{address}` refused the login: {message}; {}",
        login_remedy(message)
    )]
    Login {
        /// Where we tried.
        address: String,
        /// What the server said.
        message: String,
    },
    /// TLS was asked for and did not work.
    #[error(
        "TLS with PostgreSQL at `{address}` failed: {message}; {}",
        super::tls::remedy(message)
    )]
    Tls {
        /// Where we tried.
        address: String,
        /// What went wrong.
        message: String,
    },
    /// The server kept refusing for a reason that usually passes.
    #[error(
        "PostgreSQL at `{address}` did not accept a connection within {} s: {message}; wait until it is up; where it has too many \
         connections, raise its `max_connections` or run fewer tests at once",
        waited.as_secs()
    )]
    Busy {
        /// Where we tried.
        address: String,
        /// What the server said last.
        message: String,
        /// How long we tried.
        waited: Duration,
    },
    /// A statement failed.
    #[error("failed to {doing}: {source}")]
    Statement {
        /// What it was for, as in "failed to …".
        doing: String,
        /// What sqlx said.
        source: Sqlx,
    },
    /// A statement failed for lack of room.
    #[error("{refused}; {remedy}")]
    DiskFull {
        /// What failed.
        refused: Box<Self>,
        /// Where the data is, how much room there is, and what to do.
        remedy: String,
    },
}

impl PgError {
    /// The server's SQLSTATE, where a statement failed there.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Statement { source, .. } => code_of(source),
            Self::DiskFull { refused, .. } => refused.code(),
            _ => None,
        }
    }

    /// Whether a statement failed because its session was lost or the server is going down or coming up: worth another try.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Statement { source, .. } if classify(source) == ConnectFailure::Passing)
    }

    /// Whether a pooler refused the options that an administrative session starts with: PgBouncer knows only a few, and says so.
    pub fn is_poolers_refusal(&self) -> bool {
        let Self::Statement { source, .. } = self else {
            return false;
        };
        code_of(source).as_deref() == Some(code::PROTOCOL_VIOLATION)
            && source.to_string().contains("unsupported startup parameter")
    }

    /// Whether a statement failed with this SQLSTATE.
    pub fn is(&self, code: &str) -> bool {
        self.code().as_deref() == Some(code)
    }
}

/// Adds what was being done to an sqlx error.
pub trait Doing<T> {
    /// Reads after "failed to".
    ///
    /// # Errors
    /// The same error, as [`PgError::Statement`].
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PgError>;
}

impl<T> Doing<T> for Result<T, Sqlx> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PgError> {
        self.map_err(|source| PgError::Statement {
            doing: what(),
            source,
        })
    }
}

/// The server's SQLSTATE, where the error has one.
pub fn code_of(error: &Sqlx) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|c| c.into_owned())
}

/// What the server said of a statement that it refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its message with SQLSTATE, detail, hint and context, in one line; or what sqlx said, where it was not the server.
    pub message: String,
    /// Its SQLSTATE.
    pub code: Option<String>,
    /// Where in the text that was sent, in characters from one.
    pub position: Option<usize>,
    /// Which line of the data of a COPY, from one.
    pub copy_line: Option<usize>,
}

impl Refusal {
    /// Takes an error apart.
    pub fn of(error: &Sqlx) -> Self {
        let database = error
            .as_database_error()
            .and_then(|e| e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>());
        let Some(database) = database else {
            return Self {
                message: error.to_string(),
                code: None,
                position: None,
                copy_line: None,
            };
        };
        let mut message = format!("{} (SQLSTATE {})", database.message(), database.code());
        let context = database.r#where();
        let more = [
            ("detail", database.detail()),
            ("hint", database.hint()),
            ("context", context),
        ];
        for (label, text) in more {
            if let Some(text) = text {
                let text = text.replace('\n', ", ");
                message.push_str(&format!("; {label}: {text}"));
            }
        }
        Self {
            message,
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

/// What a failed attempt to connect means.
#[derive(Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// It usually passes: try again until the deadline.
    Passing,
    /// The database is not there.
    NoDatabase,
    /// Trying again would not help.
    Final,
}

/// Sorts a failed attempt to connect.
pub fn classify(error: &Sqlx) -> ConnectFailure {
    use std::io::ErrorKind as Io;
    match error {
        Sqlx::Io(io) => match io.kind() {
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::UnexpectedEof
            | Io::WouldBlock
            | Io::BrokenPipe => ConnectFailure::Passing,
            _ => ConnectFailure::Final,
        },
        Sqlx::Database(_) => match code_of(error).as_deref() {
            Some(code::TOO_MANY_CONNECTIONS | code::CANNOT_CONNECT_NOW)
            | Some(code::ADMIN_SHUTDOWN | code::CRASH_SHUTDOWN) => ConnectFailure::Passing,
            Some(code::INVALID_CATALOG_NAME) => ConnectFailure::NoDatabase,
            _ => ConnectFailure::Final,
        },
        // The end of the connection, as sqlx tells it where TLS was asked for first: a container's port whose server is not up yet.
        Sqlx::Protocol(text) if text.contains("response from SSLRequest: 0x00") => {
            ConnectFailure::Passing
        }
        _ => ConnectFailure::Final,
    }
}

/// What to do about a refused login.
fn login_remedy(message: &str) -> &'static str {
    // "no encryption" since 14, "SSL off" before.
    if message.contains("no encryption") || message.contains("SSL off") {
        return "if it wants TLS, say `sslmode=require` in the URL; else let this machine in with a line in its pg_hba.conf";
    }
    "correct the user or the password in the URL, in PGPASSWORD or in the passfile"
}

/// Exponential backoff with jitter: 5 ms, doubling to 250 ms, each shortened at random by up to a half, so that processes that
/// were refused together do not come back together.
pub fn backoff(attempt: u32) -> Duration {
    shortened(5 << attempt.min(6), 250)
}

/// [`backoff`] towards a server that is about to come up: for the first second or two a look costs next to nothing, so the gaps
/// stay below 80 ms, and it is used soon after it is up.
pub fn backoff_coming_up(attempt: u32) -> Duration {
    shortened(5 << attempt.min(6), if attempt < 24 { 80 } else { 250 })
}

/// At most `most` ms, less up to a half.
fn shortened(full: u64, most: u64) -> Duration {
    let full = full.min(most);
    Duration::from_millis(full - crate::name::random() % (full / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_before_tls_passes_and_nonsense_does_not() {
        let answer = |byte: &str| {
            let text = format!("unexpected response from SSLRequest: 0x{byte} (a place)");
            classify(&Sqlx::Protocol(text))
        };
        assert_eq!(answer("00"), ConnectFailure::Passing);
        assert_eq!(answer("48"), ConnectFailure::Final);
    }

    #[test]
    fn the_line_of_a_copy_is_in_its_context() {
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
            for delay in [backoff(attempt), backoff_coming_up(attempt)] {
                assert!(delay >= Duration::from_millis(2), "{attempt}: {delay:?}");
                assert!(delay <= Duration::from_millis(250), "{attempt}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_server_that_comes_up_within_a_second_is_looked_at_every_80_ms() {
        let mut elapsed = Duration::ZERO;
        for attempt in 0.. {
            let delay = backoff_coming_up(attempt);
            assert!(delay <= Duration::from_millis(80), "{attempt}: {delay:?}");
            elapsed += delay;
            if elapsed > Duration::from_secs(1) {
                assert!(attempt < 40, "few looks: {attempt}");
                return;
            }
        }
    }

    #[test]
    fn looks_spread_out() {
        let delays: std::collections::BTreeSet<_> = (0..50).map(|_| backoff(20)).collect();
        assert!(delays.len() > 10, "{delays:?}");
    }
}
