//! Replaces files by rename: all temporary files are complete before the first rename.
//! A crash leaves at worst an unused `.tmp` file beside its target.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::init::InitError;

/// Writes every text to its path. Keeps the permissions of an existing file; follows a symbolic link instead of replacing it.
pub(super) fn replace_all<'a>(
    files: impl Iterator<Item = (&'a Path, &'a str)>,
) -> Result<(), InitError> {
    let mut staged = Vec::new();
    for (path, text) in files {
        let failed = |source| InitError::Write {
            path: path.to_owned(),
            source,
        };
        staged.push((Staged::new(path, text).map_err(failed)?, path));
    }
    for (file, path) in staged {
        file.publish().map_err(|source| InitError::Write {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// A complete temporary file, removed unless published.
struct Staged {
    temporary: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn new(path: &Path, text: &str) -> io::Result<Self> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.{}.tmp", std::process::id()));
        let mut file = File::create(&temporary)?;
        let staged = Self { temporary, target };
        if let Ok(metadata) = fs::metadata(&staged.target) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(staged)
    }

    fn publish(self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After publishing, the file does not exist any more.
        let _ = fs::remove_file(&self.temporary);
    }
}
