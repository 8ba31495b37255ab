//! What `#[kapsel_testdb::test]` calls: one function holds the behaviour, the macro only quotes.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::ExitCode;

use futures_util::FutureExt;
use sqlx::PgPool;

use super::TestDb;

/// How a test is kept apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A clone of its own.
    Database,
    /// The run's shared clone, as it is.
    Shared,
}

/// Whether what a test returned means success: decides whether its database is kept.
pub trait TestOutcome {
    /// Whether the test passed.
    fn passed(&self) -> bool;
}

impl TestOutcome for () {
    fn passed(&self) -> bool {
        true
    }
}

impl<T: TestOutcome, E> TestOutcome for Result<T, E> {
    fn passed(&self) -> bool {
        self.as_ref().is_ok_and(TestOutcome::passed)
    }
}

impl TestOutcome for ExitCode {
    /// An exit code cannot be asked for its value; the database is not kept.
    fn passed(&self) -> bool {
        true
    }
}

/// What the attribute may stand on.
#[diagnostic::on_unimplemented(
    message = "`#[kapsel_testdb::test]` cannot call this function",
    label = "expected `async fn(sqlx::PgPool)` that returns `()`, a `Result` or an `ExitCode`"
)]
pub trait TestFn {
    /// What the test returns.
    type Output: TestOutcome;
    /// Calls it with the test's database.
    fn call(self, db: &TestDb) -> impl Future<Output = Self::Output>;
}

impl<F, Fut> TestFn for F
where
    F: FnOnce(PgPool) -> Fut,
    Fut: Future,
    Fut::Output: TestOutcome,
{
    type Output = Fut::Output;
    fn call(self, db: &TestDb) -> impl Future<Output = Self::Output> {
        self(db.pool().clone())
    }
}

/// Runs a test: a database, the function, and the database's return or preservation.
///
/// # Panics
/// With the test's own panic, and where there is no database.
pub fn run<F: TestFn>(isolation: Isolation, test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("failed to start the test's runtime: {error}"),
    };
    runtime.block_on(async {
        let db = match isolation {
            Isolation::Database => TestDb::lease().await,
            Isolation::Shared => TestDb::shared().await,
        };
        let db = match db {
            Ok(db) => db,
            Err(error) => panic!("failed to get a database for the test: {error}"),
        };
        let result = AssertUnwindSafe(test.call(&db)).catch_unwind().await;
        match result {
            Ok(output) if output.passed() => {
                db.release().await;
                output
            }
            Ok(output) => {
                db.fail();
                output
            }
            Err(panic) => {
                db.fail();
                resume_unwind(panic)
            }
        }
    })
}
