//! Isolation `transaction`: what works as on any pool, and each documented difference (docs/SANDBOX.md).
//!
//! `application` and `differences` need no schema, and no crate except `sqlx` (any version) and tokio: `tests/sqlx_test` compiles them
//! for sqlx 0.8 too.

mod application;
mod differences;
mod shared;
