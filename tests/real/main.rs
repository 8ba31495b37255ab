//! The command line tool and real servers, from the outside: exit codes, messages, and what is left on the server and on disk.

mod child;
mod commands;
mod config;
mod export;
mod failing;
mod fidelity;
mod kills;
mod managed;
mod managed_cache;
mod managed_commands;
mod managed_hazards;
mod managed_idle;
mod managed_machine;
mod migrations;
mod namespaces;
mod persistent;
mod refusals;
mod restart;
mod runs;
mod secrets;
mod status;
mod support;
mod sweep_leftovers;
mod sweep_names;
mod sweep_watch;
mod templates;
