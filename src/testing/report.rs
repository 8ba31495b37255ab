//! What the helper says to a person, in the test's own output. Everything else goes through `tracing`.

#![expect(
    clippy::print_stderr,
    reason = "a failed test's output is where its database is looked for; the test harness captures it"
)]

use std::fmt::Display;
use std::time::Duration;

use crate::connections::Limit;
use crate::name::DbName;
use crate::pg::Address;
use crate::run_dir::Claimant;

/// A failed test's database was kept.
pub fn kept(name: &DbName, server: &Address, whose: Option<&Claimant>) {
    let url = server.url(&name.to_string());
    let short = whose.map_or_else(|| name.to_string(), |claimant| in_shell(&claimant.test));
    eprintln!(
        "kapsel-testdb: kept the test's database; look at it with: psql '{url}'\n\
         kapsel-testdb: or, in the workspace: kapsel-testdb kept psql {short}"
    );
}

/// Text as one word of a shell.
fn in_shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:.-/".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A failed test's database could not be kept.
pub fn not_kept(name: &DbName, error: &dyn Display) {
    eprintln!("kapsel-testdb: could not keep the database `{name}`: {error}");
}

/// A database could not be given back.
pub fn left_to_sweep(error: &dyn Display) {
    eprintln!(
        "kapsel-testdb: left something behind ({error}); `kapsel-testdb sweep` removes it, and keeps what a test failed with"
    );
}

/// The exported run is over.
pub fn stale_run(error: &dyn Display) {
    eprintln!("kapsel-testdb: {error}; this test makes its own database meanwhile (slower)");
}

/// The run's template was dropped under it.
pub fn lost_template(error: &dyn Display) {
    eprintln!("kapsel-testdb: {error}; this test builds its own template meanwhile (slower)");
}

/// The migrations that are compiled into a test are not those of the folder that the run's template was made from.
pub fn stale_migrator(differences: &[String]) {
    eprintln!(
        "kapsel-testdb: the migrator that is compiled into this test is not what the run's migrations are now ({}); recompile it, or run \
         prepare again; the test goes on with a template of its own",
        differences.join("; ")
    );
}

/// Others hold the server's connections.
pub fn waiting_for_connections(tokens: u32, limit: &Limit) {
    eprintln!(
        "kapsel-testdb: waiting for {tokens} of the server's connections: other test processes hold them (tests have {} of {}; \
         `kapsel-testdb status` says how that comes about)",
        limit.tokens, limit.max_connections
    );
}

/// Nobody gives any back.
pub fn no_connections(tokens: u32, waited: Duration) {
    eprintln!(
        "kapsel-testdb: waited {} s for {tokens} connections in vain, and go on without; if the server refuses them, raise its \
         max_connections, or run fewer tests at once",
        waited.as_secs()
    );
}

/// What the test left open.
pub fn left_open(what: &str) {
    eprintln!("kapsel-testdb: {what}");
}

/// A failed test's sandbox was lost too.
pub fn lost_sandbox(lost: &dyn Display) {
    eprintln!("kapsel-testdb: {lost}");
}

/// A sandbox's connection was in use for so long that another acquire gave up; `certain` where the failure says that one did.
pub fn one_connection(took: Duration, timeout: Duration, place: &str, certain: bool) {
    let (took, timeout) = (took.as_secs_f64(), timeout.as_secs_f64());
    let meanwhile = if certain {
        "and a second one was asked for meanwhile, which fails"
    } else {
        "and asking for a second one meanwhile fails"
    };
    eprintln!(
        "kapsel-testdb: the sandbox's only connection was in use for {took:.1} s, {meanwhile} with `PoolTimedOut` after {timeout:.1} s; the \
         first was acquired {place}; give it back before (drop it, commit), hand it on (`&mut *connection`), or use \
         `isolation = \"database\"`"
    );
}

/// sqlx rolled back more than the application knows.
pub fn undone() {
    eprintln!(
        "kapsel-testdb: a `begin` failed or was cancelled in the sandbox (`begin_with` always does), and sqlx rolled back all that had been \
         done with that connection since it was acquired; a test that needs it to stay needs `isolation = \"database\"`"
    );
}

/// A statement waits for other tests.
pub fn waits_for_lock(statement: &str, others: &[String]) {
    eprintln!(
        "kapsel-testdb: a statement of this test waits for a lock of {}: `{}`; with isolation `transaction` and `shared` tests are in one \
         database, and a transaction keeps its locks until the test ends: use other keys, or `isolation = \"database\"`",
        others.join(", "),
        statement.split_whitespace().collect::<Vec<_>>().join(" ")
    );
}
