//! The command line tool and real servers, from the outside: exit codes, messages, and what is left on the server and on disk.

mod child;
mod commands;
mod config;
mod connections;
mod doctor;
mod export;
mod failing;
mod fidelity;
mod kills;
mod managed;
mod migrations;
mod namespaces;
mod persistent;
mod pgbouncer;
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
mod tls;
mod waiting;
