//! Servers that are not ours: services of compose files, poolers, TLS, restarts, silence.

pub mod compose;
pub mod pgbouncer;
pub mod restart;
pub mod silence;
pub mod tls;
pub mod urls;
