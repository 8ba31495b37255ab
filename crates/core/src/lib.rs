//! What the command `kapsel-testdb` and the test helper `kapsel_testdb` share. Not for direct use: it changes without notice.
//!
//! # Layers
//! Each module imports only from modules above it in this list (`scripts/check-layers` checks that):
//!
//! | module | what it is for |
//! |---|---|
//! | [`mod@env`] | every environment variable |
//! | [`mod@waiting`] | waits that the command shows |
//! | [`plural`] | numbers with their nouns |
//! | [`platform`] | what differs between operating systems |
//! | [`sqlstate`] | the server's error codes |
//! | [`address`] | where a server is, and how to log in |
//! | [`protocol`] | what `docs/PROTOCOL.md` specifies: names of databases, the run directory, the ledger of connection slots |
//! | [`sqlx_compat`] | the sqlx that this package works with, and the migrators of every version |
//! | [`pg`] | all administrative SQL |
//! | [`config`] | resolves settings |
//! | [`connections`] | computes how many connections tests may have |
//! | [`server`] | locates, starts and verifies PostgreSQL |
//! | [`recycle`] | returns a used clone to the state of its template, with proof |
//! | [`template`] | fingerprints and builds templates |
//! | [`run`] | opens a run, makes and keeps its databases |

#[cfg(not(any(feature = "sqlx-0_9", feature = "sqlx-0_8")))]
compile_error!(
    "kapsel-testdb needs one of its features `sqlx-0_9` and `sqlx-0_8`: the sqlx that your tests use"
);

/// What this package works with itself: the newest sqlx that is compiled anyway.
#[cfg(all(feature = "sqlx-0_8", not(feature = "sqlx-0_9")))]
extern crate sqlx_0_8 as sqlx;

pub mod address;
pub mod config;
pub mod connections;
pub mod env;
pub mod pg;
pub mod platform;
pub mod plural;
pub mod protocol;
pub mod recycle;
pub mod run;
pub mod server;
pub mod sqlstate;
pub mod sqlx_compat;
pub mod template;
pub mod waiting;
