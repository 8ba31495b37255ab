//! PostgreSQL's lexical rules, as far as they decide where a statement ends. The lexer reads one byte at a time, so chunks may end
//! anywhere.
//!
//! The rules are in the manual's chapter "Lexical Structure". The lexer assumes that `standard_conforming_strings` is on, the
//! default since 9.1; where that decides, the runner checks it.

use crate::pg::script::words::Words;

/// The role of a byte in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Space or comment before a statement, or a `;` without a statement.
    Outside,
    /// Part of a statement.
    Inside,
    /// The `;` that ends a statement.
    End,
    /// A backslash outside quotes, which starts a psql command.
    Command,
    /// A NUL byte, which SQL does not allow.
    Nul,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between tokens, and in tokens that do not matter (numbers, operators).
    Plain,
    /// In a keyword or an unquoted identifier.
    Word,
    /// In `'…'`; in `E'…'` a backslash escapes the next byte.
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
    /// After a `$` that may start `$tag$`.
    Tag,
    /// In `$tag$…$tag$`, with the number of bytes that match its end.
    Dollar {
        matched: usize,
    },
}

/// What followed the end of an `E'…'`: another quote may continue the string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterString {
    /// Another token, or there was no `E'…'`.
    Other,
    /// Nothing: a second quote is an escaped quote.
    Nothing,
    /// Space without a newline.
    Space,
    /// Space with a newline: a second quote continues the string.
    Newline,
}

/// The state of the lexer.
#[derive(Debug)]
pub(super) struct Lexer {
    state: State,
    /// Whether the next byte belongs to the current token.
    skip: bool,
    /// Whether the statement has begun.
    begun: bool,
    parentheses: usize,
    after_string: AfterString,
    after_dot: bool,
    /// Whether a string without escapes has a backslash.
    has_backslash: bool,
    /// `$tag$`, as far as it was read.
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
            after_string: AfterString::Other,
            after_dot: false,
            has_backslash: false,
            tag: Vec::new(),
            words: Words::default(),
        }
    }

    /// Ends the statement: returns its words, and resets the lexer for the next statement.
    pub fn take(&mut self) -> Words {
        if self.state == State::Word {
            self.end_word();
        }
        let words = std::mem::take(&mut self.words);
        *self = Self::new();
        words
    }

    /// Whether a string of the statement has a backslash that is no escape, as long as `standard_conforming_strings` is on.
    pub fn has_backslash(&self) -> bool {
        self.has_backslash
    }

    /// Whether a block comment is open.
    pub fn in_comment(&self) -> bool {
        matches!(self.state, State::BlockComment { .. })
    }

    /// Reads a byte; `next` is the byte after it, if any.
    pub fn feed(&mut self, byte: u8, next: Option<u8>) -> Step {
        if byte == 0 {
            return Step::Nul;
        }
        if std::mem::take(&mut self.skip) {
            return self.inside_or_outside();
        }
        match self.state {
            State::Plain => return self.plain(byte, next),
            State::Word => return self.word(byte, next),
            State::Tag => return self.tag(byte, next),
            State::Quote { escapes } => self.quote(byte, escapes),
            State::Dollar { matched } => self.dollar(byte, matched),
            State::BlockComment { depth } => self.block_comment(byte, next, depth),
            State::Identifier if byte == b'"' => self.state = State::Plain,
            // A string may continue after a newline.
            State::LineComment if matches!(byte, b'\n' | b'\r') => return self.plain(byte, next),
            State::Identifier | State::LineComment => {}
        }
        self.inside_or_outside()
    }

    fn inside_or_outside(&self) -> Step {
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
                return self.inside_or_outside();
            }
            (b'-', Some(b'-')) => {
                self.state = State::LineComment;
                return self.inside_or_outside();
            }
            (b'/', Some(b'*')) => {
                self.state = State::BlockComment { depth: 1 };
                self.skip = true;
                self.after_string = AfterString::Other;
                return self.inside_or_outside();
            }
            (b'\\', _) => return Step::Command,
            (b';', _) if !self.begun => return Step::Outside,
            (b';', _) if self.parentheses == 0 && !self.words.in_body() => return Step::End,
            _ => {}
        }
        self.begun = true;
        let after_string = std::mem::replace(&mut self.after_string, AfterString::Other);
        let after_dot = std::mem::replace(&mut self.after_dot, byte == b'.');
        match byte {
            b'\'' => {
                let escapes = matches!(after_string, AfterString::Nothing | AfterString::Newline);
                self.state = State::Quote { escapes };
            }
            b'"' => self.state = State::Identifier,
            b'$' => self.dollar_sign(next),
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ if starts_word(byte) => {
                self.after_dot = after_dot;
                self.state = State::Word;
                self.words.push(byte);
            }
            _ => {}
        }
        Step::Inside
    }

    fn space(&mut self, byte: u8) {
        self.after_string = match self.after_string {
            AfterString::Other => AfterString::Other,
            _ if matches!(byte, b'\n' | b'\r') => AfterString::Newline,
            AfterString::Nothing => AfterString::Space,
            since => since,
        };
    }

    fn quote(&mut self, byte: u8, escapes: bool) {
        match byte {
            b'\\' if escapes => self.skip = true,
            b'\\' => self.has_backslash = true,
            // A doubled quote closes the string and opens it again.
            b'\'' => {
                self.state = State::Plain;
                if escapes {
                    self.after_string = AfterString::Nothing;
                }
            }
            _ => {}
        }
    }

    fn word(&mut self, byte: u8, next: Option<u8>) -> Step {
        if starts_word(byte) || byte.is_ascii_digit() || byte == b'$' {
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
        if next.is_some_and(|next| next == b'$' || starts_word(next)) {
            self.state = State::Tag;
        }
    }

    fn tag(&mut self, byte: u8, next: Option<u8>) -> Step {
        if starts_word(byte) || byte.is_ascii_digit() {
            self.tag.push(byte);
            return Step::Inside;
        }
        if byte == b'$' {
            self.tag.push(byte);
            self.state = State::Dollar { matched: 0 };
            return Step::Inside;
        }
        // No quote starts here: the `$` was a single character, and the bytes after it are a word.
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

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
