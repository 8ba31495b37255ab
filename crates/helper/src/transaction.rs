//! A transaction on the shared clone that is never committed.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::{PgConnection, PgPool, PgTransaction};

use kapsel_testdb_core::pg::session::{STATEMENT_LIMIT, within};
use kapsel_testdb_core::protocol::UseMode;

use crate::lease::{Lease, Leased};
use crate::session::Session;
use crate::slots::Permit;
use crate::sqlx_compat::InternalSqlx;
use crate::{TestDbError, report};

/// An open transaction on the run's shared clone, from [`TestDb::begin`](crate::TestDb::begin). Dropping it rolls back.
///
/// It dereferences to a connection, so nested transactions are savepoints. Only a raw `COMMIT` could commit it. Other tests' transactions
/// run at the same time: if two of them write the same keys, one waits for the other.
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
    /// Dropped after the connection: from then on this test cannot commit anything.
    _lease: Lease,
    session: Arc<Session>,
    _permit: Permit,
}

impl TestTransaction {
    pub(super) async fn begin(leased: Leased<InternalSqlx>) -> Result<Self, TestDbError> {
        let Leased {
            session,
            permit,
            name,
            lease,
            pool,
        } = leased;
        let begin = async {
            pool.begin().await.map_err(|source| TestDbError::Connect {
                database: name.to_string(),
                source,
            })
        };
        let what = || "begin a transaction".to_owned();
        let transaction = within(STATEMENT_LIMIT, &session.file.server, what, begin).await?;
        Ok(Self {
            transaction,
            _pool: pool,
            _lease: lease,
            session,
            _permit: permit,
        })
    }
}

impl Drop for TestTransaction {
    fn drop(&mut self) {
        if std::thread::panicking() && self.session.file.keep.failed {
            report::nothing_kept(UseMode::Begin);
        }
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
