//! Reads a file in chunks; unconsumed bytes of a chunk stay before the next chunk.

use std::io::{self, Read};

/// Size of a chunk, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Chunks<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Chunks<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::with_capacity(2 * CHUNK),
            at: 0,
            ended: false,
        }
    }

    /// Bytes that were read and not consumed.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Whether the file ends after [`Self::rest`].
    pub fn is_last(&self) -> bool {
        self.ended
    }

    /// Consumes `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// Consumes and returns `count` bytes.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let start = self.at;
        self.at += count;
        &self.buffer[start..self.at]
    }

    /// Reads until [`Self::rest`] has `count` bytes (at most a chunk), or the file ends.
    pub fn ensure(&mut self, count: usize) -> io::Result<()> {
        while self.buffer.len() - self.at < count && !self.ended {
            self.buffer.drain(..self.at);
            self.at = 0;
            let kept = self.buffer.len();
            self.buffer.resize(kept + CHUNK, 0);
            let read = self.read_some(kept)?;
            self.buffer.truncate(kept + read);
            self.ended = read == 0;
        }
        Ok(())
    }

    fn read_some(&mut self, from: usize) -> io::Result<usize> {
        loop {
            match self.source.read(&mut self.buffer[from..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
