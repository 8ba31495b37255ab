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
//! # What is public
//! What this page lists, and the command `kapsel-testdb` with its configuration and protocol. The modules are open to the command and
//! to this repository's tests and benchmarks; they are not listed, and change without notice.
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
#[doc(hidden)]
pub mod compare;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod connections;
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod driver;
#[doc(hidden)]
pub mod env;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod export;
#[doc(hidden)]
pub mod name;
#[doc(hidden)]
pub mod pg;
#[doc(hidden)]
pub mod platform;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod pollution;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod run_dir;
#[doc(hidden)]
pub mod server;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod sweep;
#[doc(hidden)]
pub mod template;
#[doc(hidden)]
pub mod testing;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use config::Leaks;
#[cfg(feature = "sqlx-0_8")]
pub use driver::Sqlx0_8;
#[cfg(feature = "sqlx-0_9")]
pub use driver::Sqlx0_9;
pub use driver::Version;
/// In full, with one of each kind of parameter:
///
/// ```no_run
/// use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, Postgres};
///
/// #[kapsel_testdb::test]
/// async fn on_a_clone(pool: PgPool) -> sqlx::Result<()> { Ok(()) }
///
/// #[kapsel_testdb::test(isolation = "shared", connections = 10)]
/// async fn on_the_shared_clone(connection: sqlx::pool::PoolConnection<Postgres>) {}
///
/// #[kapsel_testdb::test(isolation = "transaction")]
/// async fn in_a_sandbox(pool: PgPool) {}
///
/// #[kapsel_testdb::test(migrations = false, leaks = "fail")]
/// fn without_a_runtime(pool: PgPoolOptions, connect: PgConnectOptions) {}
///
/// #[kapsel_testdb::test(databases = 2)]
/// async fn on_two([one, other]: [PgPool; 2]) {}
///
/// #[kapsel_testdb::test]
/// fn another_driver(db: kapsel_testdb::DatabaseConfig) {}
/// # fn main() {}
/// ```
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
