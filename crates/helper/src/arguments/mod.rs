//! The parameters of a test.

#[cfg(feature = "sqlx-0_8")]
mod sqlx_0_8;
#[cfg(feature = "sqlx-0_9")]
mod sqlx_0_9;

use std::future::Future;

use crate::sqlx_compat::{InternalSqlx, Version};
use crate::{TestDb, TestDbError};

/// The parameters of a test, of any version of sqlx: `PgPool`; `PoolConnection<Postgres>`; `DatabaseConfig`; `PgPoolOptions` and
/// `PgConnectOptions` (as a pair); or an array of one of them, with one database for each element.
#[diagnostic::on_unimplemented(
    message = "a test cannot take `{Self}`",
    label = "expected `PgPool`, `PoolConnection<Postgres>`, `DatabaseConfig`, `PgPoolOptions` and `PgConnectOptions`, or an array of one of them"
)]
pub trait Arguments: Sized {
    /// The version of sqlx of the types.
    type Version: Version;

    /// The number of databases that the parameters need.
    const DATABASES: usize = 1;

    /// Creates the parameters from [`Self::DATABASES`] databases.
    ///
    /// # Errors
    /// [`TestDbError::Connect`] if no connection can be acquired.
    fn on(databases: &[TestDb<Self::Version>]) -> impl Future<Output = Result<Self, TestDbError>>;
}

/// A test without parameters has no database.
impl Arguments for () {
    type Version = InternalSqlx;

    const DATABASES: usize = 0;

    async fn on(_: &[TestDb]) -> Result<Self, TestDbError> {
        Ok(())
    }
}

impl<A: Arguments, const N: usize> Arguments for [A; N] {
    type Version = A::Version;

    const DATABASES: usize = A::DATABASES * N;

    async fn on(databases: &[TestDb<Self::Version>]) -> Result<Self, TestDbError> {
        let mut all = Vec::with_capacity(N);
        for index in 0..N {
            let databases = &databases[index * A::DATABASES..][..A::DATABASES];
            all.push(A::on(databases).await?);
        }
        Ok(all
            .try_into()
            .unwrap_or_else(|_| unreachable!("one element for each place of the array")))
    }
}

/// The parameters of a test with isolation `transaction`: only `PgPool`, of any version of sqlx.
#[diagnostic::on_unimplemented(
    message = "a test with isolation `transaction` cannot take `{Self}`",
    label = "expected `PgPool`",
    note = "a sandbox has one connection, and its pool hands it out for each statement and transaction; if the test needs the connection \
            itself, other connections, or several databases, use `isolation = \"database\"`"
)]
pub trait SandboxArguments: Arguments {}

/// Returns its argument. The macro calls it, so the compiler rejects parameters that a sandbox does not support.
pub fn sandboxed<A: SandboxArguments>(arguments: A) -> A {
    arguments
}
