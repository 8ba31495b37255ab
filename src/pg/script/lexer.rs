//! PostgreSQL's lexical rules, as far as they decide where a statement ends: one byte at a time, so that a script may be cut anywhere.
//!
//! What quotes, comments and identifiers are is in the manual's chapter "Lexical Structure". `standard_conforming_strings` is taken
//! to be on, as it is on every server since 9.1 by default.

use super::words::Words;

/// What a byte is to the statement that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Space or comment before a statement, or a `;` without one.
    Outside,
    /// Part of a statement.
    Inside,
    /// The `;` that ends a statement.
    End,
    /// A backslash outside of quotes, where SQL has none: a command of psql.
    Command,
    /// A byte that no SQL text can hold.
    Nul,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between tokens, and in those that do not matter (numbers, operators).
    Plain,
    /// In a keyword or an identifier without quotes.
    Word,
    /// In `'…'`; in `E'…'` a backslash escapes what follows.
    Quote {
        escapes: bool,
    },
    /// In `"…"`.
    Identifier,
    LineComment,
    /// Block comments nest.
    BlockComment {
        depth: usize,
    },
    /// After a `$` that may begin `$tag$`.
    Tag,
    /// In `$tag$…$tag$`, so many bytes into what may be its end.
    Dollar {
        matched: usize,
    },
}

/// What came since an `E'…'` was closed: another quote may go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Something else, or there was none.
    Other,
    /// Nothing: a second quote is an escaped one.
    Nothing,
    /// Space without a line's end.
    Space,
    /// Space with a line's end: a second quote continues the string.
    Line,
}

/// Where in a statement a script is.
#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    /// The next byte belongs to the token that has just been seen.
    skip: bool,
    /// Whether the statement has begun.
    begun: bool,
    parentheses: usize,
    since: Since,
    after_dot: bool,
    /// `$tag$`, as far as it has been read.
    tag: Vec<u8>,
    words: Words,
}

impl Lexer {
    pub fn new() -> Self {
        Self {
            state: State::Plain,
            skip: false,
            begun: false,
            parentheses: 0,
            since: Since::Other,
            after_dot: false,
            tag: Vec::new(),
            words: Words::default(),
        }
    }

    /// What the statement is that has just ended; the next one begins.
    pub fn take(&mut self) -> Words {
        if self.state == State::Word {
            self.end_word();
        }
        let words = std::mem::take(&mut self.words);
        *self = Self::new();
        words
    }

    /// Whether the text ends in a comment that nothing closed.
    pub fn in_comment(&self) -> bool {
        matches!(self.state, State::BlockComment { .. })
    }

    /// Takes a byte; `next` is the one after it, where there is one.
    pub fn feed(&mut self, byte: u8, next: Option<u8>) -> Step {
        if byte == 0 {
            return Step::Nul;
        }
        if std::mem::take(&mut self.skip) {
            return self.here();
        }
        match self.state {
            State::Plain => return self.plain(byte, next),
            State::Word => return self.word(byte, next),
            State::Tag => return self.tag(byte, next),
            State::Quote { escapes } => self.quote(byte, escapes),
            State::Dollar { matched } => self.dollar(byte, matched),
            State::BlockComment { depth } => self.block_comment(byte, next, depth),
            State::Identifier if byte == b'"' => self.state = State::Plain,
            // The line's end is what a string may be continued after.
            State::LineComment if matches!(byte, b'\n' | b'\r') => return self.plain(byte, next),
            State::Identifier | State::LineComment => {}
        }
        self.here()
    }

    fn here(&self) -> Step {
        if self.begun {
            Step::Inside
        } else {
            Step::Outside
        }
    }

    fn plain(&mut self, byte: u8, next: Option<u8>) -> Step {
        self.state = State::Plain;
        match (byte, next) {
            (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => {
                self.space(byte);
                return self.here();
            }
            (b'-', Some(b'-')) => {
                self.state = State::LineComment;
                return self.here();
            }
            (b'/', Some(b'*')) => {
                self.state = State::BlockComment { depth: 1 };
                self.skip = true;
                self.since = Since::Other;
                return self.here();
            }
            (b'\\', _) => return Step::Command,
            (b';', _) if !self.begun => return Step::Outside,
            (b';', _) if self.parentheses == 0 && !self.words.in_body() => return Step::End,
            _ => {}
        }
        self.begun = true;
        let since = std::mem::replace(&mut self.since, Since::Other);
        let after_dot = std::mem::replace(&mut self.after_dot, byte == b'.');
        match byte {
            b'\'' => {
                let escapes = matches!(since, Since::Nothing | Since::Line);
                self.state = State::Quote { escapes };
            }
            b'"' => self.state = State::Identifier,
            b'$' => self.dollar_sign(next),
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ if begins_word(byte) => {
                self.after_dot = after_dot;
                self.state = State::Word;
                self.words.push(byte);
            }
            _ => {}
        }
        Step::Inside
    }

    fn space(&mut self, byte: u8) {
        self.since = match self.since {
            Since::Other => Since::Other,
            _ if matches!(byte, b'\n' | b'\r') => Since::Line,
            Since::Nothing => Since::Space,
            since => since,
        };
    }

    fn quote(&mut self, byte: u8, escapes: bool) {
        match byte {
            b'\\' if escapes => self.skip = true,
            // A doubled quote closes the string and opens it again.
            b'\'' => {
                self.state = State::Plain;
                if escapes {
                    self.since = Since::Nothing;
                }
            }
            _ => {}
        }
    }

    fn word(&mut self, byte: u8, next: Option<u8>) -> Step {
        if begins_word(byte) || byte.is_ascii_digit() || byte == b'$' {
            self.words.push(byte);
            return Step::Inside;
        }
        if byte == b'\'' && self.words.is(b"e") {
            self.end_word();
            self.state = State::Quote { escapes: true };
            return Step::Inside;
        }
        self.end_word();
        self.plain(byte, next)
    }

    fn end_word(&mut self) {
        let named = std::mem::take(&mut self.after_dot);
        self.words.end(self.parentheses == 0, named);
    }

    fn dollar_sign(&mut self, next: Option<u8>) {
        self.tag.clear();
        self.tag.push(b'$');
        if next.is_some_and(|next| next == b'$' || begins_word(next)) {
            self.state = State::Tag;
        }
    }

    fn tag(&mut self, byte: u8, next: Option<u8>) -> Step {
        if begins_word(byte) || byte.is_ascii_digit() {
            self.tag.push(byte);
            return Step::Inside;
        }
        if byte == b'$' {
            self.tag.push(byte);
            self.state = State::Dollar { matched: 0 };
            return Step::Inside;
        }
        // No quote begins here: the `$` stood alone, and what followed it is a word.
        for at in 1..self.tag.len() {
            self.words.push(self.tag[at]);
        }
        self.state = State::Word;
        self.word(byte, next)
    }

    fn dollar(&mut self, byte: u8, matched: usize) {
        let matched = match byte {
            _ if self.tag[matched] == byte => matched + 1,
            b'$' => 1,
            _ => 0,
        };
        self.state = State::Dollar { matched };
        if matched == self.tag.len() {
            self.state = State::Plain;
        }
    }

    fn block_comment(&mut self, byte: u8, next: Option<u8>, depth: usize) {
        let depth = match (byte, next) {
            (b'/', Some(b'*')) => depth + 1,
            (b'*', Some(b'/')) => depth - 1,
            _ => return,
        };
        self.skip = true;
        self.state = match depth {
            0 => State::Plain,
            depth => State::BlockComment { depth },
        };
    }
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
