//! A user's project: a folder with migrations and a configuration, and places of its own for everything that is on this host.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kapsel_testdb_core::platform::{self, Signal};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::command::BINARY;
use super::{BIN_DIR, Outcome, Server, Tool, short_temp_dir, short_temp_dir_on_disk};

/// The project; its folder goes with it, and the managed server that it may have started.
pub struct Project {
    dir: TempDir,
    root: PathBuf,
    env: BTreeMap<String, String>,
}

impl Project {
    /// Without a server's URL: `prepare` manages one, unless something says otherwise.
    pub fn new(name: &str) -> Self {
        Self::below(short_temp_dir(), name)
    }

    /// [`Self::new`], with all its directories on disk.
    pub fn on_disk(name: &str) -> Self {
        Self::below(short_temp_dir_on_disk(), name)
    }

    fn below(dir: TempDir, name: &str) -> Self {
        // The managed server's user must get through to its data.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("its mode");
        let root = dir.path().join(name);
        fs::create_dir(&root).expect("the project's folder");
        fs::create_dir(dir.path().join("home")).expect("a home");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let mut env = BTreeMap::from([
            ("HOME".to_owned(), path("home")),
            ("KAPSEL_TESTDB_RUNTIME_DIR".to_owned(), path("rt")),
            ("KAPSEL_TESTDB_SERVER_STATE_DIR".to_owned(), path("s")),
            // A server that is not there is not waited for.
            ("KAPSEL_TESTDB_SERVER_WAIT_SECS".to_owned(), "0".to_owned()),
        ]);
        if let Ok(bin_dir) = std::env::var(BIN_DIR) {
            env.insert(BIN_DIR.to_owned(), bin_dir);
        }
        Self { dir, root, env }
    }

    /// On a server, with two migrations: what most tests begin with.
    pub fn on(server: &Server) -> Self {
        Self::named("app", server)
    }

    /// [`Self::on`] under another name, which is its namespace.
    pub fn named(name: &str, server: &Server) -> Self {
        let mut project = Self::new(name);
        project.set("DATABASE_URL", &server.url());
        project.migration("0001_users", "CREATE TABLE users (id int PRIMARY KEY);");
        project.migration("0002_posts", "CREATE TABLE posts (id int PRIMARY KEY);");
        project
    }

    /// Sets a variable for every command.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Lives on the same host, as the same user, as another project: they share the folder of run directories.
    pub fn share_host_with(&mut self, other: &Self) {
        let name = "KAPSEL_TESTDB_RUNTIME_DIR";
        self.set(name, &other.env[name]);
    }

    /// The workspace's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A place beside the workspace.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the root.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        fs::write(path, text).expect("a file");
    }

    /// Writes a migration; `name` is `<version>_<description>`.
    pub fn migration(&self, name: &str, sql: &str) {
        self.write(&format!("migrations/{name}.sql"), sql);
    }

    /// Writes the configuration file.
    pub fn config(&self, text: &str) {
        self.write(".config/kapsel-testdb.toml", text);
    }

    /// A command line, words separated by spaces.
    pub fn tool(&self, words: &str) -> Tool {
        self.program(BINARY).args(words.split_whitespace())
    }

    /// Another program in the project's environment.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Tool {
        let tool = Tool::new(program, &self.root);
        self.env
            .iter()
            .fold(tool, |tool, (name, value)| tool.env(name, value))
    }

    /// Runs a command line.
    pub fn run(&self, words: &str) -> Outcome {
        self.tool(words).run()
    }

    /// Runs `prepare`, which must succeed, and names the template that it found or built.
    #[track_caller]
    pub fn prepared(&self) -> String {
        let outcome = self.run("prepare");
        outcome.code(0);
        let words: Vec<&str> = outcome.stderr.split_whitespace().collect();
        let at = words.iter().rposition(|word| *word == "template");
        let name = at.and_then(|at| words.get(at + 1));
        name.unwrap_or_else(|| panic!("no template in {outcome:#?}"))
            .to_string()
    }

    /// The run directories that are there.
    pub fn run_dirs(&self) -> Vec<PathBuf> {
        let runs = PathBuf::from(&self.env["KAPSEL_TESTDB_RUNTIME_DIR"]).join("runs");
        let entries = fs::read_dir(runs).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Where the managed server has its folders.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The managed server's folder, once there is one.
    pub fn managed_dir(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.state_dir()).ok()?.flatten();
        let mut folders = entries.map(|e| e.path()).filter(|p| p.is_dir());
        folders.next()
    }

    /// How a session on the managed server connects.
    pub fn managed_options(&self) -> PgConnectOptions {
        let dir = self.managed_dir().expect("a managed server");
        PgConnectOptions::new_without_pgpass()
            .socket(dir.join("s"))
            .username("postgres")
            .database("postgres")
    }

    fn managed_pid(&self) -> Option<u32> {
        let file = self.managed_dir()?.join("data/postmaster.pid");
        let text = fs::read_to_string(file).ok()?;
        text.lines().next()?.trim().parse().ok()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let Some(pid) = self.managed_pid() else {
            return;
        };
        let stop = self.tool("server stop --force").env_remove("DATABASE_URL");
        let _ = stop.into_command().output();
        if self.managed_pid() == Some(pid) {
            let _ = platform::signal(pid, Signal::KILL);
        }
    }
}
