//! The helper's messages in the output of a test. Everything else goes through `tracing`.

#![expect(
    clippy::print_stderr,
    reason = "users look for these messages in the output of a failed test, which the test harness captures"
)]

use std::fmt::Display;
use std::time::Duration;

use kapsel_testdb_core::connections::Notice;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::protocol::{Claimant, DbName, UseMode};

/// A failed test's database was kept. `rows`: what the test left in it. `one_of_several`: the test has more databases, so its name does not name
/// one.
pub fn kept(name: &DbName, rows: &str, claimant: Option<&Claimant>, one_of_several: bool) {
    let argument = match claimant {
        Some(claimant) if !one_of_several => shell_quoted(&claimant.test),
        _ => name.to_string(),
    };
    eprintln!(
        "kapsel-testdb: kept the test's database{rows}\n\
         to compare it with its template, or to open it:\n  \
         kapsel-testdb kept diff {argument}\n  \
         kapsel-testdb kept psql {argument}"
    );
}

/// A failed test used the run's shared clone, which cannot be kept for it.
pub fn nothing_kept(mode: UseMode) {
    let why = match mode {
        UseMode::Begin => "the test's transaction was rolled back",
        UseMode::Shared => "other tests use the shared clone too",
    };
    eprintln!(
        "kapsel-testdb: nothing is kept: {why}\n\
         to keep a database, use `isolation = \"database\"` or `TestDb::lease()`"
    );
}

/// The text as one word for a shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:.-/".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A failed test's database could not be kept.
pub fn not_kept(name: &DbName, error: &dyn Display) {
    eprintln!("kapsel-testdb: failed to keep the database `{name}`: {error}");
}

/// A database could not be released.
pub fn left_to_sweep(error: &dyn Display) {
    eprintln!(
        "kapsel-testdb: cleanup is incomplete ({error}); `kapsel-testdb sweep` removes the rest, and keeps the databases of failed tests"
    );
}

/// The exported run has ended.
pub fn stale_run(error: &dyn Display) {
    eprintln!("kapsel-testdb: {error}; this test creates its own database, which is slower");
}

/// The run's template was dropped while the run is alive.
pub fn lost_template(error: &dyn Display) {
    eprintln!("kapsel-testdb: {error}; this test builds its own template, which is slower");
}

/// The migrations that are compiled into a test differ from those of the run's template.
pub fn stale_migrator(differences: &[String]) {
    eprintln!(
        "kapsel-testdb: the migrator that is compiled into this test differs from the run's migrations ({}); recompile the test, or run \
         `kapsel-testdb prepare` again; the test continues with its own template",
        differences.join("; ")
    );
}

/// The process waits for connection slots.
pub fn connections(notice: Notice<'_>) {
    eprintln!("kapsel-testdb: {notice}");
}

/// A test left connections open.
pub fn left_open(leaks: &str) {
    eprintln!("kapsel-testdb: {leaks}");
}

/// A failed test's sandbox was lost.
pub fn lost_sandbox(lost: &dyn Display) {
    eprintln!("kapsel-testdb: {lost}");
}

/// A sandbox's connection was in use for at least the acquire timeout. `certain`: the failure shows that another acquire timed out.
pub fn one_connection(took: Duration, timeout: Duration, location: &str, certain: bool) {
    let (took, timeout) = (took.as_secs_f64(), timeout.as_secs_f64());
    let second = if certain {
        "a request for a second connection failed"
    } else {
        "a request for a second connection fails"
    };
    eprintln!(
        "kapsel-testdb: the sandbox's only connection was in use for {took:.1} s, and {second} with `PoolTimedOut` after {timeout:.1} s; the \
         first was acquired {location}; return it earlier (drop it, commit), pass it on (`&mut *connection`), or use \
         `isolation = \"database\"`"
    );
}

/// A failed test's pool had too few connections: all of its `limit` connections were in use for at least the acquire timeout, or (`certain`) the
/// failure says so.
pub fn exhausted_pool(limit: u32, timeout: Duration, took: Option<Duration>, certain: bool) {
    let (timeout, failed) = (timeout.as_secs(), if certain { "failed" } else { "fails" });
    let (all, were) = match limit {
        1 => ("the only connection".to_owned(), "was"),
        n => (format!("all {n} connections"), "were"),
    };
    let cause = match took {
        Some(took) => format!(
            "{all} of the test's pool {were} in use for {:.1} s,\n\
             so a request for another one {failed} with `PoolTimedOut` after {timeout} s",
            took.as_secs_f64()
        ),
        None => format!(
            "a request for a connection failed with `PoolTimedOut`;\n\
             the test's pool opens at most {}, and waits {timeout} s for one",
            count(limit, "connection")
        ),
    };
    eprintln!(
        "kapsel-testdb: {cause}\n\
         return connections earlier, or declare how many the test needs at once:\n\
         `connections = N` (`TestDbOptions::connections`); `pool.max_connections` is for all tests"
    );
}

/// sqlx rolled back more than the application asked for.
pub fn undone() {
    eprintln!(
        "kapsel-testdb: a `begin` failed or was cancelled in the sandbox (`begin_with` always fails), and sqlx rolled back everything that was \
         done with that connection since it was acquired; if the test needs that work, use `isolation = \"database\"`"
    );
}

/// A statement waits for a lock of other tests.
pub fn waits_for_lock(statement: &str, others: &[String]) {
    eprintln!(
        "kapsel-testdb: a statement of this test waits for a lock of {}: `{}`; with isolation `transaction` and `shared`, tests use \
         the same database, and a transaction keeps its locks until the test ends: use different keys, or `isolation = \"database\"`",
        others.join(", "),
        statement.split_whitespace().collect::<Vec<_>>().join(" ")
    );
}
