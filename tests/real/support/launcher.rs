//! Runs PostgreSQL's programs and what stands before a server, and keeps the cluster that servers are copied from.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kapsel_testdb_core::platform;
use kapsel_testdb_core::server::binaries::Binaries;

use super::server::SUPERUSER;

/// PostgreSQL's programs: those that the environment names (`scripts/test-matrix` does), else this machine's.
pub fn binaries() -> Binaries {
    let named = std::env::var_os(BIN_DIR).map(PathBuf::from);
    Binaries::find(named.as_deref()).expect("PostgreSQL's server programs")
}

/// Where programs are that a server or a pooler is started from.
pub const PROGRAMS: &str = "/usr/sbin:/usr/bin:/bin:/opt/homebrew/bin:/usr/local/bin";

/// The variable of `server.bin_dir`.
pub const BIN_DIR: &str = "KAPSEL_TESTDB_SERVER_BIN_DIR";

/// Runs PostgreSQL's programs, as `postgres` when we are root: they refuse to run as root.
pub struct Launcher {
    binaries: Binaries,
    switch_to: Option<(u32, u32)>,
}

impl Launcher {
    /// Finds the programs, and the user for them.
    pub fn new() -> Self {
        let binaries = binaries();
        let root = rustix::process::geteuid().is_root();
        let postgres = || platform::user_ids(SUPERUSER).expect("the user `postgres`");
        Self {
            binaries,
            switch_to: root.then(postgres),
        }
    }

    /// Programs that were built with TLS: a wheel's may be without, and TLS is the same in every version.
    pub fn with_tls() -> Self {
        let named = Self::new();
        if named.knows_tls() {
            return named;
        }
        Self {
            binaries: Binaries::find(None).expect("this machine's PostgreSQL"),
            ..named
        }
    }

    fn knows_tls(&self) -> bool {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.cluster());
        let output = command.args(["-C", "ssl_library"]).output();
        !output.expect("postgres").stdout.trim_ascii().is_empty()
    }

    /// Gives a file to that user.
    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.switch_to {
            chown(path, Some(uid), Some(gid)).expect("a folder given to postgres");
        }
    }

    /// One of PostgreSQL's programs.
    pub fn command(&self, program: &str) -> Command {
        self.program(self.binaries.program(program))
    }

    /// Any program, as that user and with a clean environment.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PROGRAMS);
        command.env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).process_group(0);
        if let Some((uid, gid)) = self.switch_to {
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Copies the cluster of this version.
    pub fn copy_cluster(&self, to: &Path) {
        let from = self.cluster();
        let copied = Command::new("cp").arg("-a").arg(&from).arg(to).status();
        assert!(copied.is_ok_and(|s| s.success()), "copied {from:?}");
    }

    /// The cluster that copies are made from; initdb makes it once per version of PostgreSQL and user.
    fn cluster(&self) -> PathBuf {
        let output = self.command("postgres").arg("--version").output();
        let version = String::from_utf8_lossy(&output.expect("its version").stdout).into_owned();
        let word: String = version
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .collect();
        let uid = rustix::process::geteuid().as_raw();
        let base = PathBuf::from(format!("/tmp/kapsel-testdb-tests-{uid}"));
        let _ = fs::DirBuilder::new().mode(0o711).create(&base);
        let owner = fs::metadata(&base).expect("the cache").uid();
        assert_eq!(owner, uid, "somebody else's `{}`", base.display());
        let lock = base.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(lock);
        let lock = lock.expect("the cache's lock");
        lock.lock().expect("the cache's lock");
        let folder = base.join(word);
        let cluster = folder.join("data");
        if !cluster.is_dir() {
            self.initdb(&folder);
        }
        cluster
    }

    fn initdb(&self, folder: &Path) {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder).expect("a folder");
        fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("its mode");
        self.own(folder);
        let mut command = self.command("initdb");
        command.args(["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        command.args(["--no-sync", "--wal-segsize=1", "--username", SUPERUSER]);
        command.arg("--pgdata").arg(folder.join("new"));
        let output = command.output().expect("initdb runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb failed: {text}");
        fs::rename(folder.join("new"), folder.join("data")).expect("renamed");
    }
}
