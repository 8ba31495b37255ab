//! The command and the helper on real servers, from the outside: exit codes, messages, and what is left on the server and on disk.
//!
//! Where a new test goes:
//!
//! | directory | what it is about |
//! |---|---|
//! | `commands/` | what a command prints, and its exit code |
//! | `processes/` | what a test process does through the helper |
//! | `runs/` | keeper, kept databases, pollution, sweep: what a run leaves, whatever dies |
//! | `templates/` | migrations, seeds, scripts, and what clones look like |
//! | `managed/` | the server that we start |
//! | `servers/` | servers that we do not start: compose, poolers, TLS, restarts |
//!
//! A test has a server of its own (`support::Server`), a project in a temporary directory (`support::Project`) and a clean environment; it polls with a
//! deadline (`support::poll_until`) and never sleeps; it passes in any order, beside all others, on a busy machine.

mod commands;
mod managed;
mod processes;
mod runs;
mod servers;
mod support;
mod templates;
