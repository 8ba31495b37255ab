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

/// A failed test's database was kept.
pub fn kept(name: &DbName, server: &Address) {
    let url = server.url(&name.to_string());
    eprintln!("kapsel-testdb: kept the test's database; look at it with: psql '{url}'");
}

/// A failed test's database could not be kept.
pub fn not_kept(name: &DbName, error: &dyn Display) {
    eprintln!("kapsel-testdb: could not keep the database `{name}`: {error}");
}

/// A database could not be given back.
pub fn left_to_sweep(error: &dyn Display) {
    eprintln!(
        "kapsel-testdb: left something behind ({error}); `kapsel-testdb sweep` will remove it"
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

/// Connections that the test has not given back.
pub fn still_in_use(name: &DbName) {
    eprintln!(
        "kapsel-testdb: connections to `{name}` were still in use when the test ended; await what you spawned, and drop what you acquired"
    );
}
