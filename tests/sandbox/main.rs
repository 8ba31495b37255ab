//! Isolation `transaction`: what works as on any pool, and each thing that is different (docs/SANDBOX.md).
//!
//! `application` and `differences` need no schema and nothing but `sqlx` and tokio, of whatever version.

mod application;
mod differences;
mod shared;
