//! A transaction on the shared clone that is never committed.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{PgConnection, PgPool, PgTransaction};

use super::TestDbError;
use super::session::Session;
use super::shared_use::Use;
use super::tokens::Hold;
use crate::name::DbName;

/// An open transaction on the run's shared clone; rolls back when it is dropped. Derefs to a connection, so nested transactions
/// become savepoints; there is no way to commit it but a raw `COMMIT`.
///
/// Other tests' transactions run beside it: two that write the same keys wait for each other.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = kapsel_testdb::TestDb::begin().await?;
/// sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(&mut *tx).await?;
/// let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM tenants").fetch_one(&mut *tx).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestTransaction {
    transaction: PgTransaction<'static>,
    _pool: PgPool,
    /// After the connection: dropped later, it says that nobody can commit any more.
    _shared_use: Option<Use>,
    _session: Arc<Session>,
    _hold: Hold,
}

impl TestTransaction {
    pub(super) async fn begin(
        session: Arc<Session>,
        hold: Hold,
        pool: PgPool,
        name: &DbName,
        shared_use: Option<Use>,
    ) -> Result<Self, TestDbError> {
        let begun = pool.begin().await;
        let transaction = begun.map_err(|source| TestDbError::Connect {
            database: name.to_string(),
            source,
        })?;
        Ok(Self {
            transaction,
            _pool: pool,
            _shared_use: shared_use,
            _session: session,
            _hold: hold,
        })
    }
}

impl Deref for TestTransaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for TestTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}
