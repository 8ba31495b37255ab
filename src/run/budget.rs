//! How many clones the disk has room for: clones that are made ahead of demand must never fill what a test needs.

use std::path::PathBuf;

use crate::disk;
use crate::pg::admin::Admin;
use crate::platform;
use crate::run_dir::RunFile;

/// What stays free for the server's own files, in bytes.
const RESERVE: u64 = 64 << 20;

/// What a run's clones may take, measured once.
#[derive(Debug)]
pub struct Budget {
    /// The server's data directory, where this host can see it.
    place: Option<PathBuf>,
    clone_bytes: u64,
    configured: Option<u64>,
}

impl Budget {
    /// Asks the server how large a clone is and where its data is. What it does not tell does not limit.
    pub async fn measure(admin: &mut Admin, file: &RunFile) -> Self {
        let size = admin.database_size(&file.template).await;
        let place = match admin.data_directory().await {
            Ok(path) if file.server.is_local() => Some(PathBuf::from(path)),
            _ => None,
        };
        Self {
            // A path that only another machine or container has says nothing.
            place: place.filter(|path| path.exists()),
            clone_bytes: size.unwrap_or(0).max(1 << 20),
            configured: file.disk_budget_mb.map(|mb| mb << 20),
        }
    }

    /// How many more clones fit beside `existing` ones.
    pub fn room(&self, existing: usize) -> usize {
        let on_disk = self
            .free()
            .map(|free| free.saturating_sub(RESERVE) / self.clone_bytes);
        let configured = self
            .configured
            .map(|bytes| (bytes / self.clone_bytes).saturating_sub(existing as u64));
        let room = [on_disk, configured].into_iter().flatten().min();
        room.map_or(usize::MAX, |room| {
            usize::try_from(room).unwrap_or(usize::MAX)
        })
    }

    fn free(&self) -> Option<u64> {
        platform::free_bytes(self.place.as_deref()?)
    }

    /// Says that there is too little room, and what to do.
    pub fn complaint(&self) -> String {
        let size = self.clone_bytes >> 20;
        let remedy = match self.configured {
            Some(_)
                if self
                    .free()
                    .is_none_or(|free| free > RESERVE + self.clone_bytes) =>
            {
                "raise `run.disk_budget_mb`".to_owned()
            }
            _ => disk::complaint(self.place.as_deref()),
        };
        format!(
            "too little room for clones of {size} MB each: none are made ahead, tests make their own; {remedy}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(configured: Option<u64>) -> Budget {
        Budget {
            place: None,
            clone_bytes: 8 << 20,
            configured,
        }
    }

    #[test]
    fn what_nobody_limits_is_unlimited_and_what_is_configured_counts_what_is_there() {
        assert_eq!(budget(None).room(1000), usize::MAX);
        assert_eq!(budget(Some(80 << 20)).room(4), 6);
        assert_eq!(budget(Some(80 << 20)).room(11), 0);
    }

    #[test]
    fn a_full_disk_leaves_no_room() {
        let here = Budget {
            place: Some(std::env::temp_dir()),
            clone_bytes: u64::MAX,
            configured: None,
        };
        assert_eq!(here.room(0), 0);
        assert!(here.complaint().contains("--shm-size"));
    }
}
