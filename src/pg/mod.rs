//! All that is said to PostgreSQL apart from the tests' own statements: the only folder with administrative SQL in it.

pub mod address;
pub mod admin;
pub mod blockers;
pub mod connect;
#[cfg(feature = "cli")]
pub mod counters;
pub mod databases;
pub mod error;
pub mod facts;
pub mod lock;
#[cfg(feature = "cli")]
pub mod probe;
pub mod script;
mod settings;
pub mod sql;
pub mod tls;

pub use address::Address;
pub use admin::Admin;
pub use error::PgError;
pub use facts::ServerFacts;
