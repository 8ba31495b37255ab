//! What the last server left: one that is still going down, processes of one whose data was deleted or whose postmaster was
//! killed, and files that name a process which is somebody else now.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{LOOK, Local, LocalError, PORT};
use crate::platform::{self, Signal};

impl Local {
    /// The process that the pid file names, if it is a server on this data directory: a number alone may be anybody's by now.
    pub(super) fn holder(&self) -> Option<u32> {
        let pid = pid_in(&self.data().join("postmaster.pid"))?;
        self.is_ours(pid).then_some(pid)
    }

    pub(super) fn is_ours(&self, pid: u32) -> bool {
        platform::is_running_in(&self.real_data(), pid, "postgres", self.owner.uid)
    }

    /// As the system shows it: without links.
    fn real_data(&self) -> PathBuf {
        let dir = self.dir();
        fs::canonicalize(&dir).unwrap_or(dir).join("data")
    }

    /// A server that is going down listens no more, but holds its data until it is gone. One that lost its data or its postmaster
    /// is ended.
    pub(super) fn wait_for_the_last_one(&self, deadline: Instant) -> Result<(), LocalError> {
        while let Some(pid) = self.holder().filter(|_| self.has_cluster()) {
            if Instant::now() > deadline {
                return Err(self.failed(format!(
                    "process {pid} has its data directory, but does not answer and does not end; stop it"
                )));
            }
            std::thread::sleep(LOOK);
        }
        self.end_orphans(deadline).map(drop)
    }

    /// Ends the processes that work on this data directory without a postmaster that could be used: it would remove the next one's
    /// socket when it ends by itself, a minute after its data. `false`: there are none.
    pub(super) fn end_orphans(&self, deadline: Instant) -> Result<bool, LocalError> {
        let orphans = || platform::running_in(&self.real_data(), "postgres", self.owner.uid);
        let mut left = orphans();
        let found = !left.is_empty();
        for pid in &left {
            tracing::info!("ends process {pid}, which has lost its data directory or its parent");
            // Gone already, at best.
            let _ = platform::signal(*pid, Signal::QUIT);
        }
        while !left.is_empty() {
            if Instant::now() > deadline {
                return Err(self.failed(format!(
                    "processes {left:?} work on its data directory and do not end; kill them"
                )));
            }
            std::thread::sleep(LOOK);
            left = orphans();
        }
        Ok(found)
    }

    /// PostgreSQL clears files of a process that is gone, but takes any process of that number for the one that wrote them. Nobody
    /// of ours lives here any more.
    pub(super) fn clear_stale_files(&self) {
        let lock = self.sockets().join(format!(".s.PGSQL.{PORT}.lock"));
        for file in [self.data().join("postmaster.pid"), lock] {
            if let Some(pid) = pid_in(&file).filter(|pid| platform::exists(*pid)) {
                let name = file.display();
                tracing::info!("removes `{name}`: process {pid} is another program now");
                if let Err(error) = fs::remove_file(&file) {
                    tracing::warn!("failed to remove `{name}`: {error}");
                }
            }
        }
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().next()?.trim().parse().ok()
}
