//! The managed server: PostgreSQL binaries of this machine, data that need not survive, a unix socket in a private folder.
//!
//! `<state>/` holds `pg<major>/` with `data`, `s` (the socket) and `log`; `start.lock` lets one process at a time start or stop.
//! When we are root, only `data` and `s` belong to the server's user: we write nothing where that user could put a link.
//! There is no registry: the server is found by connecting to its socket. It belongs to the user and outlives runs, so that the
//! next `prepare` finds it in milliseconds.
//!
//! What a crash leaves: a `data.new` of an interrupted initdb or copy (removed by the next start), or a data directory with a
//! stale `postmaster.pid` (PostgreSQL clears it by itself when it starts; where another program has the number now, we do).

mod cache;
mod cluster;
mod copy;
mod dirs;
mod error;
#[cfg(feature = "cli")]
pub mod idle;
mod log;
mod places;
mod settings;
mod stale;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::cluster::Made;
use self::error::At;
use self::log::last_lines;
use self::places::{Owner, default_state, major_version};
use super::binaries::Binaries;
use crate::config::ServerConfig;
use crate::disk;
use crate::pg::Address;
use crate::platform;
use crate::run_dir::{check_private, check_unwritable};

pub use self::error::LocalError;

const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";
/// `sun_path` has 108 bytes on Linux and 104 on macOS, the final zero included.
const SOCKET_PATH_MAX: usize = 103;
/// How often we look while a server comes up or goes down.
const LOOK: Duration = Duration::from_millis(2);
/// A fast shutdown ends sessions; without `fsync` there is little to write.
pub const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The managed server's places, whether it runs or not.
#[derive(Debug)]
pub struct Local {
    binaries: Binaries,
    owner: Owner,
    state: PathBuf,
    major: String,
    cache: bool,
}

/// Held while the server is started or stopped, or shared while somebody connects to it.
#[derive(Debug)]
pub struct StartLock(#[expect(dead_code, reason = "held for its flock")] File);

/// A running postmaster, as its pid file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Postmaster {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in seconds since 1970.
    pub started: u64,
}

impl Postmaster {
    /// For how long it has been running.
    pub fn uptime(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default()
            .saturating_sub(Duration::from_secs(self.started))
    }
}

/// The managed server, started if it does not run.
///
/// # Errors
/// [`LocalError`] with the remedy.
pub async fn ensure(local: &std::sync::Arc<Local>, timeout: Duration) -> Result<(), LocalError> {
    if local.runs() {
        return Ok(());
    }
    let local = local.clone();
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
        let (bin_dir, state_dir) = (settings.bin_dir.as_deref(), settings.state_dir.as_deref());
        let local = Self::at(bin_dir, state_dir, &settings.run_as)?;
        Ok(Self {
            cache: settings.cache,
            ..local
        })
    }

    fn at(
        bin_dir: Option<&Path>,
        state_dir: Option<&Path>,
        run_as: &str,
    ) -> Result<Self, LocalError> {
        let binaries = Binaries::find(bin_dir)?;
        let major = major_version(&binaries)?;
        let local = Self {
            state: state_dir.map_or_else(|| default_state(&major), Path::to_path_buf),
            owner: Owner::find(run_as)?,
            binaries,
            major,
            cache: true,
        };
        let socket = local.socket();
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(LocalError::PathTooLong(socket));
        }
        Ok(local)
    }

    /// Where tests connect to it.
    pub fn address(&self) -> Address {
        Address::socket(self.sockets(), PORT, SUPERUSER)
    }

    /// The folder that holds everything of this version's server.
    pub fn dir(&self) -> PathBuf {
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

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.sockets().join(format!(".s.PGSQL.{PORT}"))
    }

    fn sockets(&self) -> PathBuf {
        self.dir().join("s")
    }

    /// The programs that it is made from.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Whether it listens and has data to serve.
    pub fn runs(&self) -> bool {
        self.answers() && self.has_cluster()
    }

    /// Whether somebody listens on its socket, which only its owner can have made.
    fn answers(&self) -> bool {
        check_unwritable(&self.state).is_ok()
            && check_private(&self.sockets(), self.owner.uid).is_ok()
            && std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    fn has_cluster(&self) -> bool {
        self.data().join("PG_VERSION").is_file()
    }

    /// The running server, where it is one that answers.
    pub fn postmaster(&self) -> Option<Postmaster> {
        let pid = self.holder().filter(|_| self.runs())?;
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let started = text.lines().nth(2)?.trim().parse().ok()?;
        Some(Postmaster { pid, started })
    }

    /// Starts it under the start lock, making the cluster first where there is none. Whoever comes meanwhile waits and finds it.
    fn start(&self, timeout: Duration) -> Result<(), LocalError> {
        let deadline = Instant::now() + timeout;
        let _lock = self.lock()?;
        if self.runs() {
            return Ok(());
        }
        self.make_own_dir(&self.dir())?;
        self.make_servers_dir(&self.sockets())?;
        self.wait_for_the_last_one(deadline)?;
        self.clear_stale_files();
        let made = if self.has_cluster() {
            Made::Before
        } else {
            self.make_cluster(self.cache)?
        };
        match (self.launch(deadline), made) {
            (Err(error), Made::Copied(entry)) => {
                tracing::warn!("made anew: a cluster that was copied from the cache: {error}");
                entry.forget();
                self.remove_cluster()?;
                self.make_cluster(false)?;
                self.launch(deadline)
            }
            (result, _) => result,
        }
    }

    fn launch(&self, deadline: Instant) -> Result<(), LocalError> {
        let child = self.spawn()?;
        self.wait_until_ready(child, deadline)
    }

    /// The lock that starting and stopping it takes.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn lock(&self) -> Result<StartLock, LocalError> {
        let (lock, path) = self.open_lock()?;
        lock.lock().at("lock", &path)?;
        Ok(StartLock(lock))
    }

    /// Held while connecting: nobody who stops an idle server does it between our look and our session.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn lock_shared(&self) -> Result<StartLock, LocalError> {
        let (lock, path) = self.open_lock()?;
        lock.lock_shared().at("lock", &path)?;
        Ok(StartLock(lock))
    }

    fn open_lock(&self) -> Result<(File, PathBuf), LocalError> {
        self.make_own_dir(&self.state)?;
        let path = self.state.join("start.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        Ok((lock, path))
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

    fn spawn(&self) -> Result<Child, LocalError> {
        let log = self.open_log()?;
        let again = log.try_clone().at("open", &self.log())?;
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
            std::thread::sleep(LOOK);
        }
    }

    fn failed(&self, reason: String) -> LocalError {
        let tail = self.log_tail(5).unwrap_or_default().join(" | ");
        let data = self.data();
        let remedy = if tail.contains("No space left on device") {
            disk::complaint(Some(&data))
        } else {
            format!(
                "if its data is damaged, remove `{}`: it is made anew",
                data.display()
            )
        };
        LocalError::Start {
            reason,
            log: self.log(),
            tail,
            remedy,
        }
    }

    /// Stops it, ending every session; `false` where it did not run. The data stays, and is found again by the next start.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn stop(&self) -> Result<bool, LocalError> {
        if check_unwritable(&self.state).is_err() {
            return Ok(false);
        }
        self.stop_under(&self.lock()?)
    }

    /// [`Self::stop`] by somebody who holds the lock.
    ///
    /// # Errors
    /// See [`Self::stop`].
    pub fn stop_under(&self, _lock: &StartLock) -> Result<bool, LocalError> {
        let deadline = Instant::now() + STOP_PATIENCE;
        let Some(pid) = self.holder() else {
            return self.end_orphans(deadline);
        };
        platform::signal(pid, platform::Signal::INT).at("signal", &self.data())?;
        // Its pid file goes a moment before it does.
        while self.is_ours(pid) {
            if Instant::now() > deadline {
                let seconds = STOP_PATIENCE.as_secs();
                return Err(LocalError::Stop(format!(
                    "process {pid} did not end within {seconds} s; `kill -QUIT {pid}` ends it at once"
                )));
            }
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }
}
