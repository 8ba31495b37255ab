//! One file per command: a function that takes resolved settings and a printer.

pub mod acquire;
mod changes;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod idle;
pub mod init;
mod interrupt;
pub mod keeper;
pub mod kept;
mod leaks;
pub mod libpq;
pub mod pollution;
pub mod prepare;
pub mod purge;
pub mod run;
pub mod server;
pub mod status;
pub mod sweep;
pub mod template;
pub mod wait;
