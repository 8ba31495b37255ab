//! PostgreSQL for test suites, prepared once per run.
//!
//! Under cargo-nextest every test is a process, and each pays again for its database. `kapsel-testdb prepare`, called from a nextest
//! setup script, does that work once per run; this library hands each test process a database at the price of one connection:
//!
//! ```no_run
//! #[kapsel_testdb::test]
//! async fn a_tenant_has_a_name(pool: sqlx::PgPool) -> sqlx::Result<()> {
//!     sqlx::query("INSERT INTO tenants (name) VALUES ('acme')").execute(&pool).await?;
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Without the setup script (`cargo test`, a debugger) the same code works by itself, only slower: the process opens a run of its
//! own.
//!
//! # Crate map
//! `config` resolves settings; `server` locates or starts PostgreSQL; `template` fingerprints and builds; `run` opens a run and
//! keeps it (the keeper); `connections` divides the server's connections; `sweep` removes what dead runs left; `compare` and `pollution` say how a
//! database differs from its template; `testing` is the helper. Two modules are contracts between
//! processes: `name` (databases) and `run_dir` (files). `pg` holds all administrative SQL. `docs/DESIGN.md` has the reasons.

#[cfg(not(any(feature = "sqlx-0_9", feature = "sqlx-0_8")))]
compile_error!(
    "kapsel-testdb needs one of its features `sqlx-0_9` and `sqlx-0_8`: the sqlx that your tests use"
);

/// What we work with ourselves: the newest sqlx that is compiled anyhow.
#[cfg(all(feature = "sqlx-0_8", not(feature = "sqlx-0_9")))]
extern crate sqlx_0_8 as sqlx;

#[cfg(feature = "cli")]
pub mod compare;
pub mod config;
pub mod connections;
pub mod disk;
pub mod driver;
pub mod env;
#[cfg(feature = "cli")]
pub mod export;
pub mod name;
pub mod pg;
pub mod platform;
#[cfg(feature = "cli")]
pub mod pollution;
pub mod run;
pub mod run_dir;
pub mod server;
#[cfg(feature = "cli")]
pub mod sweep;
pub mod template;
pub mod testing;

#[cfg(feature = "cli")]
pub mod cli;

pub use config::Leaks;
#[cfg(feature = "sqlx-0_8")]
pub use driver::Sqlx0_8;
#[cfg(feature = "sqlx-0_9")]
pub use driver::Sqlx0_9;
pub use kapsel_testdb_macros::test;
pub use testing::{
    DatabaseConfig, Measured, NotInTime, TestDb, TestDbError, TestDbOptions, TestTransaction,
    Times, measure, measure_times, test_id, wait_until,
};

/// The documents' examples compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/MIGRATING.md")]
    struct Migrating;
}
