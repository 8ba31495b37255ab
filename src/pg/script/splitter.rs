//! Cuts a script into statements, and into pieces of the data that follow a `COPY … FROM stdin`, while it is read.

use std::io::{BufRead, Read};

use super::chunks::Chunks;
use super::error::{Place, Problem, Trouble};
use super::lexer::{Lexer, Step};
use super::words::Kind;

/// A statement with the `;` that ends it, if one does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub text: String,
    pub kind: Kind,
    pub at: Spot,
}

/// A place in the file; line and column (in characters) begin at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub line: usize,
    pub column: usize,
}

impl Spot {
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place behind a byte.
    pub fn pass(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.line += 1;
                self.column = 1;
            }
            // The bytes of a character after its first.
            0x80..=0xbf => {}
            _ => self.column += 1,
        }
    }
}

/// Reads a script.
#[derive(Debug)]
pub(super) struct Splitter<R> {
    chunks: Chunks<R>,
    lexer: Lexer,
    at: Spot,
    /// Where a comment began that has not ended.
    comment: Spot,
    in_data: Option<Data>,
}

/// The data after a COPY.
#[derive(Debug)]
struct Data {
    /// The line of the COPY.
    of: usize,
    /// Whether a line begins here, so that it may be the one that ends them.
    at_line_start: bool,
}

impl<R: Read> Splitter<R> {
    pub fn new(source: R) -> Self {
        Self {
            chunks: Chunks::new(source),
            lexer: Lexer::new(),
            at: Spot::START,
            comment: Spot::START,
            in_data: None,
        }
    }

    /// The next statement, unless there is none.
    pub fn next(&mut self) -> Result<Option<Statement>, Trouble> {
        self.skip_mark()?;
        self.comment = self.at;
        let mut text = Vec::new();
        let mut begin = self.at;
        loop {
            // The lexer looks one byte ahead.
            self.chunks.ensure(2).map_err(|e| self.unread(e))?;
            if self.chunks.rest().is_empty() {
                return self.last(text, begin);
            }
            match self.scan(&mut text, &mut begin) {
                None => {}
                Some(Step::End) => return self.statement(text, begin).map(Some),
                Some(Step::Command) => {
                    self.command(&text)?;
                    self.comment = self.at;
                }
                Some(_) => return Err(Trouble::at_line(self.at.line, Problem::Nul)),
            }
        }
    }

    /// Scans what has been read, up to something that matters.
    fn scan(&mut self, text: &mut Vec<u8>, begin: &mut Spot) -> Option<Step> {
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
            self.at.pass(byte);
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

    fn statement(&mut self, text: Vec<u8>, at: Spot) -> Result<Statement, Trouble> {
        let kind = self.lexer.take().kind();
        let text = String::from_utf8(text).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = at.line + valid.iter().filter(|byte| **byte == b'\n').count();
            Trouble::at_line(line, Problem::NotUtf8)
        })?;
        Ok(Statement { text, kind, at })
    }

    /// What stands after the last `;`.
    fn last(&mut self, text: Vec<u8>, begin: Spot) -> Result<Option<Statement>, Trouble> {
        if !text.is_empty() {
            return self.statement(text, begin).map(Some);
        }
        if self.lexer.in_comment() {
            let line = self.comment.line;
            return Err(Trouble::at_line(line, Problem::OpenComment));
        }
        Ok(None)
    }

    /// A byte order mark is no part of the text.
    fn skip_mark(&mut self) -> Result<(), Trouble> {
        if self.at == Spot::START {
            self.chunks.ensure(3).map_err(|e| self.unread(e))?;
            if self.chunks.rest().starts_with(b"\xef\xbb\xbf") {
                self.chunks.consume(3);
            }
        }
        Ok(())
    }

    /// Skips the two commands that pg_dump writes since its releases of August 2025, and refuses the others: they are psql's own.
    fn command(&mut self, before: &[u8]) -> Result<(), Trouble> {
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
        Err(Trouble::at_line(line, Problem::Command(command)))
    }

    /// Takes the rest of the line, of which only the beginning is handed out.
    fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        const ENOUGH: usize = 60;
        let mut line = Vec::new();
        loop {
            self.chunks.ensure(1).map_err(|e| self.unread(e))?;
            let mut rest = self.chunks.rest();
            let count = skip_line(&mut rest);
            let part = self.chunks.take(count);
            line.extend_from_slice(&part[..count.min(ENOUGH.saturating_sub(line.len()))]);
            if part.ends_with(b"\n") {
                self.at = Spot {
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

    /// Goes to the data, which begin in the line after the COPY.
    pub fn begin_data(&mut self, copy: &Statement) -> Result<(), Trouble> {
        let line = self.at.line;
        let rest = self.line()?;
        let rest = rest.trim_ascii();
        if !rest.is_empty() && !rest.starts_with(b"--") {
            return Err(Trouble::at_line(line, Problem::BeforeData));
        }
        self.in_data = Some(Data {
            of: copy.at.line,
            at_line_start: true,
        });
        Ok(())
    }

    /// The line that is read next.
    pub fn line_number(&self) -> usize {
        self.at.line
    }

    /// The next piece of the data, until the line `\.`.
    pub fn data(&mut self) -> Result<Option<&[u8]>, Trouble> {
        let Some(Data { of, at_line_start }) = self.in_data else {
            return Ok(None);
        };
        // The longest end is `\.` with CR and LF.
        self.chunks.ensure(4).map_err(|e| self.unread(e))?;
        let rest = self.chunks.rest();
        if rest.is_empty() {
            let place = Place::Line(self.at.line);
            return Err(Trouble::new(place, Problem::OpenData { of }));
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

    fn unread(&self, error: std::io::Error) -> Trouble {
        Trouble::at_line(self.at.line, Problem::Read(error))
    }
}

/// What of a chunk is data.
struct Part {
    count: usize,
    lines: usize,
    /// Behind them comes the end, so long.
    end: Option<usize>,
}

/// Up to the line that ends the data, or up to one that may be that line once more of it is there.
fn whole_lines(chunk: &[u8], mut at_line_start: bool, is_last: bool) -> Part {
    let mut rest = chunk;
    let mut lines = 0;
    let mut end = None;
    while !rest.is_empty() {
        if at_line_start && rest[0] == b'\\' {
            match ends_data(rest, is_last) {
                Ends::Yes(length) => {
                    end = Some(length);
                    break;
                }
                Ends::Perhaps => break,
                Ends::No => {}
            }
        }
        let count = skip_line(&mut rest);
        at_line_start = chunk[..chunk.len() - rest.len()].ends_with(b"\n");
        lines += usize::from(at_line_start && count > 0);
    }
    Part {
        count: chunk.len() - rest.len(),
        lines,
        end,
    }
}

enum Ends {
    Yes(usize),
    No,
    /// There is too little of the line.
    Perhaps,
}

fn ends_data(line: &[u8], is_last: bool) -> Ends {
    match line {
        [b'\\', b'.', b'\n', ..] => Ends::Yes(3),
        [b'\\', b'.', b'\r', b'\n', ..] => Ends::Yes(4),
        b"\\." | b"\\.\r" if is_last => Ends::Yes(line.len()),
        b"\\" | b"\\." | b"\\.\r" if !is_last => Ends::Perhaps,
        _ => Ends::No,
    }
}

/// Goes behind the next line's end, or to the end of the bytes; tells by how many.
fn skip_line(rest: &mut &[u8]) -> usize {
    // The standard library's search is fast in unoptimised builds as well, and reading from memory cannot fail.
    rest.skip_until(b'\n').unwrap_or_default()
}
