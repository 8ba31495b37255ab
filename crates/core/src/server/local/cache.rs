//! Caches clusters as `initdb` creates them, never started, for the next cold start on this machine: a copy takes a tenth of the time
//! of `initdb`. Copies share the system identifier, which only replication and backups check.
//!
//! `<cache>/initdb-<key>/` contains `data` and `stamp`. It is created under a private name and renamed last, and the stamp is written
//! after the data, so an entry with the final name is complete. A crash leaves a directory whose name ends in `.tmp`; storing the
//! next cluster removes it. If the cache fails, the cluster is created without it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::protocol::{check_ancestors, check_private, digest, hex, private_dir, random_word};
use crate::server::local::copy::{Copied, Owners, copy_tree};
use crate::server::local::places::Owner;

/// Increased when the format of entries changes.
const FORMAT: &str = "1";
/// Maximal number of clusters, 24 MB each; the least recently used ones are removed.
const KEEP: usize = 4;
/// Age after which an unfinished entry counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);

/// An entry for one cluster, which may not exist yet.
#[derive(Debug)]
pub(super) struct CacheEntry {
    directory: PathBuf,
    path: PathBuf,
    owner: Owner,
}

impl CacheEntry {
    /// The entry for the inputs of a cluster: the server's version and path, and the options of `initdb`. `None`: no directory can be
    /// used.
    pub(super) fn of(inputs: &[&str], owner: Owner) -> Option<Self> {
        let digest = hex(&digest(&[&[FORMAT], inputs].concat())[..8]);
        let directory = candidates().into_iter().find_map(create_trusted)?;
        Some(Self {
            path: directory.join(format!("initdb-{digest}")),
            directory,
            owner,
        })
    }

    /// Copies the cluster to `to`, which must not exist. `false`: there is no complete cluster.
    pub(super) fn copy_to(&self, to: &Path) -> bool {
        let Some(expected) = self.stamp() else {
            return false;
        };
        let owners = Owners {
            from: own_uid(),
            to: self.owner.switch.map(|gid| (self.owner.uid, gid)),
        };
        match copy_tree(&self.path.join("data"), to, owners) {
            Ok(copied) if copied == expected => {
                // The age decides which entries are removed.
                let stamp = File::options().append(true).open(self.path.join("stamp"));
                let _ = stamp.and_then(|file| file.set_modified(SystemTime::now()));
                true
            }
            Ok(_) => self.discard("files are missing or truncated", to),
            Err(error) => self.discard(&error.to_string(), to),
        }
    }

    fn discard(&self, why: &str, to: &Path) -> bool {
        tracing::warn!(
            "creating a new cluster: the cached cluster `{}` is damaged: {why}",
            self.path.display()
        );
        let _ = fs::remove_dir_all(to);
        self.remove();
        false
    }

    /// Stores a copy of a cluster that was never started.
    pub(super) fn store(&self, from: &Path) {
        self.evict();
        let new = self.path.with_extension(format!("{}.tmp", random_word()));
        if let Err(error) = self.create(&new, from) {
            tracing::info!(
                "failed to cache the cluster at `{}`: {error}",
                self.path.display()
            );
        }
        // It exists only if this failed, or if another process was faster.
        let _ = fs::remove_dir_all(&new);
    }

    fn create(&self, new: &Path, from: &Path) -> io::Result<()> {
        let owners = Owners {
            from: self.owner.uid,
            to: None,
        };
        private_dir(new).map_err(io::Error::other)?;
        let Copied { files, bytes } = copy_tree(from, &new.join("data"), owners)?;
        fs::write(new.join("stamp"), format!("{files} {bytes}\n"))?;
        if self.stamp().is_none() {
            self.remove();
        }
        match fs::rename(new, &self.path) {
            Err(error) if self.stamp().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// Renames the entry, then removes it: a process that is copying it notices.
    pub(super) fn remove(&self) {
        let removed = self.path.with_extension(format!("{}.tmp", random_word()));
        if fs::rename(&self.path, &removed).is_ok() {
            let _ = fs::remove_dir_all(removed);
        }
    }

    /// The number and size of files according to the stamp.
    fn stamp(&self) -> Option<Copied> {
        check_private(&self.path, own_uid()).ok()?;
        let text = fs::read_to_string(self.path.join("stamp")).ok()?;
        let (files, bytes) = text.trim_end().split_once(' ')?;
        Some(Copied {
            files: files.parse().ok()?,
            bytes: bytes.parse().ok()?,
        })
    }

    /// Makes room for one more entry, and removes abandoned ones.
    fn evict(&self) {
        let age = |path: &Path| -> Option<Duration> {
            let changed = fs::metadata(path).ok()?.modified().ok()?;
            SystemTime::now().duration_since(changed).ok()
        };
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let ours = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("initdb-"))
        });
        let (unfinished, mut complete): (Vec<_>, Vec<_>) =
            ours.partition(|path| path.extension().is_some_and(|e| e == "tmp"));
        complete.sort_by_key(|path| age(&path.join("stamp")).unwrap_or(Duration::MAX));
        let surplus = complete
            .into_iter()
            .skip(KEEP - 1)
            .filter(|path| *path != self.path);
        let abandoned = unfinished
            .into_iter()
            .filter(|path| age(path).is_some_and(|age| age > ABANDONED));
        for path in surplus.chain(abandoned) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user's cache directory, then one in the temp directory: a home may be missing or read-only.
fn candidates() -> Vec<PathBuf> {
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let home = || Some(absolute("HOME")?.join(".cache"));
    let cache = absolute("XDG_CACHE_HOME").or_else(home);
    let in_cache = cache.map(|dir| dir.join("kapsel-testdb"));
    let in_temp = std::env::temp_dir().join(format!("kapsel-testdb-{}-cache", own_uid()));
    in_cache.into_iter().chain([in_temp]).collect()
}

/// Creates the directory if no other user can write to it or replace it, because we run the clusters that we copy from it.
fn create_trusted(directory: PathBuf) -> Option<PathBuf> {
    let parent = directory.parent()?;
    // This does not create a missing home directory.
    match fs::create_dir(parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    check_ancestors(&directory).ok()?;
    let parent = fs::canonicalize(parent).ok()?;
    parent.ancestors().all(is_own).then_some(())?;
    let directory = parent.join(directory.file_name()?);
    private_dir(&directory).ok()?;
    let probe = directory.join(format!("probe.{}", random_word()));
    fs::create_dir(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .ok()?;
    Some(directory)
}

/// Whether a directory belongs to us or root. As root we would run what another user put there.
fn is_own(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|m| m.uid() == 0 || m.uid() == own_uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(directory: &Path) -> CacheEntry {
        CacheEntry {
            directory: directory.to_path_buf(),
            path: directory.join("initdb-0123"),
            owner: Owner {
                uid: own_uid(),
                switch: None,
            },
        }
    }

    fn cluster(dir: &Path) -> PathBuf {
        let cluster = dir.join("cluster");
        fs::create_dir(&cluster).expect("a directory");
        fs::write(cluster.join("PG_VERSION"), "15\n").expect("a file");
        cluster
    }

    #[test]
    fn complete_entries_are_copied_and_damaged_ones_are_not() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let directory = dir.path().join("cache");
        fs::create_dir(&directory).expect("a directory");
        let (entry, cluster) = (entry(&directory), cluster(dir.path()));
        let to = dir.path().join("data");
        assert!(!entry.copy_to(&to));
        entry.store(&cluster);
        entry.store(&cluster);
        assert_eq!(fs::read_dir(&directory).expect("entries").count(), 1);
        assert!(entry.copy_to(&to));
        fs::remove_dir_all(&to).expect("removed");
        fs::write(entry.path.join("data/PG_VERSION"), "").expect("cut short");
        assert!(!entry.copy_to(&to));
        assert!(!to.exists() && !entry.path.exists());
        entry.store(&cluster);
        fs::remove_file(entry.path.join("stamp")).expect("no stamp");
        assert!(!entry.copy_to(&to));
        entry.store(&cluster);
        assert!(entry.copy_to(&to));
    }

    #[test]
    fn surplus_and_abandoned_entries_are_removed() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let directory = dir.path().join("cache");
        let old = directory.join("initdb-0.tmp");
        fs::create_dir_all(&old).expect("a directory");
        let past = SystemTime::now() - 2 * ABANDONED;
        let opened = File::open(&old).expect("the directory");
        opened.set_modified(past).expect("its age");
        let cluster = cluster(dir.path());
        for n in 0..KEEP + 2 {
            let mut entry = entry(&directory);
            entry.path = directory.join(format!("initdb-{n}"));
            entry.store(&cluster);
        }
        assert!(!old.exists());
        assert_eq!(fs::read_dir(&directory).expect("entries").count(), KEEP);
    }
}
