//! What nextest does around a setup script, without nextest.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use kapsel_testdb_core::platform::{self, Signal};
use kapsel_testdb_core::protocol::RunDir;

use super::command::BINARY;
use super::{Outcome, PATIENCE, Project, Tool, poll_until, try_poll_until};

/// The variables of a setup script; the file that takes its exports is made beside the project.
fn script(tool: Tool, project: &Project, run: &str, threads: usize) -> (Tool, PathBuf) {
    let file = project.beside(&format!("nextest-env-{}", kapsel_testdb::test_id()));
    fs::write(&file, "").expect("nextest's file");
    let tool = tool
        .env("NEXTEST_ENV", &file)
        .env("NEXTEST_RUN_ID", run)
        .env("NEXTEST_TEST_THREADS", threads.to_string());
    (tool, file)
}

/// A run whose processes are all gone: a directory that nobody holds.
#[derive(Debug)]
pub struct DeadRun {
    /// How `prepare` ended.
    pub outcome: Outcome,
    /// What it exported.
    pub exported: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Its id.
    pub run: String,
    /// Its template.
    pub template: String,
}

impl DeadRun {
    /// Runs `prepare` as a setup script without keeper: when it ends, nobody of the run is left.
    #[track_caller]
    pub fn leave(project: &Project, id: &str) -> Self {
        let (outcome, exported) = Self::leave_unread(project, id);
        let dir = run_dir(&exported);
        let (run, template) = read_run(&dir);
        Self {
            outcome,
            exported,
            dir,
            run,
            template,
        }
    }

    /// [`Self::leave`] beside sweeps that may remove the run at once, so its directory is not read. Returns the outcome and the exported variables.
    #[track_caller]
    pub fn leave_unread(project: &Project, id: &str) -> (Outcome, String) {
        let (tool, file) = script(project.tool("prepare --no-keeper"), project, id, 2);
        let outcome = tool.run();
        outcome.code(0);
        (outcome, fs::read_to_string(file).expect("nextest's file"))
    }

    /// Brings it back to life: the lock of a test process that lives as long as what comes back.
    pub fn join(&self) -> RunDir {
        RunDir::join(&self.dir).expect("the run directory")
    }

    /// The name of a clone of this run.
    pub fn clone_name(&self, serial: u32) -> String {
        let stem = self.template.replace("_template_", "_clone_");
        format!("{stem}_{}_{serial:06}", self.run)
    }
}

/// The run and the template that `run.json` names.
pub fn read_run(dir: &Path) -> (String, String) {
    let text = fs::read_to_string(dir.join("run.json")).expect("run.json");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let text = |key: &str| file[key].as_str().expect("text").to_owned();
    (text("run"), text("template"))
}

fn run_dir(exported: &str) -> PathBuf {
    let found = exported
        .lines()
        .find_map(|line| line.strip_prefix("KAPSEL_TESTDB_RUN_DIR="));
    PathBuf::from(found.unwrap_or_else(|| panic!("no run directory in `{exported}`")))
}

/// A process that looks like nextest to the keeper, and lives until it is told or this process ends.
pub struct FakeNextest {
    child: Child,
    has_keeper: bool,
    /// The run's directory.
    pub dir: PathBuf,
    /// What `prepare` exported.
    pub exported: String,
}

impl FakeNextest {
    /// Starts it, and `prepare` with a keeper below it.
    pub fn start(project: &Project, id: &str) -> Self {
        Self::start_with_threads(project, id, 2)
    }

    /// [`Self::start`] with so many tests at once.
    pub fn start_with_threads(project: &Project, id: &str, threads: usize) -> Self {
        // The keeper looks for the nearest process of this name above it: under a real nextest it must not find the real one.
        let shell = project.beside("cargo-nextest");
        if !shell.exists() {
            std::os::unix::fs::symlink("/bin/sh", &shell).expect("a link");
        }
        let unique = kapsel_testdb::test_id();
        let code = project.beside(&format!("code-{unique}"));
        let log = project.beside(&format!("log-{unique}"));
        // A shell stands between nextest and `prepare`, as in many a setup script.
        let script_text = r#"sh -c '"$0" prepare; exit $?' "$0" >"$2" 2>&1; echo $? >"$1.new"; mv "$1.new" "$1"; read _"#;
        let tool = project.program(shell).args(["-c", script_text, BINARY]);
        let (tool, file) = script(tool.args([&code, &log]), project, id, threads);
        let mut command = tool.into_command();
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().expect("a shell");
        let code = poll_until("prepare has ended", PATIENCE, || {
            fs::read_to_string(&code).map_err(|e| e.to_string())
        });
        let said = fs::read_to_string(log).unwrap_or_default();
        assert_eq!(code.trim(), "0", "{said}");
        let exported = fs::read_to_string(file).expect("nextest's file");
        Self {
            child,
            has_keeper: true,
            dir: run_dir(&exported),
            exported,
        }
    }

    /// Ends it and waits until the keeper has ended the run.
    pub fn end(mut self) {
        if let Err(last) = self.wait_for_the_end() {
            panic!("the keeper does not end: {last}\n{}", self.keeper_log());
        }
    }

    /// The run's directory goes before the keeper is done with the runtime folder, which the test is about to remove.
    fn wait_for_the_end(&mut self) -> Result<(), String> {
        let keeper = keeper_of(&self.dir);
        self.hang_up();
        if !std::mem::replace(&mut self.has_keeper, false) {
            return Ok(());
        }
        try_poll_until(PATIENCE, || gone(&self.dir))?;
        try_poll_until(PATIENCE, || match keeper {
            Some(pid) if lives(pid) => Err(format!("process {pid} lives")),
            _ => Ok(()),
        })
    }

    /// `kill -9` of nextest.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a killed child");
    }

    /// The keeper's process id.
    pub fn keeper_pid(&self) -> u32 {
        poll_until("the keeper runs", PATIENCE, || {
            keeper_of(&self.dir).ok_or("no such process".to_owned())
        })
    }

    /// `kill -9` of the keeper.
    pub fn kill_keeper(&self) {
        let pid = self.keeper_pid();
        platform::signal(pid, Signal::KILL).expect("a keeper to kill");
        poll_until("the keeper is gone", PATIENCE, || match self.has_keeper() {
            true => Err(format!("process {pid} lives")),
            false => Ok(()),
        });
    }

    /// Whether the run has a keeper.
    pub fn has_keeper(&self) -> bool {
        RunDir::join(&self.dir).is_ok_and(|dir| dir.has_keeper())
    }

    /// What the keeper has written.
    pub fn keeper_log(&self) -> String {
        let run = self.dir.file_name().expect("a run").to_string_lossy();
        let runtime = self.dir.ancestors().nth(2).expect("the runtime folder");
        let log = runtime.join("logs").join(format!("{run}.log"));
        fs::read_to_string(log).unwrap_or_default()
    }

    /// Nobody is there to end the run: do not wait for it.
    pub fn without_keeper(mut self) -> Self {
        self.has_keeper = false;
        self
    }

    fn hang_up(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.child.wait();
    }
}

/// The process that keeps a run.
pub fn keeper_of(dir: &Path) -> Option<u32> {
    RunDir::join(dir).ok()?.keeper_pid()
}

fn gone(dir: &Path) -> Result<(), String> {
    if dir.exists() {
        Err(format!("{} is still there", dir.display()))
    } else {
        Ok(())
    }
}

impl Drop for FakeNextest {
    fn drop(&mut self) {
        let _ = self.wait_for_the_end();
    }
}

/// Whether a process runs; one that only nobody has waited for does not.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    platform::process_exists(pid) && !state.starts_with('Z')
}
