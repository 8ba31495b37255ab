//! What `#[kapsel_testdb::test]` calls: one function holds the behaviour, the macro only quotes.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{ExitCode, Termination};

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};

use super::{Arguments, Plan, TestDb, TestDbError, report};
use crate::driver::Version;

/// Runs an async test: its databases, the function, and the databases' return or preservation. The exit code is what the test
/// returned, reported as the test harness would.
///
/// # Panics
/// With the test's own panic, and where there is no database.
pub fn run<A, T, F>(plan: Plan, test: impl FnOnce(A) -> F) -> ExitCode
where
    A: Arguments,
    T: Termination,
    F: Future<Output = T>,
{
    runtime(Builder::new_current_thread()).block_on(async {
        let (databases, arguments) = expect(plan.databases().await);
        let ended = async { test(arguments).await.report() };
        let outcome = AssertUnwindSafe(ended).catch_unwind().await;
        plan.finish(databases, outcome).await
    })
}

/// Runs a test that is no async function, outside of the runtime: it may block, and `Handle::current().block_on` works in it.
///
/// # Panics
/// With the test's own panic, and where there is no database.
pub fn run_blocking<A, T>(plan: Plan, test: impl FnOnce(A) -> T) -> ExitCode
where
    A: Arguments,
    T: Termination,
{
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1);
    let runtime = runtime(builder);
    let (databases, arguments) = expect(runtime.block_on(plan.databases()));
    let outcome = {
        let _entered = runtime.enter();
        catch_unwind(AssertUnwindSafe(|| test(arguments).report()))
    };
    runtime.block_on(plan.finish(databases, outcome))
}

fn runtime(mut builder: Builder) -> Runtime {
    match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("failed to start the test's runtime: {error}"),
    }
}

fn expect<T>(databases: Result<T, TestDbError>) -> T {
    match databases {
        Ok(databases) => databases,
        Err(error) => panic!("failed to get a database for the test: {error}"),
    }
}

impl Plan {
    async fn finish<V: Version>(
        &self,
        mut databases: Vec<TestDb<V>>,
        outcome: std::thread::Result<ExitCode>,
    ) -> ExitCode {
        let passed = match &outcome {
            Ok(code) => *code == ExitCode::SUCCESS,
            Err(_) => self.should_panic,
        };
        let failure = (!passed).then(|| outcome.as_ref().err().map_or("", text_of));
        let mut sandbox = Ok(());
        for db in &mut databases {
            sandbox = sandbox.and(db.end_sandbox(failure).await);
        }
        let mut left = None;
        for db in databases {
            if passed {
                left = db.give_back().await.err().or(left);
            } else {
                // Its failure is what counts: what it left open may be a consequence.
                db.fail();
            }
        }
        let lost = sandbox.err();
        if passed && outcome.is_ok() {
            if let Some(lost) = lost {
                panic!("{lost}");
            }
            if let Some(left) = left {
                panic!("{left}");
            }
        } else {
            // It has failed by itself, or it should panic, which another panic does not change.
            lost.iter().for_each(|lost| report::lost_sandbox(lost));
            left.iter().for_each(|left| report::left_open(left));
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// What a panic said.
fn text_of(panic: &Box<dyn Any + Send>) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or_default()
}
