//! What a test may take.

use std::future::Future;

use super::{TestDb, TestDbError};
use crate::driver::{Own, Version};

/// The parameters of a test: `PgPool`; `PoolConnection<Postgres>`; `DatabaseConfig`; `PgPoolOptions, PgConnectOptions` (as a pair);
/// or an array of one of them, each on a database of its own. Of whatever version of sqlx.
#[diagnostic::on_unimplemented(
    message = "a test cannot take `{Self}`",
    label = "expected `PgPool`, `PoolConnection<Postgres>`, `DatabaseConfig`, `PgPoolOptions` and `PgConnectOptions`, or an array of one of them"
)]
pub trait Arguments: Sized {
    /// The version of sqlx that they are of.
    type Version: Version;

    /// How many databases they are on.
    const DATABASES: usize = 1;

    /// Makes them, from that many databases.
    ///
    /// # Errors
    /// There is no connection.
    fn on(databases: &[TestDb<Self::Version>]) -> impl Future<Output = Result<Self, TestDbError>>;
}

/// A test that takes nothing has no database.
impl Arguments for () {
    type Version = Own;

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
        for place in 0..N {
            let databases = &databases[place * A::DATABASES..][..A::DATABASES];
            all.push(A::on(databases).await?);
        }
        Ok(all
            .try_into()
            .unwrap_or_else(|_| unreachable!("as many databases as the array has places")))
    }
}

/// The parameters of a test in a sandbox: `PgPool` alone, of whatever version of sqlx.
#[diagnostic::on_unimplemented(
    message = "a test with isolation `transaction` cannot take `{Self}`",
    label = "expected `PgPool`",
    note = "a sandbox has one connection, which the pool must hand out for each statement and transaction: a test that takes it, opens \
            others, or needs several databases needs `isolation = \"database\"`"
)]
pub trait SandboxArguments: Arguments {}

/// Only lets parameters through that a test in a sandbox may have: what the macro quotes.
pub fn sandboxed<A: SandboxArguments>(arguments: A) -> A {
    arguments
}
