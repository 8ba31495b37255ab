//! The managed server's log, which contains PostgreSQL's messages and some of our own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use crate::server::local::error::PathContext;
use crate::server::local::{Local, LocalError};

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

    /// Appends a line to the log.
    pub(super) fn log_line(&self, line: &str) -> Result<(), LocalError> {
        use std::io::Write;
        let mut log = self.open_log()?;
        writeln!(log, "{line}").at("write", &self.log())
    }

    /// The last lines of the log; empty if there is no log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log_tail(&self, count: usize) -> Result<Vec<String>, LocalError> {
        let path = self.log();
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.at("open", &path)?,
        };
        let length = file.metadata().at("read", &path)?.len();
        // Reads only the end of the log, with 1 KiB per line.
        let limit = 1024 * (count as u64).max(64);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))
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
