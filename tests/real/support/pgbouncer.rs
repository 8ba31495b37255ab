//! A real PgBouncer before a throwaway server: any database and any role, over a loopback port.

use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use kapsel_testdb_core::platform::{self, Signal};
use tempfile::TempDir;

use super::launcher::Launcher;
use super::{PATIENCE, ROLE, Server, free_port, poll_until, short_temp_dir};

/// A running pooler; it ends with the value.
pub struct PgBouncer {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl PgBouncer {
    /// `mode` is `transaction` or `session`; `more` are lines of its configuration.
    pub fn start(server: &Server, mode: &str, more: &str) -> Self {
        for _ in 0..5 {
            if let Some(started) = Self::try_start(server, mode, more) {
                return started;
            }
        }
        panic!("no pgbouncer starts");
    }

    fn try_start(server: &Server, mode: &str, more: &str) -> Option<Self> {
        let launcher = Launcher::new();
        let dir = short_temp_dir();
        launcher.own(dir.path());
        let path = |name: &str| dir.path().join(name);
        let port = free_port();
        fs::write(path("users"), format!("\"{ROLE}\" \"\"\n")).expect("the user list");
        let config = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\nmax_client_conn = 200\n{more}\n",
            server.folder().display(),
            server.socket_port(),
            path("users").display(),
        );
        fs::write(path("ini"), config).expect("its configuration");
        let log = File::create(path("log")).expect("a log");
        let mut command: Command = launcher.program("pgbouncer");
        command.arg(path("ini"));
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let mut child = child.expect("pgbouncer: scripts/prepare installs it");
        let up = poll_until("the pooler listens", PATIENCE, || {
            if child.try_wait().expect("a child to wait for").is_some() {
                return Ok(false);
            }
            let connected = TcpStream::connect(("127.0.0.1", port));
            connected.map(|_| true).map_err(|e| e.to_string())
        });
        up.then_some(Self { dir, child, port })
    }

    /// The URL that leads [`ROLE`] to a server through it.
    pub fn url(&self) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/postgres", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = platform::signal(self.child.id(), Signal::QUIT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
