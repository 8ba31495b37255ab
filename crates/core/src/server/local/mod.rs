//! The managed server: PostgreSQL binaries of this machine, disposable data, and a unix socket in a private directory.
//!
//! `<state>/` contains a directory for each major version and each combination of `server.settings` (`pg15`, `pg15-0123abcd`), with `data`, `s` (the
//! socket) and `log`. `start.lock` lets one process at a time start or stop the
//! server. If we are root, only `data` and `s` belong to the server's user: we write nothing where that user could create a link.
//! There is no registry: we find the server by connecting to its socket. It belongs to the user and outlives runs, so the next
//! `prepare` finds it within milliseconds.
//!
//! A crash leaves a `data.new` of an interrupted initdb or copy, which the next start removes; or a data directory with a stale
//! `postmaster.pid`, which PostgreSQL removes when it starts. If another program has that process id now, we remove the file. A data directory that
//! lacks files becomes `data.damaged`.

mod access;
mod cache;
mod cluster;
mod copy;
mod dirs;
mod error;
pub mod idle;
mod log;
mod places;
mod settings;
mod stale;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::cluster::ClusterOrigin;
use self::error::PathContext;
use self::log::last_lines;
use self::places::{Owner, default_state, is_server_directory, server_directory};
use crate::address::Address;
use crate::config::ServerConfig;
use crate::platform::{self, LockMode, disk};
use crate::protocol::{check_ancestors, check_private, check_unwritable};
use crate::server::binaries::Binaries;
use crate::waiting::waiting;

pub use self::error::LocalError;
pub(super) use self::places::major_version;

/// How long to wait for processes that start or stop the server.
const START_LOCK_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The process that holds the start lock.
const STARTER: &str = "another process that starts or stops the managed server";
const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";
/// `sun_path` has 108 bytes on Linux and 104 on macOS, including the final NUL.
const SOCKET_PATH_MAX: usize = 103;
/// Interval of checks while a server starts or stops.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Time limit of a stop. A fast shutdown ends sessions, and without `fsync` there is little to write.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The managed server's binaries and directories, whether it runs or not.
#[derive(Debug, Clone)]
pub struct Local {
    binaries: Binaries,
    owner: Owner,
    /// The name of the server's user if we are root.
    run_as: String,
    state: PathBuf,
    /// The name of the server's directory.
    directory: String,
    major: String,
    /// The settings of the configuration.
    settings: BTreeMap<String, String>,
    cache: bool,
}

/// The start lock. A process holds it while it starts or stops the server, or shared while it connects.
#[derive(Debug)]
pub struct StartLock(#[expect(dead_code, reason = "held for its flock")] File);

/// A running postmaster, from its pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningServer {
    /// The process id.
    pub pid: u32,
    /// Start time, in seconds since 1970.
    pub started: u64,
}

impl RunningServer {
    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap_or_default()
            .saturating_sub(Duration::from_secs(self.started))
    }
}

/// Starts the managed server if it does not run. Returns whether it did so.
///
/// # Errors
/// [`LocalError`] with the remedy.
pub async fn ensure(local: &std::sync::Arc<Local>, timeout: Duration) -> Result<bool, LocalError> {
    if local.runs() {
        return Ok(false);
    }
    let local = local.clone();
    tokio::task::spawn_blocking(move || local.start(timeout))
        .await
        .map_err(io::Error::other)
        .at("wait for the start of", Path::new("postgres"))?
}

impl Local {
    /// Finds the binaries and the directories; starts nothing.
    ///
    /// # Errors
    /// [`LocalError`] with the remedy.
    pub fn open(settings: &ServerConfig) -> Result<Self, LocalError> {
        let (bin_dir, state_dir) = (settings.bin_dir.as_deref(), settings.state_dir.as_deref());
        let binaries = match settings.version {
            Some(version) => Binaries::of_version(bin_dir, version)?,
            None => Binaries::find(bin_dir)?,
        };
        let local = Self::at(binaries, state_dir, &settings.run_as, &settings.settings)?;
        Ok(Self {
            cache: settings.cache,
            ..local
        })
    }

    fn at(
        binaries: Binaries,
        state_dir: Option<&Path>,
        run_as: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Self, LocalError> {
        let major = major_version(&binaries)?;
        let directory = server_directory(&major, settings);
        let local = Self {
            state: state_dir.map_or_else(|| default_state(&directory), Path::to_path_buf),
            directory,
            owner: Owner::find(run_as)?,
            run_as: run_as.to_owned(),
            binaries,
            major,
            settings: settings.clone(),
            cache: true,
        };
        let socket = local.socket();
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(LocalError::PathTooLong(socket));
        }
        Ok(local)
    }

    /// The server's address.
    pub fn address(&self) -> Address {
        Address::socket(self.socket_dir(), PORT, SUPERUSER)
    }

    /// The directory of the server with this major version and these settings.
    pub fn dir(&self) -> PathBuf {
        self.state.join(&self.directory)
    }

    /// The running ones of [`Self::others`].
    pub fn others_running(&self) -> Vec<Self> {
        let mut others = self.others();
        others.retain(|other| other.running_pid().is_some());
        others
    }

    /// The servers beside this one, which have another major version or other settings.
    pub fn others(&self) -> Vec<Self> {
        let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names
            .filter(|name| is_server_directory(name) && *name != self.directory)
            .collect();
        names.sort();
        let others = names.into_iter().map(|directory| Self {
            directory,
            ..self.clone()
        });
        others.collect()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// The log file.
    pub fn log(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.socket_dir().join(format!(".s.PGSQL.{PORT}"))
    }

    fn socket_dir(&self) -> PathBuf {
        self.dir().join("s")
    }

    /// The server's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Whether it accepts connections and has its data. Its pid file suffices for that: a program that cleans up the temp directory may have removed other
    /// files, but others use the server.
    pub fn runs(&self) -> bool {
        self.answers() && (self.has_cluster() || self.running_pid().is_some())
    }

    /// Whether a process listens on its socket. The checks ensure that only the server's user could create the socket.
    fn answers(&self) -> bool {
        check_ancestors(&self.state).is_ok()
            && check_unwritable(&self.state).is_ok()
            && check_private(&self.socket_dir(), self.owner.uid).is_ok()
            && std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    /// Whether the data directory has the files without which no server starts.
    fn has_cluster(&self) -> bool {
        let data = self.data();
        ["PG_VERSION", "global/pg_control"]
            .iter()
            .all(|file| data.join(file).is_file())
    }

    /// The running server, if it accepts connections.
    pub fn postmaster(&self) -> Option<RunningServer> {
        let pid = self.running_pid().filter(|_| self.runs())?;
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let started = text.lines().nth(2)?.trim().parse().ok()?;
        Some(RunningServer { pid, started })
    }

    /// Starts the server under the start lock; creates the cluster first if there is none. Other processes wait and find the server
    /// running. Returns whether it started the server.
    fn start(&self, timeout: Duration) -> Result<bool, LocalError> {
        let deadline = Instant::now() + timeout;
        let _lock = self.lock()?;
        if self.runs() {
            return Ok(false);
        }
        let _waiting = waiting("the start of the managed server", timeout);
        match self.start_locked(deadline) {
            Ok(()) => Ok(true),
            Err(error) => Err(self.closed_directory().unwrap_or(error)),
        }
    }

    fn start_locked(&self, deadline: Instant) -> Result<(), LocalError> {
        self.create_own_dir(&self.dir())?;
        self.create_server_dir(&self.socket_dir())?;
        self.wait_for_previous_server(deadline)?;
        self.clear_stale_files();
        let origin = if self.has_cluster() {
            ClusterOrigin::Existing
        } else {
            self.set_damaged_cluster_aside()?;
            self.create_cluster(self.cache)?
        };
        match (self.launch(deadline), origin) {
            (Err(error), ClusterOrigin::Copied(entry))
                if !matches!(error, LocalError::Setting { .. }) =>
            {
                tracing::warn!("creating a new cluster: the copy from the cache failed: {error}");
                entry.remove();
                self.remove_cluster()?;
                self.create_cluster(false)?;
                self.launch(deadline)
            }
            (result, _) => result,
        }
    }

    fn launch(&self, deadline: Instant) -> Result<(), LocalError> {
        let log_length = self.log_length();
        let child = self.spawn()?;
        let ready = self.wait_until_ready(child, deadline);
        ready.map_err(|error| self.setting_error(log_length).unwrap_or(error))
    }

    /// Takes the start lock exclusive.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn lock(&self) -> Result<StartLock, LocalError> {
        let (lock, path) = self.open_lock()?;
        let _waiting = waiting(STARTER, START_LOCK_LIMIT);
        platform::lock(&lock, LockMode::Exclusive, START_LOCK_LIMIT).at("lock", &path)?;
        Ok(StartLock(lock))
    }

    /// Takes the start lock shared, to connect: meanwhile the server cannot be stopped for being idle.
    ///
    /// # Errors
    /// The lock file cannot be opened or locked.
    pub fn lock_shared(&self) -> Result<StartLock, LocalError> {
        let (lock, path) = self.open_lock()?;
        let _waiting = waiting(STARTER, START_LOCK_LIMIT);
        platform::lock(&lock, LockMode::Shared, START_LOCK_LIMIT).at("lock", &path)?;
        Ok(StartLock(lock))
    }

    fn open_lock(&self) -> Result<(File, PathBuf), LocalError> {
        self.create_own_dir(&self.state)?;
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
        // A fixed environment: the server must not inherit PGDATA, LC_* or NEXTEST_ENV.
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
        for setting in self.command_line_settings() {
            command.arg("-c").arg(setting);
        }
        command.stdout(log).stderr(again);
        // While the server runs, systemd-tmpfiles skips a directory whose `flock` is held.
        let state = File::open(&self.state).at("open", &self.state)?;
        state.lock_shared().at("lock", &self.state)?;
        platform::detach(&mut command, &[state.as_raw_fd()]);
        command
            .spawn()
            .at("run", &self.binaries.program("postgres"))
    }

    fn wait_until_ready(&self, mut child: Child, deadline: Instant) -> Result<(), LocalError> {
        // The postmaster writes the status "ready" to its pid file when it accepts connections (since version 10).
        let pid_file = self.data().join("postmaster.pid");
        let pid = child.id().to_string();
        loop {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && lines.get(7) == Some(&"ready") {
                return Ok(());
            }
            if let Some(status) = child.try_wait().at("wait for", &pid_file)? {
                return Err(self.start_error(format!("the process ended with {status}")));
            }
            if Instant::now() > deadline {
                let _ = platform::signal(child.id(), platform::Signal::QUIT);
                let _ = child.wait();
                return Err(self.start_error("it was not ready in time".to_owned()));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn start_error(&self, reason: String) -> LocalError {
        let tail = self.log_tail(5).unwrap_or_default().join(" | ");
        let data = self.data();
        let remedy = if tail.contains("No space left on device") {
            disk::no_space_message(&tail, Some(&data))
        } else {
            format!(
                "if its data directory is damaged, remove `{}`; the next start creates a new one",
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

    /// Stops the server and ends all its sessions; `false` if it did not run. The data directory stays for the next start.
    ///
    /// # Errors
    /// The server did not stop in time.
    pub fn stop(&self) -> Result<bool, LocalError> {
        if check_unwritable(&self.state).is_err() {
            return Ok(false);
        }
        self.stop_locked(&self.lock()?)
    }

    /// [`Self::stop`] with the start lock already held.
    ///
    /// # Errors
    /// See [`Self::stop`].
    pub fn stop_locked(&self, _lock: &StartLock) -> Result<bool, LocalError> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let Some(pid) = self.running_pid() else {
            return self.end_orphans(deadline);
        };
        let _waiting = waiting("the managed server to stop", STOP_TIMEOUT);
        platform::signal(pid, platform::Signal::INT).at("signal", &self.data())?;
        // The pid file disappears shortly before the process.
        while self.is_ours(pid) {
            if Instant::now() > deadline {
                let seconds = STOP_TIMEOUT.as_secs();
                return Err(LocalError::Stop(format!(
                    "process {pid} did not end within {seconds} s; `kill -QUIT {pid}` ends it immediately"
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(true)
    }

    /// Stops the server and removes its data and its log; `false` if it had no directory. Other files in its directory stay.
    ///
    /// # Errors
    /// The server did not stop in time, another user may change the directory, or it cannot be removed.
    pub fn delete(&self) -> Result<bool, LocalError> {
        let dir = self.dir();
        if !dir.exists() {
            return Ok(false);
        }
        // It is there, so this only checks it.
        self.create_own_dir(&dir)?;
        let lock = self.lock()?;
        self.stop_locked(&lock)?;
        for name in ["data", "data.new", "data.damaged", "s", "log", "idle"] {
            let path = dir.join(name);
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).at("remove", &path);
                }
                _ => {}
            }
        }
        // Something else may be in it.
        let _ = fs::remove_dir(&dir);
        Ok(true)
    }
}
