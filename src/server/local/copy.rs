//! Copies a cluster's folder, from or to a place that another user may write: no link is ever followed, and only plain files of
//! the expected owner are read. A crash leaves a part of the copy; the caller gives it its final name only when it is whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, statat};

/// What was copied: to be compared with what there should be.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Who owns what is read, and who will own what is written (ourselves where it is not said).
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners {
    pub(super) from: u32,
    pub(super) to: Option<(u32, u32)>,
}

/// Copies a folder to one that does not exist yet. The new folder gets its owner last, so that nobody else is in it before.
///
/// # Errors
/// The operating system refused, or there is something that `initdb` does not make.
pub(super) fn copy_tree(from: &Path, to: &Path, owners: Owners) -> io::Result<Copied> {
    let source = openat(CWD, from, folder(), Mode::empty())?;
    mkdirat(CWD, to, Mode::RWXU)?;
    let target = openat(CWD, to, folder(), Mode::empty())?;
    let mut copied = Copied::default();
    copy_entries(&source, &target, owners, &mut copied)?;
    Ok(copied)
}

fn folder() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn copy_entries(
    from: &OwnedFd,
    to: &OwnedFd,
    owners: Owners,
    copied: &mut Copied,
) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let source = openat(from, name, folder(), Mode::empty())?;
                let target = openat(to, name, folder(), Mode::empty())?;
                copy_entries(&source, &target, owners, copied)?;
            }
            FileType::RegularFile => {
                // A pipe that has just taken the file's place must not hold us up.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = File::from(openat(from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
                copied.bytes += copy_file(source, target, owners)?;
                copied.files += 1;
            }
            _ => return Err(foreign("there is neither a file nor a folder")),
        }
    }
    give(to.as_fd(), owners)
}

fn copy_file(mut source: File, mut target: File, owners: Owners) -> io::Result<u64> {
    let metadata = source.metadata()?;
    // A second name of a file may be one outside of the cluster.
    if !metadata.is_file() || metadata.uid() != owners.from || metadata.nlink() != 1 {
        return Err(foreign("a file is not the server's own"));
    }
    // Shares blocks where the file system can: the standard library uses copy_file_range on Linux.
    let bytes = io::copy(&mut source, &mut target)?;
    give(target.as_fd(), owners)?;
    Ok(bytes)
}

fn give(what: BorrowedFd<'_>, owners: Owners) -> io::Result<()> {
    match owners.to {
        Some((uid, gid)) => fchown(what, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn foreign(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        Owners {
            from: rustix::process::geteuid().as_raw(),
            to: None,
        }
    }

    #[test]
    fn files_and_empty_folders_are_copied_and_counted() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("pg_wal/empty")).expect("folders");
        std::fs::write(from.join("PG_VERSION"), "15\n").expect("a file");
        std::fs::write(from.join("pg_wal/1"), "log").expect("a file");
        let to = dir.path().join("to");
        let copied = copy_tree(&from, &to, owners()).expect("copied");
        assert_eq!(copied, Copied { files: 2, bytes: 6 });
        assert!(to.join("pg_wal/empty").is_dir());
        assert_eq!(std::fs::read(to.join("pg_wal/1")).expect("it"), b"log");
        copy_tree(&from, &to, owners()).expect_err("it is there");
    }

    #[test]
    fn links_are_refused() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x").expect("a file");
        for (name, hard) in [("soft", false), ("hard", true)] {
            let from = dir.path().join(name);
            std::fs::create_dir(&from).expect("a folder");
            let link = from.join("PG_VERSION");
            if hard {
                std::fs::hard_link(&secret, link).expect("a link");
            } else {
                std::os::unix::fs::symlink(&secret, link).expect("a link");
            }
            let to = dir.path().join(format!("{name}-copy"));
            let error = copy_tree(&from, &to, owners()).expect_err("a link");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn somebody_elses_files_are_refused() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let from = dir.path().join("from");
        std::fs::create_dir(&from).expect("a folder");
        std::fs::write(from.join("PG_VERSION"), "15\n").expect("a file");
        let other = Owners {
            from: owners().from + 1,
            to: None,
        };
        copy_tree(&from, &dir.path().join("to"), other).expect_err("not the owner's");
    }
}
