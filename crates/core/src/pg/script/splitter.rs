//! Splits a script into statements and chunks of COPY data while it reads the script.

use std::io::{BufRead, Read};

use crate::pg::script::chunks::Chunks;
use crate::pg::script::error::{LocatedError, ScriptProblem};
use crate::pg::script::lexer::{Lexer, Step};
use crate::pg::script::words::StatementKind;

/// A statement, including the `;` that ends it, if any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub text: String,
    pub kind: StatementKind,
    pub at: Position,
    /// Whether `standard_conforming_strings` decides where it ends.
    pub has_backslash: bool,
}

/// A position in the file; line and column (in characters) start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub const START: Self = Self { line: 1, column: 1 };

    /// Moves behind a byte.
    pub fn advance(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.line += 1;
                self.column = 1;
            }
            // Continuation bytes of a character.
            0x80..=0xbf => {}
            _ => self.column += 1,
        }
    }
}

/// Splits a script.
#[derive(Debug)]
pub(super) struct Splitter<R> {
    chunks: Chunks<R>,
    lexer: Lexer,
    at: Position,
    /// Start of the last comment.
    comment: Position,
    in_data: Option<Data>,
}

/// State while reading the data after a COPY.
#[derive(Debug)]
struct Data {
    /// The line of the COPY.
    of: usize,
    /// Whether the next byte starts a line, which may be the end marker.
    at_line_start: bool,
}

impl<R: Read> Splitter<R> {
    pub fn new(source: R) -> Self {
        Self {
            chunks: Chunks::new(source),
            lexer: Lexer::new(),
            at: Position::START,
            comment: Position::START,
            in_data: None,
        }
    }

    /// The next statement; `None` at the end of the script.
    pub fn next(&mut self) -> Result<Option<Statement>, LocatedError> {
        self.skip_bom()?;
        self.comment = self.at;
        let mut text = Vec::new();
        let mut begin = self.at;
        loop {
            // The lexer needs one byte of lookahead.
            self.chunks.ensure(2).map_err(|e| self.read_error(e))?;
            if self.chunks.rest().is_empty() {
                return self.last_statement(text, begin);
            }
            match self.scan(&mut text, &mut begin) {
                None => {}
                Some(Step::End) => return self.statement(text, begin).map(Some),
                Some(Step::Command) => {
                    self.command(&text)?;
                    self.comment = self.at;
                }
                Some(_) => return Err(LocatedError::at_line(self.at.line, ScriptProblem::Nul)),
            }
        }
    }

    /// Scans the current chunk up to the next end of a statement, psql command or NUL byte.
    fn scan(&mut self, text: &mut Vec<u8>, begin: &mut Position) -> Option<Step> {
        let rest = self.chunks.rest();
        let end = rest.len() - usize::from(!self.chunks.is_last());
        let mut from = 0;
        let mut found = None;
        let mut to = end;
        for (at, byte) in rest[..end].iter().copied().enumerate() {
            let step = self.lexer.feed(byte, rest.get(at + 1).copied());
            match step {
                Step::Inside if from == at && text.is_empty() => *begin = self.at,
                Step::Inside | Step::End => {}
                Step::Outside => from = at + 1,
                Step::Command | Step::Nul => {
                    to = at;
                    found = Some(step);
                    break;
                }
            }
            self.at.advance(byte);
            if step == Step::Outside && !self.lexer.in_comment() {
                self.comment = self.at;
            }
            if step == Step::End {
                to = at + 1;
                found = Some(step);
                break;
            }
        }
        text.extend_from_slice(&rest[from.min(to)..to]);
        self.chunks.consume(to);
        found
    }

    fn statement(&mut self, text: Vec<u8>, at: Position) -> Result<Statement, LocatedError> {
        let has_backslash = self.lexer.has_backslash();
        let kind = self.lexer.take().kind();
        let text = String::from_utf8(text).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = at.line + valid.iter().filter(|byte| **byte == b'\n').count();
            LocatedError::at_line(line, ScriptProblem::NotUtf8)
        })?;
        Ok(Statement {
            text,
            kind,
            at,
            has_backslash,
        })
    }

    /// The text after the last `;`.
    fn last_statement(
        &mut self,
        text: Vec<u8>,
        begin: Position,
    ) -> Result<Option<Statement>, LocatedError> {
        if !text.is_empty() {
            return self.statement(text, begin).map(Some);
        }
        if self.lexer.in_comment() {
            let line = self.comment.line;
            return Err(LocatedError::at_line(line, ScriptProblem::OpenComment));
        }
        Ok(None)
    }

    /// Skips a byte order mark.
    fn skip_bom(&mut self) -> Result<(), LocatedError> {
        if self.at == Position::START {
            self.chunks.ensure(3).map_err(|e| self.read_error(e))?;
            if self.chunks.rest().starts_with(b"\xef\xbb\xbf") {
                self.chunks.consume(3);
            }
        }
        Ok(())
    }

    /// Skips the two psql commands that pg_dump writes since its releases of August 2025; others are errors.
    fn command(&mut self, before: &[u8]) -> Result<(), LocatedError> {
        let line = self.at.line;
        let mut command = self.line()?;
        while command.last().is_some_and(u8::is_ascii_whitespace) {
            command.pop();
        }
        let word = command.split(u8::is_ascii_whitespace).next();
        if before.is_empty() && matches!(word, Some(b"\\restrict" | b"\\unrestrict")) {
            return Ok(());
        }
        let command = String::from_utf8_lossy(&command).into_owned();
        Err(LocatedError::at_line(line, ScriptProblem::Command(command)))
    }

    /// Consumes the rest of the line; returns at most its first 60 bytes.
    fn line(&mut self) -> Result<Vec<u8>, LocatedError> {
        const MAX_LENGTH: usize = 60;
        let mut line = Vec::new();
        loop {
            self.chunks.ensure(1).map_err(|e| self.read_error(e))?;
            let mut rest = self.chunks.rest();
            let count = skip_line(&mut rest);
            let part = self.chunks.take(count);
            line.extend_from_slice(&part[..count.min(MAX_LENGTH.saturating_sub(line.len()))]);
            if part.ends_with(b"\n") {
                self.at = Position {
                    line: self.at.line + 1,
                    column: 1,
                };
                return Ok(line);
            }
            if count == 0 {
                return Ok(line);
            }
        }
    }

    /// Moves to the data, which begin on the line after the COPY.
    pub fn begin_data(&mut self, copy: &Statement) -> Result<(), LocatedError> {
        let line = self.at.line;
        let rest = self.line()?;
        let rest = rest.trim_ascii();
        if !rest.is_empty() && !rest.starts_with(b"--") {
            return Err(LocatedError::at_line(line, ScriptProblem::BeforeData));
        }
        self.in_data = Some(Data {
            of: copy.at.line,
            at_line_start: true,
        });
        Ok(())
    }

    /// The number of the next line.
    pub fn line_number(&self) -> usize {
        self.at.line
    }

    /// The next chunk of the data; `None` after the line `\.`.
    pub fn data(&mut self) -> Result<Option<&[u8]>, LocatedError> {
        let Some(Data { of, at_line_start }) = self.in_data else {
            return Ok(None);
        };
        // The longest end marker is `\.` with CR and LF.
        self.chunks.ensure(4).map_err(|e| self.read_error(e))?;
        let rest = self.chunks.rest();
        if rest.is_empty() {
            let line = self.at.line;
            return Err(LocatedError::at_line(line, ScriptProblem::OpenData { of }));
        }
        let part = whole_lines(rest, at_line_start, self.chunks.is_last());
        if part.count == 0
            && let Some(end) = part.end
        {
            self.chunks.consume(end);
            self.at.line += 1;
            self.in_data = None;
            return Ok(None);
        }
        self.at.line += part.lines;
        let data = self.chunks.take(part.count);
        self.in_data = Some(Data {
            of,
            at_line_start: data.ends_with(b"\n"),
        });
        Ok(Some(data))
    }

    fn read_error(&self, error: std::io::Error) -> LocatedError {
        LocatedError::at_line(self.at.line, ScriptProblem::Read(error))
    }
}

/// The part of a chunk that is data.
struct DataPart {
    count: usize,
    lines: usize,
    /// Length of the end marker after them.
    end: Option<usize>,
}

/// The data up to the end marker, or up to a line that may be an incomplete end marker.
fn whole_lines(chunk: &[u8], mut at_line_start: bool, is_last: bool) -> DataPart {
    let mut rest = chunk;
    let mut lines = 0;
    let mut end = None;
    while !rest.is_empty() {
        if at_line_start && rest[0] == b'\\' {
            match end_marker(rest, is_last) {
                EndMarker::Yes(length) => {
                    end = Some(length);
                    break;
                }
                EndMarker::Incomplete => break,
                EndMarker::No => {}
            }
        }
        let count = skip_line(&mut rest);
        at_line_start = chunk[..chunk.len() - rest.len()].ends_with(b"\n");
        lines += usize::from(at_line_start && count > 0);
    }
    DataPart {
        count: chunk.len() - rest.len(),
        lines,
        end,
    }
}

enum EndMarker {
    /// With its length.
    Yes(usize),
    No,
    /// The chunk contains too little of the line.
    Incomplete,
}

fn end_marker(line: &[u8], is_last: bool) -> EndMarker {
    match line {
        [b'\\', b'.', b'\n', ..] => EndMarker::Yes(3),
        [b'\\', b'.', b'\r', b'\n', ..] => EndMarker::Yes(4),
        b"\\." | b"\\.\r" if is_last => EndMarker::Yes(line.len()),
        b"\\" | b"\\." | b"\\.\r" if !is_last => EndMarker::Incomplete,
        _ => EndMarker::No,
    }
}

/// Skips to the start of the next line, or to the end; returns the number of bytes.
fn skip_line(rest: &mut &[u8]) -> usize {
    // The standard library's search is fast in debug builds as well; reading from memory cannot fail.
    rest.skip_until(b'\n').unwrap_or_default()
}
