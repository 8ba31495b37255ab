//! PostgreSQL for test suites, prepared once per run.
//!
//! Under cargo-nextest each test is a process, and each process would set up its database again. `kapsel-testdb prepare`, called by a
//! nextest setup script, does that work once per run. This library then gives each test process a database, at the cost of one connection:
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
//! Without the setup script (`cargo test`, a debugger) the same code works, only slower: the process opens its own run.
//!
//! The items on this page are the public API. Everything else is public only for the code of the attribute, and changes without notice.
//!
//! Call order: session (from the environment to a run directory, or the slow path), lease (claim or clone), pool, the test, release. On
//! the fast path a test opens one connection, to its database; everything else is a rename. A crash leaves a leased entry whose
//! `flock` is free. The keeper, or the end of the run, or the sweep then keeps that database like a failed test's.

#[cfg(not(any(feature = "sqlx-0_9", feature = "sqlx-0_8")))]
compile_error!(
    "kapsel-testdb needs at least one of its features `sqlx-0_9` and `sqlx-0_8`: enable the one for the sqlx of your tests"
);

/// The version of sqlx that this package itself uses: the newest that is enabled.
#[cfg(all(feature = "sqlx-0_8", not(feature = "sqlx-0_9")))]
extern crate sqlx_0_8 as sqlx;

mod arguments;
mod background;
mod connect;
mod database_config;
mod db;
mod error;
mod fixtures;
mod identity;
mod leaks;
mod lease;
mod left_rows;
mod measure;
mod plan;
mod report;
mod returned;
mod runner;
mod sandbox;
mod session;
mod shared_use;
mod slots;
mod sqlx_compat;
mod template;
mod test_id;
mod transaction;

/// The functions and types that the code of the attribute uses.
#[doc(hidden)]
pub mod testing {
    pub use crate::arguments::{Arguments, SandboxArguments, sandboxed};
    pub use crate::plan::{Isolation, TestPlan};
    pub use crate::returned::{DebugError, DisplayError, NoError, Returned};
    pub use crate::runner::{run, run_blocking};
    pub use crate::template::Migrations;
}

pub use database_config::DatabaseConfig;
pub use db::{TestDb, TestDbOptions};
pub use error::TestDbError;
/// ```no_run
/// #[kapsel_testdb::test(leaks = "fail")] // Leaks::Fail
/// async fn closes_what_it_opens(pool: sqlx::PgPool) {}
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let db = kapsel_testdb::TestDbOptions::new().leaks(kapsel_testdb::Leaks::Off).lease().await?;
/// # Ok(())
/// # }
/// # fn main() {}
/// ```
#[doc(inline)]
pub use kapsel_testdb_core::protocol::Leaks;
/// A test for each kind of parameter:
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
pub use measure::{Measured, NotInTime, Times, measure, measure_times, wait_until};
#[cfg(feature = "sqlx-0_8")]
pub use sqlx_compat::Sqlx0_8;
#[cfg(feature = "sqlx-0_9")]
pub use sqlx_compat::Sqlx0_9;
pub use sqlx_compat::Version;
pub use test_id::test_id;
pub use transaction::TestTransaction;

/// Compiles the examples of the documentation.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/GUIDE.md")]
    struct Guide;
    #[doc = include_str!("../../../docs/MIGRATING.md")]
    struct Migrating;
    #[doc = include_str!("../../../docs/SANDBOX.md")]
    struct Sandbox;
}
