//! What `#[kapsel_testdb::test]` calls: one function holds the behaviour, the macro only quotes.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::ExitCode;

use futures_util::FutureExt;
use sqlx::PgPool;

use super::{TestDb, TestDbError, TestDbOptions};

/// How a test is kept apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A clone of its own.
    Database,
    /// The run's shared clone, as it is.
    Shared,
}

/// What the attribute says of a test.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How it is kept apart.
    pub isolation: Isolation,
    /// How many connections it needs at once, where it says so.
    pub connections: Option<u32>,
    /// Whether a panic is what it is for.
    pub should_panic: bool,
}

impl Plan {
    async fn database(&self) -> Result<TestDb, TestDbError> {
        let options = TestDbOptions::new();
        let options = self.connections.map_or(options, |n| options.connections(n));
        match self.isolation {
            Isolation::Database => options.lease().await,
            Isolation::Shared => options.shared().await,
        }
    }
}

/// Whether what a test returned means success: decides whether its database is kept.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "expected `()`, an `ExitCode`, or a `Result` of one of them"
)]
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

/// Runs a test: a database, the function, and the database's return or preservation.
///
/// # Panics
/// With the test's own panic, and where there is no database.
pub fn run<T, F>(plan: Plan, test: impl FnOnce(PgPool) -> F) -> T
where
    T: TestOutcome,
    F: Future<Output = T>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("failed to start the test's runtime: {error}"),
    };
    runtime.block_on(async {
        let db = match plan.database().await {
            Ok(db) => db,
            Err(error) => panic!("failed to get a database for the test: {error}"),
        };
        let result = AssertUnwindSafe(test(db.pool().clone()))
            .catch_unwind()
            .await;
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
                if plan.should_panic {
                    db.release().await;
                } else {
                    db.fail();
                }
                resume_unwind(panic)
            }
        }
    })
}
