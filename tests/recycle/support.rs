//! Throwaway servers, as in `tests/real`.

#[path = "../real/support/certificates.rs"]
mod certificates;
#[path = "../real/support/launcher.rs"]
mod launcher;
#[path = "../real/support/polling.rs"]
mod polling;
#[path = "../real/support/server.rs"]
mod server;
#[path = "../real/support/session.rs"]
mod session;
#[path = "../real/support/temp_dir.rs"]
mod temp_dir;

pub use certificates::Certificates;
pub use launcher::BIN_DIR;
pub use polling::{PATIENCE, poll_until, try_poll_until};
pub use server::Server;
pub use session::Session;
pub use temp_dir::short_temp_dir;
