//! The managed server: its start, its cache, what may have happened to it, its commands.

pub mod cache;
pub mod commands;
pub mod hazards;
pub mod idle;
pub mod machine;
pub mod role;
pub mod settings;
pub mod start;
