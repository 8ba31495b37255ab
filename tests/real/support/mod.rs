//! What all tests here stand on: throwaway servers, a user's project, the real binary with a clean environment.

mod certificates;
mod client_programs;
mod command;
mod composed;
mod fake_bin;
mod kept;
mod launcher;
mod nextest;
mod old_server;
mod pgbouncer;
mod polling;
mod project;
mod replication;
mod server;
mod session;
mod temp_dir;
mod terminal;

pub use certificates::Certificates;
pub use client_programs::ClientPrograms;
pub use command::{BINARY, Outcome, Tool};
pub use composed::{Composed, one_service};
pub use fake_bin::FakeBin;
pub use kept::{Attempt, kept, wait_for_kept};
pub use launcher::{BIN_DIR, PROGRAMS, binaries};
pub use nextest::{DeadRun, FakeNextest, keeper_of, read_run};
pub use old_server::OldServer;
pub use pgbouncer::PgBouncer;
pub use polling::{PATIENCE, poll_until, try_poll_until};
pub use project::Project;
pub use replication::replication_connection;
pub use server::{ROLE, SUPERUSER, Server, free_port};
pub use session::Session;
pub use temp_dir::{short_temp_dir, short_temp_dir_on_disk};
pub use terminal::Terminal;
