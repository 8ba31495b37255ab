//! All administrative SQL, which is in no other directory.

pub mod admin;
pub mod blockers;
pub mod connect;
pub mod counters;
pub mod databases;
pub mod error;
pub mod facts;
pub mod lock;
pub mod obstacles;
pub mod own;
pub mod persistent;
pub mod probe;
pub mod roles;
pub mod script;
pub mod seen;
pub mod session;
mod settings;
pub mod sql;

pub use admin::Admin;
pub use error::PgError;
pub use facts::ServerFacts;
