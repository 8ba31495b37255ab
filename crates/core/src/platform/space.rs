//! Free space on file systems.

use std::path::Path;

/// Free bytes of the file system of a path. On a tmpfs, whose files are memory, at most what the memory limit of our control
/// group leaves.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if tmpfs_free_bytes(path) == 0 {
        return Some(free);
    }
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?;
        text.trim().parse().ok()
    };
    let Some((most, now)) = read("memory.max").zip(read("memory.current")) else {
        return Some(free);
    };
    let cached =
        std::fs::read_to_string("/sys/fs/cgroup/memory.stat").map_or(0, |s| reclaimable(&s));
    Some(free.min(most.saturating_sub(now.saturating_sub(cached))))
}

/// Memory that a control group counts as used but can reclaim: inactive page cache, in bytes.
fn reclaimable(memory_stat: &str) -> u64 {
    let mut lines = memory_stat.lines();
    let pages = lines.find_map(|line| line.strip_prefix("inactive_file "));
    pages.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Size of the file system of a path, in bytes.
pub fn disk_size(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Free bytes of a tmpfs; 0 if the path is not on a tmpfs.
#[cfg(target_os = "linux")]
pub fn tmpfs_free_bytes(path: &Path) -> u64 {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    match rustix::fs::statfs(path) {
        Ok(stat) if stat.f_type == TMPFS_MAGIC => {
            stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs())
        }
        _ => 0,
    }
}

/// Free bytes of a tmpfs; macOS has none by default.
#[cfg(not(target_os = "linux"))]
pub fn tmpfs_free_bytes(_path: &Path) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reclaimable_memory_is_read() {
        assert_eq!(
            reclaimable("anon 5\ninactive_file 4096\nactive_file 7\n"),
            4096
        );
        assert_eq!(reclaimable("anon 5\n"), 0);
    }
}
