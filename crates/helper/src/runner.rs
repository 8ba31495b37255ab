//! Runs a test of `#[kapsel_testdb::test]`. The macro only quotes a call of a function in this module.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{ExitCode, Termination};

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};

use crate::arguments::Arguments;
use crate::db::{FoundLeak, Outcome};
use crate::plan::{Flavor, TestPlan};
use crate::sqlx_compat::Version;
use crate::{TestDb, TestDbError, report};

/// Runs an async test: sets up its databases, calls the function, and releases or keeps the databases. Returns the exit code of what the
/// test returned, reported as the test harness would report it. `error` is the text of a returned error.
///
/// # Panics
/// Panics with the test's own panic, or if the test gets no database.
pub fn run<A, T, F>(
    plan: TestPlan,
    test: impl FnOnce(A) -> F,
    error: impl FnOnce(&T) -> Option<String>,
) -> ExitCode
where
    A: Arguments,
    T: Termination,
    F: Future<Output = T>,
{
    runtime(builder(plan.flavor)).block_on(async {
        let (databases, arguments) = unwrap(plan.set_up().await);
        let body = async { Report::of(test(arguments).await, error) };
        let outcome = AssertUnwindSafe(body).catch_unwind().await;
        plan.finish(databases, outcome).await
    })
}

/// Runs a test that is not an async function, outside of the runtime: it may block, and it may call `Handle::current().block_on`.
///
/// # Panics
/// Panics with the test's own panic, or if the test gets no database.
pub fn run_blocking<A, T>(
    plan: TestPlan,
    test: impl FnOnce(A) -> T,
    error: impl FnOnce(&T) -> Option<String>,
) -> ExitCode
where
    A: Arguments,
    T: Termination,
{
    let runtime = runtime(builder(Flavor::MultiThread(Some(1))));
    let (databases, arguments) = unwrap(runtime.block_on(plan.set_up()));
    let outcome = {
        let _entered = runtime.enter();
        catch_unwind(AssertUnwindSafe(|| Report::of(test(arguments), error)))
    };
    runtime.block_on(plan.finish(databases, outcome))
}

/// What a test returned.
struct Report {
    code: ExitCode,
    /// The text of an error.
    error: Option<String>,
}

impl Report {
    fn of<T: Termination>(returned: T, error: impl FnOnce(&T) -> Option<String>) -> Self {
        let error = error(&returned);
        let code = returned.report();
        Self { code, error }
    }
}

fn builder(flavor: Flavor) -> Builder {
    match flavor {
        Flavor::CurrentThread => Builder::new_current_thread(),
        Flavor::MultiThread(threads) => {
            let mut builder = Builder::new_multi_thread();
            if let Some(threads) = threads {
                builder.worker_threads(threads);
            }
            builder
        }
    }
}

fn runtime(mut builder: Builder) -> Runtime {
    match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("failed to start the test's runtime: {error}"),
    }
}

fn unwrap<T>(result: Result<T, TestDbError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("failed to get a database for the test: {error}"),
    }
}

impl TestPlan {
    async fn finish<V: Version>(
        &self,
        databases: Vec<TestDb<V>>,
        result: std::thread::Result<Report>,
    ) -> ExitCode {
        let passed = match &result {
            Ok(report) => report.code == ExitCode::SUCCESS,
            Err(_) => self.should_panic,
        };
        let outcome = match &result {
            _ if passed => Outcome::Passed,
            Ok(report) => Outcome::Failed(report.error.as_deref().unwrap_or_default()),
            Err(panic) => Outcome::Failed(panic_message(panic)),
        };
        let (mut lost, mut leak) = (None, None);
        for db in databases {
            let ended = db.end(outcome).await;
            lost = lost.or(ended.sandbox_lost);
            leak = ended.fatal_leak.or(leak);
        }
        if passed && result.is_ok() {
            if let Some(lost) = lost {
                panic!("{lost}");
            }
            if let Some(leak) = leak {
                panic!("{}", leak.message);
            }
        } else {
            // The test has failed already, or a panic is expected. In both cases another panic would change nothing.
            lost.iter().for_each(|lost| report::lost_sandbox(lost));
            leak.iter().for_each(FoundLeak::warn);
        }
        match result {
            Ok(report) => report.code,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// The message of a panic, empty if it has none.
fn panic_message(panic: &Box<dyn Any + Send>) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or_default()
}
