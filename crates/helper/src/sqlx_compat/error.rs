//! Conversion of sqlx's errors to the version that the helper itself uses.

/// For the helper's own version.
pub fn unchanged(error: sqlx::Error) -> sqlx::Error {
    error
}

#[cfg(all(feature = "sqlx-0_8", feature = "sqlx-0_9"))]
pub use other::from_0_8;

#[cfg(all(feature = "sqlx-0_8", feature = "sqlx-0_9"))]
mod other {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};
    use sqlx_0_8::Error as Other;

    /// Preserves what decides whether the failure is transient: the SQLSTATE, and the error of the operating system.
    pub fn from_0_8(error: Other) -> sqlx::Error {
        match error {
            Other::Io(error) => sqlx::Error::Io(error),
            Other::Tls(error) => sqlx::Error::Tls(error),
            Other::Protocol(text) => sqlx::Error::Protocol(text),
            Other::Configuration(error) => sqlx::Error::Configuration(error),
            Other::PoolTimedOut => sqlx::Error::PoolTimedOut,
            Other::PoolClosed => sqlx::Error::PoolClosed,
            Other::Database(error) => sqlx::Error::Database(Box::new(DatabaseError0_8(error))),
            error => sqlx::Error::AnyDriverError(Box::new(error)),
        }
    }

    #[derive(Debug)]
    struct DatabaseError0_8(Box<dyn sqlx_0_8::error::DatabaseError>);

    impl fmt::Display for DatabaseError0_8 {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Error for DatabaseError0_8 {}

    impl DatabaseError for DatabaseError0_8 {
        fn message(&self) -> &str {
            self.0.message()
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            self.0.code()
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            use sqlx_0_8::error::ErrorKind as Kind;
            match self.0.kind() {
                Kind::UniqueViolation => ErrorKind::UniqueViolation,
                Kind::ForeignKeyViolation => ErrorKind::ForeignKeyViolation,
                Kind::NotNullViolation => ErrorKind::NotNullViolation,
                Kind::CheckViolation => ErrorKind::CheckViolation,
                _ => ErrorKind::Other,
            }
        }
    }
}
