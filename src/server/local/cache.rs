//! Clusters as `initdb` leaves them, never started, kept for the next cold start on this machine: copying one takes a tenth of
//! making one. Copies share the system identifier, which only replication and backups look at.
//!
//! `<cache>/initdb-<key>/` holds `data` and `stamp`. It is made under a private name and renamed last, with the stamp written
//! after the data, so what has the name is whole. What a crash leaves: a folder with a name that ends in `.tmp`, removed when the
//! next cluster is stored. Whatever is wrong with the cache, the server is made without it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::copy::{Copied, Owners, copy_tree};
use super::places::Owner;
use crate::name::{digest, hex, random_word};
use crate::run_dir::{check_private, private_dir};

/// Raised when what is stored, or how, changes.
const FORMAT: &str = "1";
/// Most clusters that stay, 24 MB each; the least recently used ones go.
const KEEP: usize = 4;
/// After that long, what is being made is taken for abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A place for one cluster, perhaps an empty one.
#[derive(Debug)]
pub(super) struct Entry {
    folder: PathBuf,
    path: PathBuf,
    owner: Owner,
}

impl Entry {
    /// The place of the cluster that all of this makes: the server's version and path, and `initdb`'s options. `None`: there is no
    /// folder that we could use.
    pub(super) fn of(inputs: &[&str], owner: Owner) -> Option<Self> {
        let digest = hex(&digest(&[&[FORMAT], inputs].concat())[..8]);
        let folder = candidates().into_iter().find_map(usable)?;
        Some(Self {
            path: folder.join(format!("initdb-{digest}")),
            folder,
            owner,
        })
    }

    /// Copies the cluster to `to`, which must not exist. `false`: there is none, or none that is whole.
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
                // The age decides what goes first.
                let stamp = File::options().append(true).open(self.path.join("stamp"));
                let _ = stamp.and_then(|file| file.set_modified(SystemTime::now()));
                true
            }
            Ok(_) => self.damaged("files are missing or cut short", to),
            Err(error) => self.damaged(&error.to_string(), to),
        }
    }

    fn damaged(&self, why: &str, to: &Path) -> bool {
        tracing::warn!(
            "made anew: the cached cluster `{}`: {why}",
            self.path.display()
        );
        let _ = fs::remove_dir_all(to);
        self.forget();
        false
    }

    /// Keeps a copy of a cluster that has never been started.
    pub(super) fn store(&self, from: &Path) {
        self.tidy();
        let new = self.path.with_extension(format!("{}.tmp", random_word()));
        if let Err(error) = self.make(&new, from) {
            tracing::info!("no cluster stored at `{}`: {error}", self.path.display());
        }
        // Only there where it failed, or where somebody else was faster.
        let _ = fs::remove_dir_all(&new);
    }

    fn make(&self, new: &Path, from: &Path) -> io::Result<()> {
        let owners = Owners {
            from: self.owner.uid,
            to: None,
        };
        private_dir(new).map_err(io::Error::other)?;
        let Copied { files, bytes } = copy_tree(from, &new.join("data"), owners)?;
        fs::write(new.join("stamp"), format!("{files} {bytes}\n"))?;
        if self.stamp().is_none() {
            self.forget();
        }
        match fs::rename(new, &self.path) {
            Err(error) if self.stamp().is_none() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the cluster, under another name: who copies it at this moment notices.
    pub(super) fn forget(&self) {
        let gone = self.path.with_extension(format!("{}.tmp", random_word()));
        if fs::rename(&self.path, &gone).is_ok() {
            let _ = fs::remove_dir_all(gone);
        }
    }

    /// What the stamp says that there is.
    fn stamp(&self) -> Option<Copied> {
        check_private(&self.path, own_uid()).ok()?;
        let text = fs::read_to_string(self.path.join("stamp")).ok()?;
        let (files, bytes) = text.trim_end().split_once(' ')?;
        Some(Copied {
            files: files.parse().ok()?,
            bytes: bytes.parse().ok()?,
        })
    }

    /// Makes room for one more, and removes what a crash left.
    fn tidy(&self) {
        let age = |path: &Path| -> Option<Duration> {
            let changed = fs::metadata(path).ok()?.modified().ok()?;
            SystemTime::now().duration_since(changed).ok()
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let ours = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("initdb-"))
        });
        let (unfinished, mut whole): (Vec<_>, Vec<_>) =
            ours.partition(|path| path.extension().is_some_and(|e| e == "tmp"));
        whole.sort_by_key(|path| age(&path.join("stamp")).unwrap_or(Duration::MAX));
        let surplus = whole
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

/// The user's cache folder, else one in the temp dir: a home may be missing or read-only.
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

/// Makes the folder where it can be made and nobody else can put things there or in its place: what we copy from it becomes a
/// server that runs.
fn usable(folder: PathBuf) -> Option<PathBuf> {
    let parent = folder.parent()?;
    // Not the home itself: who has none gets none.
    match fs::create_dir(parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    let parent = fs::canonicalize(parent).ok()?;
    parent.ancestors().all(is_trusted).then_some(())?;
    let folder = parent.join(folder.file_name()?);
    private_dir(&folder).ok()?;
    let probe = folder.join(format!("probe.{}", random_word()));
    fs::create_dir(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .ok()?;
    Some(folder)
}

/// Whether only we and root decide what is in a folder, or, as in `/tmp`, nobody can replace what is another's.
fn is_trusted(folder: &Path) -> bool {
    let Ok(metadata) = fs::metadata(folder) else {
        return false;
    };
    let (writable, sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
    (metadata.uid() == 0 || metadata.uid() == own_uid()) && (!writable || sticky)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(folder: &Path) -> Entry {
        Entry {
            folder: folder.to_path_buf(),
            path: folder.join("initdb-0123"),
            owner: Owner {
                uid: own_uid(),
                switch: None,
            },
        }
    }

    fn cluster(dir: &Path) -> PathBuf {
        let cluster = dir.join("cluster");
        fs::create_dir(&cluster).expect("a folder");
        fs::write(cluster.join("PG_VERSION"), "15\n").expect("a file");
        cluster
    }

    #[test]
    fn what_was_stored_comes_back_and_what_is_damaged_does_not() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let folder = dir.path().join("cache");
        fs::create_dir(&folder).expect("a folder");
        let (entry, cluster) = (entry(&folder), cluster(dir.path()));
        let to = dir.path().join("data");
        assert!(!entry.copy_to(&to));
        entry.store(&cluster);
        entry.store(&cluster);
        assert_eq!(fs::read_dir(&folder).expect("entries").count(), 1);
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
    fn only_a_few_stay_and_what_was_abandoned_goes() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let folder = dir.path().join("cache");
        let old = folder.join("initdb-0.tmp");
        fs::create_dir_all(&old).expect("a folder");
        let past = SystemTime::now() - 2 * ABANDONED;
        let opened = File::open(&old).expect("the folder");
        opened.set_modified(past).expect("its age");
        let cluster = cluster(dir.path());
        for n in 0..KEEP + 2 {
            let mut entry = entry(&folder);
            entry.path = folder.join(format!("initdb-{n}"));
            entry.store(&cluster);
        }
        assert!(!old.exists());
        assert_eq!(fs::read_dir(&folder).expect("entries").count(), KEEP);
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temp dir");
        assert!(is_trusted(dir.path()));
        for (mode, trusted) in [(0o777, false), (0o1777, true), (0o755, true)] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(dir.path(), mode).expect("its mode");
            assert_eq!(is_trusted(dir.path()), trusted);
        }
    }
}
