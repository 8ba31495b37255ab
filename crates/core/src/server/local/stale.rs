//! Leftovers of the previous server: a server that is still stopping, processes whose data directory was deleted or whose postmaster
//! was killed, and files with the process id of what is now another program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::platform;
use crate::platform::Signal;
use crate::server::local::{Local, LocalError, POLL_INTERVAL, PORT};

impl Local {
    /// The process id in the pid file, if that process is a server on this data directory. Another process may have the id by now.
    pub(super) fn running_pid(&self) -> Option<u32> {
        let pid = read_pid(&self.data().join("postmaster.pid"))?;
        self.is_ours(pid).then_some(pid)
    }

    pub(super) fn is_ours(&self, pid: u32) -> bool {
        platform::is_running_in(&self.real_data(), pid, "postgres", self.owner.uid)
    }

    /// The data directory without symbolic links, as `/proc` shows it.
    fn real_data(&self) -> PathBuf {
        let dir = self.dir();
        fs::canonicalize(&dir).unwrap_or(dir).join("data")
    }

    /// Waits for a server that is stopping: it no longer listens, but uses the data directory until it ends. Ends processes that lost
    /// their data directory or postmaster.
    pub(super) fn wait_for_previous_server(&self, deadline: Instant) -> Result<(), LocalError> {
        while let Some(pid) = self.running_pid() {
            if Instant::now() > deadline {
                return Err(self.start_error(format!(
                    "process {pid} uses its data directory, but neither answers nor ends; stop it"
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        self.end_orphans(deadline).map(drop)
    }

    /// Ends processes on this data directory that have no usable postmaster. By itself, a postmaster without data ends after a minute
    /// and then removes the socket of the next server. `false`: there are no such processes.
    pub(super) fn end_orphans(&self, deadline: Instant) -> Result<bool, LocalError> {
        let orphans = || platform::processes_in(&self.real_data(), "postgres", self.owner.uid);
        let mut remaining = orphans();
        let found = !remaining.is_empty();
        for pid in &remaining {
            tracing::info!("ending process {pid}: its data directory or its postmaster is gone");
            // The process may have ended already.
            let _ = platform::signal(*pid, Signal::QUIT);
        }
        while !remaining.is_empty() {
            if Instant::now() > deadline {
                return Err(self.start_error(format!(
                    "processes {remaining:?} use its data directory and do not end; kill them"
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
            remaining = orphans();
        }
        Ok(found)
    }

    /// Removes files with the process id of another program: PostgreSQL removes files of a process that has ended, but takes any
    /// process with that id for the one that wrote them. At this point, no server of ours runs.
    pub(super) fn clear_stale_files(&self) {
        let lock = self.socket_dir().join(format!(".s.PGSQL.{PORT}.lock"));
        for file in [self.data().join("postmaster.pid"), lock] {
            if let Some(pid) = read_pid(&file).filter(|pid| platform::process_exists(*pid)) {
                let name = file.display();
                tracing::info!("removing the stale `{name}`: process {pid} is another program now");
                if let Err(error) = fs::remove_file(&file) {
                    tracing::warn!("failed to remove `{name}`: {error}");
                }
            }
        }
    }
}

fn read_pid(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().next()?.trim().parse().ok()
}
