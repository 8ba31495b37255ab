//! A throwaway PostgreSQL: a copy of a cluster that initdb made once, on a unix socket and on request on a loopback port.
//!
//! The copy's folder and process go with the value, whether the test passes or panics.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use kapsel_testdb_core::platform::{self, Signal};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::launcher::Launcher;
use super::{Certificates, PATIENCE, Session, poll_until, short_temp_dir, try_poll_until};

/// The role that tests' projects log in as: it may create databases and nothing else.
pub const ROLE: &str = "app";
/// The role that made the cluster.
pub const SUPERUSER: &str = "postgres";

/// A running server.
pub struct Server {
    dir: TempDir,
    launcher: Launcher,
    child: Option<Child>,
    port: u16,
    tcp: bool,
    settings: Vec<String>,
    as_shipped: bool,
}

/// What a server is like besides being throwaway.
#[derive(Default)]
struct Shape<'a> {
    tcp: bool,
    password: Option<&'a str>,
    settings: &'a [&'a str],
    as_shipped: bool,
    certificates: Option<&'a Certificates>,
}

impl Server {
    /// On a unix socket; everybody is trusted.
    pub fn start() -> Self {
        Self::launch(&Shape::default())
    }

    /// On a unix socket and a loopback port; everybody is trusted.
    pub fn start_tcp() -> Self {
        Self::launch(&Shape {
            tcp: true,
            ..Shape::default()
        })
    }

    /// On a loopback port where [`ROLE`] needs this password; only the superuser is let in through the socket.
    pub fn start_scram(password: &str) -> Self {
        Self::launch(&Shape {
            tcp: true,
            password: Some(password),
            ..Shape::default()
        })
    }

    /// On a unix socket, with another `max_connections` than PostgreSQL's default.
    pub fn start_with_connections(max_connections: u32) -> Self {
        Self::start_with(&[&format!("max_connections={max_connections}")])
    }

    /// On a unix socket, with settings of its own: `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::launch(&Shape {
            settings,
            ..Shape::default()
        })
    }

    /// On a unix socket, with PostgreSQL's own defaults: durable.
    pub fn start_as_shipped() -> Self {
        Self::launch(&Shape {
            as_shipped: true,
            ..Shape::default()
        })
    }

    /// On a loopback port where everybody is trusted who comes with TLS, and nobody else.
    pub fn start_tls(certificates: &Certificates) -> Self {
        Self::launch(&Shape {
            tcp: true,
            settings: &["ssl=on"],
            certificates: Some(certificates),
            ..Shape::default()
        })
    }

    fn launch(shape: &Shape<'_>) -> Self {
        let launcher = match shape.certificates {
            Some(_) => Launcher::with_tls(),
            None => Launcher::new(),
        };
        let dir = short_temp_dir();
        launcher.own(dir.path());
        let data = dir.path().join("data");
        launcher.copy_cluster(&data);
        let password = shape.password;
        let (locally, over_tcp) = match password {
            None => ("all", "trust"),
            Some(_) => (SUPERUSER, "scram-sha-256"),
        };
        let host = match shape.certificates {
            Some(_) => "hostssl",
            None => "host",
        };
        let hba = format!("local all {locally} trust\n{host} all all 127.0.0.1/32 {over_tcp}\n");
        fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
        for file in shape.certificates.iter().flat_map(|c| c.install(&data)) {
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode");
            launcher.own(&file);
        }
        let mut server = Self {
            dir,
            launcher,
            child: None,
            port: 5432,
            tcp: shape.tcp,
            as_shipped: shape.as_shipped,
            settings: shape.settings.iter().map(|s| (*s).to_owned()).collect(),
        };
        server.go_on();
        let password = password.map_or(String::new(), |p| format!("PASSWORD '{p}'"));
        server.execute(&format!("CREATE ROLE {ROLE} LOGIN CREATEDB {password}"));
        server
    }

    /// Starts it (again). A port that somebody else took meanwhile is replaced by another one.
    pub fn go_on(&mut self) {
        for attempt in 0.. {
            if self.tcp && (self.port == 5432 || attempt > 0) {
                self.port = free_port();
            }
            match self.try_start() {
                Ok(child) => {
                    self.child = Some(child);
                    return;
                }
                Err(log) if attempt == 4 || !self.tcp => panic!("no server: {log}"),
                Err(_) => {}
            }
        }
    }

    fn try_start(&self) -> Result<Child, String> {
        let data = self.dir.path().join("data");
        let log = self.dir.path().join("log");
        let file = File::create(&log).expect("a log file");
        let mut command = self.launcher.command("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(self.dir.path());
        command.args(["-p", &self.port.to_string()]);
        let listen = if self.tcp { "127.0.0.1" } else { "" };
        command.args(["-c", &format!("listen_addresses={listen}")]);
        let own = self.settings.iter().map(String::as_str);
        let tuned = SETTINGS.iter().copied().filter(|_| !self.as_shipped);
        for setting in tuned.chain(own) {
            command.args(["-c", setting]);
        }
        command.stdout(Stdio::null()).stderr(file);
        let mut child = command.spawn().expect("postgres starts");
        let pid = child.id().to_string();
        let ready = poll_until("the server is ready", PATIENCE, || {
            let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(true);
            }
            match child.try_wait().expect("a child to wait for") {
                Some(_) => Ok(false),
                None => Err(text),
            }
        });
        if ready {
            Ok(child)
        } else {
            Err(fs::read_to_string(log).unwrap_or_default())
        }
    }

    /// Kills one of its sessions, so that it recovers as after a crash.
    pub fn crash(&self) {
        let ready = || self.log().matches("ready to accept connections").count();
        let before = ready();
        let mut victim = self.session(SUPERUSER);
        let pid = victim.column("SELECT pg_backend_pid()::text").remove(0);
        let pid = pid.parse().expect("a process id");
        platform::signal(pid, Signal::KILL).expect("a backend to kill");
        // It may answer once more before it notices.
        poll_until("the server is back", PATIENCE, || match ready() > before {
            true => Ok(()),
            false => Err(self.log()),
        });
    }

    /// Stops all its processes until the value is dropped: it neither answers nor closes a connection.
    pub fn freeze(&self) -> FrozenServer {
        let postmaster = self.child.as_ref().expect("a server that runs").id();
        platform::signal(postmaster, Signal::STOP).expect("a server to freeze");
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(children).expect("the server's processes");
        let children = children.split_whitespace().map(|pid| pid.parse());
        let mut frozen = FrozenServer(vec![postmaster]);
        for pid in children {
            let pid = pid.expect("a process id");
            // A session may end meanwhile.
            if platform::signal(pid, Signal::STOP).is_ok() {
                frozen.0.push(pid);
            }
        }
        frozen
    }

    /// Stops it as an administrator would; the data stays.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = platform::signal(child.id(), signal);
        let gone = try_poll_until(PATIENCE, || match child.try_wait() {
            Ok(None) => Err("it still runs".to_owned()),
            _ => Ok(()),
        });
        if gone.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The URL that leads [`ROLE`] here, without password.
    pub fn url(&self) -> String {
        self.url_of(ROLE)
    }

    /// The URL that leads a role here; its password may follow a colon.
    pub fn url_of(&self, role: &str) -> String {
        let host = if self.tcp {
            "127.0.0.1".to_owned()
        } else {
            self.dir.path().to_string_lossy().replace('/', "%2F")
        };
        format!("postgres://{role}@{host}:{}/postgres", self.port)
    }

    /// The folder of the socket.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The number in the socket's name.
    pub fn socket_port(&self) -> u16 {
        self.port
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn options(&self, database: &str, role: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.dir.path())
            .port(self.port)
            .username(role)
            .database(database)
    }

    /// A session of the superuser.
    pub fn session(&self, database: &str) -> Session {
        Session::open(&self.options(database, SUPERUSER))
    }

    /// A session of [`ROLE`].
    pub fn session_of_role(&self, database: &str) -> Session {
        self.session_as(ROLE, database)
    }

    /// A session of another role.
    pub fn session_as(&self, role: &str, database: &str) -> Session {
        Session::open(&self.options(database, role))
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs SQL as superuser in the database `postgres`.
    pub fn execute(&self, sql: &str) {
        let mut session = self.session(SUPERUSER);
        session.execute(sql);
        session.close();
    }

    /// Runs SQL as superuser in a database and comes back when the session is gone from the server.
    pub fn execute_in(&self, database: &str, sql: &str) {
        let mut session = self.session(database);
        session.execute(sql);
        session.close();
        self.wait_for_sessions(database, 0);
    }

    /// Waits until so many client sessions are on a database.
    pub fn wait_for_sessions(&self, database: &str, count: usize) {
        let mut session = self.session(SUPERUSER);
        let sql = format!("SELECT pid::text FROM pg_stat_activity WHERE datname = '{database}'");
        poll_until(
            "the sessions are as many as expected",
            PATIENCE,
            || match session.column(&sql).len() {
                n if n == count => Ok(()),
                n => Err(format!("{n} sessions on {database}")),
            },
        );
        session.close();
    }

    /// The first column of what a query as superuser finds in a database.
    pub fn column_in(&self, database: &str, sql: &str) -> Vec<String> {
        let mut session = self.session(database);
        let found = session.column(sql);
        session.close();
        found
    }

    /// All databases by name.
    pub fn databases(&self) -> Vec<String> {
        let sql = "SELECT datname::text FROM pg_database ORDER BY 1";
        self.column_in(SUPERUSER, sql)
    }

    /// The databases that are neither templates nor spares, which outlive runs by design.
    pub fn transient_databases(&self) -> Vec<String> {
        let lasts = |name: &String| name.contains("_template_") || name.contains("_spare_");
        let mut names = self.databases();
        names.retain(|name| !lasts(name));
        names
    }

    /// The databases of one kind, whatever their namespace.
    pub fn databases_of(&self, kind: &str) -> Vec<String> {
        let infix = format!("_{kind}_");
        let mut names = self.databases();
        names.retain(|name| name.contains(&infix));
        names
    }

    /// Creates empty databases that belong to [`ROLE`].
    pub fn create<T: AsRef<str>>(&self, names: &[T]) {
        for name in names {
            let name = name.as_ref();
            self.execute(&format!("CREATE DATABASE \"{name}\" OWNER {ROLE}"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

const SETTINGS: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=100",
    "max_prepared_transactions=5",
    "autovacuum=off",
    // A client that connects and says nothing holds up the restart after a crash for so long.
    "authentication_timeout=5s",
];

/// The processes of a frozen server.
pub struct FrozenServer(Vec<u32>);

impl Drop for FrozenServer {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = platform::signal(*pid, Signal::CONT);
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("its address").port()
}
