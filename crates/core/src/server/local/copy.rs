//! Copies a data directory, of which source or target may be writable for another user. It never follows a link, and reads only
//! regular files of the expected owner. A crash leaves an incomplete copy; the caller renames it only when it is complete.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, statat};

/// Number and size of the copied files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// The required owner of the source, and the new owner (user and group) of the target; `None`: this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners {
    pub(super) from: u32,
    pub(super) to: Option<(u32, u32)>,
}

/// Copies a directory to one that does not exist yet. The new directory gets its owner last, so that no other user can enter it
/// before.
///
/// # Errors
/// A system call failed, or the source contains something that `initdb` does not create.
pub(super) fn copy_tree(from: &Path, to: &Path, owners: Owners) -> io::Result<Copied> {
    let source = openat(CWD, from, open_directory(), Mode::empty())?;
    mkdirat(CWD, to, Mode::RWXU)?;
    let target = openat(CWD, to, open_directory(), Mode::empty())?;
    let mut copied = Copied::default();
    copy_entries(&source, &target, owners, &mut copied)?;
    Ok(copied)
}

fn open_directory() -> OFlags {
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
                let source = openat(from, name, open_directory(), Mode::empty())?;
                let target = openat(to, name, open_directory(), Mode::empty())?;
                copy_entries(&source, &target, owners, copied)?;
            }
            FileType::RegularFile => {
                // Opening must not block if a pipe has just replaced the file.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = File::from(openat(from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
                copied.bytes += copy_file(source, target, owners)?;
                copied.files += 1;
            }
            _ => return Err(invalid("an entry is neither a file nor a directory")),
        }
    }
    set_owner(to.as_fd(), owners)
}

fn copy_file(mut source: File, mut target: File, owners: Owners) -> io::Result<u64> {
    let metadata = source.metadata()?;
    // A file with a second hard link may be a file outside the cluster.
    if !metadata.is_file() || metadata.uid() != owners.from || metadata.nlink() != 1 {
        return Err(invalid("a file has another owner or several hard links"));
    }
    // Shares blocks if the file system can, because the standard library uses copy_file_range on Linux.
    let bytes = io::copy(&mut source, &mut target)?;
    set_owner(target.as_fd(), owners)?;
    Ok(bytes)
}

fn set_owner(file: BorrowedFd<'_>, owners: Owners) -> io::Result<()> {
    match owners.to {
        Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn invalid(why: &'static str) -> io::Error {
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
    fn files_and_empty_directories_are_copied_and_counted() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("pg_wal/empty")).expect("directories");
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
            std::fs::create_dir(&from).expect("a directory");
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
    fn files_of_other_owners_are_refused() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let from = dir.path().join("from");
        std::fs::create_dir(&from).expect("a directory");
        std::fs::write(from.join("PG_VERSION"), "15\n").expect("a file");
        let other = Owners {
            from: owners().from + 1,
            to: None,
        };
        copy_tree(&from, &dir.path().join("to"), other).expect_err("not the owner's");
    }
}
