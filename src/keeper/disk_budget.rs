//! How many clones fit on the disk. Clones that are created ahead of demand must not use up the space that tests need.

use std::path::PathBuf;

use kapsel_testdb_core::pg::admin::Admin;
use kapsel_testdb_core::platform::{self, disk};
use kapsel_testdb_core::protocol::RunFile;

/// Space that stays free for the server's own files, in bytes.
pub const RESERVE: u64 = 64 << 20;

/// The disk space for the clones of a run, measured once.
#[derive(Debug)]
pub struct Budget {
    /// The server's data directory, if this host can access it.
    data_directory: Option<PathBuf>,
    clone_bytes: u64,
    configured: Option<u64>,
}

impl Budget {
    /// Asks the server for the size of a clone and its data directory. A value that it does not report is no limit.
    pub async fn measure(admin: &mut Admin, file: &RunFile) -> Self {
        let size = admin.database_size(&file.template).await;
        let data_directory = match admin.data_directory().await {
            Ok(path) if file.server.is_local() => Some(PathBuf::from(path)),
            _ => None,
        };
        Self {
            // The path may belong to another machine or container.
            data_directory: data_directory.filter(|path| path.exists()),
            clone_bytes: size.unwrap_or(0).max(1 << 20),
            configured: file.disk_budget_mb.map(|mb| mb << 20),
        }
    }

    /// How many more clones fit besides `existing` ones.
    pub fn room(&self, existing: usize) -> usize {
        self.room_beyond(RESERVE, existing)
    }

    /// How many spares may stay, at most `limit`: they must not take the space that the next run needs. The clones of the run still exist, so the disk must
    /// have room for as many new ones.
    pub fn limit_spares(&self, limit: usize) -> usize {
        limit.min(self.room_beyond(4 * RESERVE, 0))
    }

    /// How many more clones fit besides `existing` ones if `reserve` bytes of the disk stay free.
    fn room_beyond(&self, reserve: u64, existing: usize) -> usize {
        let on_disk = self
            .free()
            .map(|free| free.saturating_sub(reserve) / self.clone_bytes);
        let configured = self
            .configured
            .map(|bytes| (bytes / self.clone_bytes).saturating_sub(existing as u64));
        let room = [on_disk, configured].into_iter().flatten().min();
        room.map_or(usize::MAX, |room| {
            usize::try_from(room).unwrap_or(usize::MAX)
        })
    }

    fn free(&self) -> Option<u64> {
        platform::free_bytes(self.data_directory.as_deref()?)
    }

    /// The message about too little space, with the remedy.
    pub fn warning(&self) -> String {
        let size = self.clone_bytes >> 20;
        let remedy = match self.configured {
            Some(_)
                if self
                    .free()
                    .is_none_or(|free| free > RESERVE + self.clone_bytes) =>
            {
                "raise `run.disk_budget_mb`".to_owned()
            }
            _ => disk::full_disk_message(self.data_directory.as_deref()),
        };
        format!(
            "too little disk space for clones of {size} MB each: the keeper creates none ahead of demand, tests create their own; {remedy}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(configured: Option<u64>) -> Budget {
        Budget {
            data_directory: None,
            clone_bytes: 8 << 20,
            configured,
        }
    }

    #[test]
    fn without_limits_room_is_unlimited_and_a_configured_budget_includes_existing_clones() {
        assert_eq!(budget(None).room(1000), usize::MAX);
        assert_eq!(budget(Some(80 << 20)).room(4), 6);
        assert_eq!(budget(Some(80 << 20)).room(11), 0);
    }

    #[test]
    fn a_full_disk_leaves_no_room() {
        let here = Budget {
            data_directory: Some(std::env::temp_dir()),
            clone_bytes: u64::MAX,
            configured: None,
        };
        assert_eq!(here.room(0), 0);
        assert!(here.warning().contains("--shm-size"));
    }
}
