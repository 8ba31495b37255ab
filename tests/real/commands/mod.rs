//! The commands, from the outside: output, exit codes, what is left on the server and on disk.

pub mod compare;
pub mod config;
pub mod doctor;
pub mod export;
pub mod help;
pub mod init;
pub mod json;
pub mod kept_commands;
pub mod leases;
pub mod refusals;
pub mod screens;
pub mod secrets;
pub mod status;
pub mod waits;
