//! The managed server: PostgreSQL binaries of this machine, data that need not survive, a unix socket in a private folder.
//!
//! `<state>/` holds `pg<major>/` with `data`, `s` (the socket) and `log`; `start.lock` lets one process at a time start or stop.
//! When we are root, only `data` and `s` belong to the server's user: we write nothing where that user could put a link.
//! There is no registry: the server is found by connecting to its socket. It belongs to the user and outlives runs, so that the
//! next `prepare` finds it in milliseconds.
//!
//! What a crash leaves: a `data.new` of an interrupted initdb (removed by the next start), or a data directory with a stale
//! `postmaster.pid` (PostgreSQL clears it by itself when it starts).

mod error;
mod places;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use self::error::At;
use self::places::{Owner, default_state, major_version};
use super::binaries::Binaries;
use crate::config::ServerConfig;
use crate::pg::Address;
use crate::platform;
use crate::run_dir::{RunDirError, check_private, check_unwritable};

pub use self::error::LocalError;

const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";
/// `sun_path` has 108 bytes on Linux and 104 on macOS, the final zero included.
const SOCKET_PATH_MAX: usize = 103;

/// The managed server's places, whether it runs or not.
#[derive(Debug)]
pub struct Local {
    binaries: Binaries,
    owner: Owner,
    state: PathBuf,
    major: String,
}

/// The managed server, started if it does not run.
///
/// # Errors
/// [`LocalError`] with the remedy.
pub async fn ensure(settings: &ServerConfig) -> Result<Address, LocalError> {
    let local = Local::open(settings)?;
    if local.answers() {
        return Ok(local.address());
    }
    let timeout = settings.start_timeout;
    tokio::task::spawn_blocking(move || local.start(timeout))
        .await
        .map_err(io::Error::other)
        .at("wait for the start of", Path::new("postgres"))?
}

impl Local {
    /// Finds the binaries and the places; starts nothing.
    ///
    /// # Errors
    /// [`LocalError`] with the remedy.
    pub fn open(settings: &ServerConfig) -> Result<Self, LocalError> {
        let binaries = Binaries::find(settings.bin_dir.as_deref())?;
        let owner = Owner::find(&settings.run_as)?;
        let major = major_version(&binaries)?;
        let state = match &settings.state_dir {
            Some(dir) => dir.clone(),
            None => default_state(&major),
        };
        let local = Self {
            binaries,
            owner,
            state,
            major,
        };
        let socket = local.socket();
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(LocalError::PathTooLong(socket));
        }
        Ok(local)
    }

    /// Where tests connect to it.
    pub fn address(&self) -> Address {
        Address::socket(self.dir().join("s"), PORT, SUPERUSER)
    }

    fn dir(&self) -> PathBuf {
        self.state.join(format!("pg{}", self.major))
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Where it writes its log.
    pub fn log(&self) -> PathBuf {
        self.dir().join("log")
    }

    fn socket(&self) -> PathBuf {
        self.dir().join("s").join(format!(".s.PGSQL.{PORT}"))
    }

    /// Whether somebody listens on its socket, which only its owner can have made.
    pub fn answers(&self) -> bool {
        let folder = self.dir().join("s");
        check_unwritable(&self.state).is_ok()
            && check_private(&folder, self.owner.uid).is_ok()
            && std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    /// Starts it under the start lock, making the cluster first where there is none. Whoever comes meanwhile waits and finds it.
    fn start(&self, timeout: Duration) -> Result<Address, LocalError> {
        let deadline = Instant::now() + timeout;
        let _lock = self.lock()?;
        if self.answers() {
            return Ok(self.address());
        }
        self.make_own_dir(&self.dir())?;
        self.make_servers_dir(&self.dir().join("s"))?;
        self.wait_for_the_last_one(deadline)?;
        if !self.data().join("PG_VERSION").is_file() {
            self.initdb()?;
        }
        let child = self.spawn()?;
        self.wait_until_ready(child, deadline)?;
        Ok(self.address())
    }

    /// A server that is going down listens no more, but holds its data until it is gone.
    fn wait_for_the_last_one(&self, deadline: Instant) -> Result<(), LocalError> {
        while let Some(pid) = self
            .pid_in_file()
            .filter(|pid| platform::is_running(*pid, "postgres", self.owner.uid))
        {
            if Instant::now() > deadline {
                return Err(self.failed(format!(
                    "process {pid} has its data directory, but does not answer and does not end; stop it"
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn pid_in_file(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    fn failed(&self, reason: String) -> LocalError {
        let log = self.log();
        let tail = last_lines(&fs::read_to_string(&log).unwrap_or_default(), 5);
        LocalError::Start { reason, log, tail }
    }

    fn lock(&self) -> Result<File, LocalError> {
        self.make_own_dir(&self.state)?;
        let path = self.state.join("start.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        lock.lock().at("lock", &path)?;
        Ok(lock)
    }

    /// Makes a folder of our own, which nobody else may change: as root we write below it, so the server's user must not be able
    /// to put a link there. It may only pass through.
    fn make_own_dir(&self, path: &Path) -> Result<(), LocalError> {
        let mode = if self.owner.switch.is_some() {
            0o711
        } else {
            0o700
        };
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", path),
            _ => check_unwritable(path).map_err(|error| refused(path, error)),
        }
    }

    /// Makes a folder of the server's user, in one of our own.
    fn make_servers_dir(&self, path: &Path) -> Result<(), LocalError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.owner.own(path).at("change the owner of", path)?,
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).at("make", path),
            // Still root's: who made it died before giving it away.
            Err(_) if self.owner.switch.is_some() && check_private(path, 0).is_ok() => {
                self.owner.own(path).at("change the owner of", path)?;
            }
            Err(_) => {}
        }
        check_private(path, self.owner.uid).map_err(|error| refused(path, error))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        // A fixed environment: what the caller's shell says (PGDATA, LC_*, an inherited NEXTEST_ENV) is none of the server's.
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        command.current_dir("/").stdin(Stdio::null());
        self.owner.become_owner(&mut command);
        command
    }

    fn initdb(&self) -> Result<(), LocalError> {
        let fresh = self.dir().join("data.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).at("remove", &fresh)?;
        }
        self.make_servers_dir(&fresh)?;
        let output = self
            .command("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--username", SUPERUSER])
            .arg("--pgdata")
            .arg(&fresh)
            .output()
            .at("run", &self.binaries.program("initdb"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(LocalError::InitDb {
                status: output.status.to_string(),
                output: last_lines(&text, 5),
            });
        }
        fs::rename(&fresh, self.data()).at("rename", &fresh)
    }

    /// Settings for data that nobody needs after a crash, on the command line: nothing that is in the server's own folder can
    /// change where it listens.
    fn settings(&self) -> Vec<String> {
        let sockets = self.dir().join("s").to_string_lossy().into_owned();
        let fixed = SETTINGS
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut settings: Vec<String> = fixed.collect();
        settings.push(format!("unix_socket_directories={sockets}"));
        settings.push(format!("port={PORT}"));
        if self.major.parse().is_ok_and(|major: u32| major >= 14) {
            // Ends the query of a killed test instead of letting it finish.
            settings.push("client_connection_check_interval=1s".to_owned());
        }
        settings
    }

    fn spawn(&self) -> Result<Child, LocalError> {
        let path = self.log();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        let again = log.try_clone().at("open", &path)?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in self.settings() {
            command.arg("-c").arg(setting);
        }
        command.stdout(log).stderr(again);
        platform::detach(&mut command, &[]);
        command
            .spawn()
            .at("run", &self.binaries.program("postgres"))
    }

    fn wait_until_ready(&self, mut child: Child, deadline: Instant) -> Result<(), LocalError> {
        // The postmaster writes "ready" as the status of its pid file once it accepts connections (since version 10).
        let pid_file = self.data().join("postmaster.pid");
        let pid = child.id().to_string();
        loop {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            if let Some(status) = child.try_wait().at("wait for", &pid_file)? {
                return Err(self.failed(format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                let _ = platform::signal(child.id(), platform::Signal::QUIT);
                let _ = child.wait();
                return Err(self.failed("it was not ready in time".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The postmaster's process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        let ours = |pid: &u32| platform::is_running(*pid, "postgres", self.owner.uid);
        self.pid_in_file().filter(ours).filter(|_| self.answers())
    }

    /// Stops it, ending every session; `false` where it did not run. The data stays, and is found again by the next start.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn stop(&self, timeout: Duration) -> Result<bool, LocalError> {
        if check_unwritable(&self.state).is_err() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let Some(pid) = self.pid() else {
            return Ok(false);
        };
        platform::signal(pid, platform::Signal::INT).at("signal", &self.data())?;
        let deadline = Instant::now() + timeout;
        while self.data().join("postmaster.pid").exists() {
            if Instant::now() > deadline {
                let seconds = timeout.as_secs();
                return Err(self.failed(format!("process {pid} did not end within {seconds} s")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }
}

const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "256MB"),
    ("checkpoint_timeout", "30min"),
    ("shared_buffers", "128MB"),
    // So many that no test waits for one. The next line makes room for the locks of a transaction that drops every table of a
    // large schema: so many times `max_connections`.
    ("max_connections", "1000"),
    ("max_locks_per_transaction", "128"),
    ("jit", "off"),
    // A client that connects and says nothing holds up the restart after a crash for so long.
    ("authentication_timeout", "10s"),
    ("autovacuum_naptime", "5min"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] %a "),
    // Tests provoke errors on purpose; the log is for the server's own troubles.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "fatal"),
];

fn refused(path: &Path, error: RunDirError) -> LocalError {
    match error {
        RunDirError::NotPrivate { path, why } => LocalError::NotPrivate { path, why },
        error => LocalError::Io {
            doing: "look at",
            path: path.to_path_buf(),
            source: io::Error::other(error),
        },
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}
