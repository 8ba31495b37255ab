//! The managed server's log: PostgreSQL's own, and a line of ours now and then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use super::error::At;
use super::{Local, LocalError};

impl Local {
    pub(super) fn open_log(&self) -> Result<File, LocalError> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)
    }

    /// Writes a line of our own into its log.
    #[cfg(feature = "cli")]
    pub(super) fn note(&self, line: &str) -> Result<(), LocalError> {
        use std::io::Write;
        let mut log = self.open_log()?;
        writeln!(log, "{line}").at("write", &self.log())
    }

    /// The last lines of its log, none where there is no log.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn log_tail(&self, count: usize) -> Result<Vec<String>, LocalError> {
        let path = self.log();
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.at("open", &path)?,
        };
        let length = file.metadata().at("read", &path)?.len();
        // Lines are rarely longer; a log may be very long.
        let most = 1024 * (count as u64).max(64);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))
            .and_then(|_| file.read_to_end(&mut bytes))
            .at("read", &path)?;
        Ok(last_lines(&String::from_utf8_lossy(&bytes), count))
    }
}

pub(super) fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| (*line).to_owned()).collect()
}
