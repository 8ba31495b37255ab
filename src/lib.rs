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
//! keeps it (the keeper); `connections` divides the server's connections; `sweep` removes what dead runs left; `testing` is the helper. Two modules are contracts between
//! processes: `name` (databases) and `run_dir` (files). `pg` holds all administrative SQL. `docs/DESIGN.md` has the reasons.

pub mod config;
pub mod connections;
pub mod disk;
pub mod env;
#[cfg(feature = "cli")]
pub mod export;
pub mod name;
pub mod pg;
pub mod platform;
pub mod run;
pub mod run_dir;
pub mod server;
#[cfg(feature = "cli")]
pub mod sweep;
pub mod template;
pub mod testing;

#[cfg(feature = "cli")]
pub mod cli;

pub use kapsel_testdb_macros::test;
pub use testing::{TestDb, TestDbError, TestDbOptions, TestTransaction, test_id};
