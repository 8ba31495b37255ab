//! Derives the kind of a statement, and whether it is inside a function body, from its keywords.

/// Kind of a statement, as far as the runner must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementKind {
    /// Any other statement.
    Plain,
    /// Opens a transaction: `BEGIN`.
    Begin,
    /// Ends the transaction: `COMMIT`, `ROLLBACK` and so on.
    End,
    /// Has data after it: `COPY … FROM stdin`.
    CopyIn,
    /// Sends data to us: `COPY … TO stdout`.
    CopyOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Abort,
    And,
    As,
    Atomic,
    Begin,
    Case,
    Chain,
    Commit,
    Copy,
    Create,
    End,
    From,
    No,
    Or,
    Prepare,
    Prepared,
    Replace,
    Rollback,
    Routine,
    Start,
    Std,
    To,
    Transaction,
    Other,
}

impl Word {
    fn of(text: &[u8]) -> Self {
        match text {
            b"abort" => Self::Abort,
            b"and" => Self::And,
            b"as" => Self::As,
            b"atomic" => Self::Atomic,
            b"begin" => Self::Begin,
            b"case" => Self::Case,
            b"chain" => Self::Chain,
            b"commit" => Self::Commit,
            b"copy" => Self::Copy,
            b"create" => Self::Create,
            b"end" => Self::End,
            b"from" => Self::From,
            b"no" => Self::No,
            b"or" => Self::Or,
            b"prepare" => Self::Prepare,
            b"prepared" => Self::Prepared,
            b"replace" => Self::Replace,
            b"rollback" => Self::Rollback,
            b"function" | b"procedure" => Self::Routine,
            b"start" => Self::Start,
            b"stdin" | b"stdout" => Self::Std,
            b"to" => Self::To,
            b"transaction" => Self::Transaction,
            _ => Self::Other,
        }
    }
}

/// Number of words that decide the kind: `ROLLBACK TRANSACTION AND NO CHAIN`.
const HEAD: usize = 5;
/// Length of the longest keyword that matters; only the start of longer words is kept.
const MAX_LENGTH: usize = 12;

/// The words of a statement, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Words {
    current: [u8; MAX_LENGTH],
    length: usize,
    head: [Option<Word>; HEAD],
    last: Option<Word>,
    copy: CopyTarget,
    body: usize,
}

/// Direction and other end of a COPY, as far as they are known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CopyTarget {
    #[default]
    Unknown,
    Direction(Word),
    /// `stdin` or `stdout`.
    Client(Word),
    /// A file or a program on the server.
    Server,
}

impl Words {
    /// Adds a byte to the current word.
    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.current.get_mut(self.length) {
            *slot = byte.to_ascii_lowercase();
        }
        self.length += 1;
    }

    /// Whether the current word equals `word`.
    pub fn is(&self, word: &[u8]) -> bool {
        self.current.get(..self.length) == Some(word)
    }

    /// Ends the current word. `top`: it is outside parentheses. `named`: it is a name, because a dot precedes it.
    pub fn end(&mut self, top: bool, named: bool) {
        let length = std::mem::take(&mut self.length);
        let text = self.current.get(..length).unwrap_or_default();
        let word = if named { Word::Other } else { Word::of(text) };
        if top {
            self.record(word);
        }
    }

    fn record(&mut self, word: Word) {
        self.track_body(word);
        if self.head[0] == Some(Word::Copy) {
            self.track_copy(word);
        }
        if let Some(slot) = self.head.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(word);
        }
        self.last = Some(word);
    }

    /// Semicolons in `BEGIN ATOMIC … END` do not end the `CREATE FUNCTION` around it. `CASE` also ends with `END`; after `AS`, both
    /// are names.
    fn track_body(&mut self, word: Word) {
        match word {
            _ if self.last == Some(Word::As) => {}
            Word::Atomic if self.last == Some(Word::Begin) && self.is_routine() => self.body = 1,
            Word::Case if self.body > 0 => self.body += 1,
            Word::End if self.body > 0 => self.body -= 1,
            _ => {}
        }
    }

    fn is_routine(&self) -> bool {
        use Word::{Create, Or, Replace, Routine};
        let head = self.head.map(|word| word.unwrap_or(Word::Other));
        head.starts_with(&[Create, Routine]) || head.starts_with(&[Create, Or, Replace, Routine])
    }

    /// `FROM` and `TO` are reserved words: the first one outside parentheses and quotes gives the direction.
    fn track_copy(&mut self, word: Word) {
        self.copy = match (self.copy, word) {
            (CopyTarget::Unknown, Word::From | Word::To) => CopyTarget::Direction(word),
            (CopyTarget::Direction(direction), Word::Std) => CopyTarget::Client(direction),
            (CopyTarget::Direction(_), _) => CopyTarget::Server,
            (copy, _) => copy,
        };
    }

    /// Whether a function body is open.
    pub fn in_body(&self) -> bool {
        self.body > 0
    }

    /// The kind of the statement.
    pub fn kind(&self) -> StatementKind {
        let has = |word| self.head.contains(&Some(word));
        match (self.head[0], self.head[1]) {
            (Some(Word::Copy), _) => match self.copy {
                CopyTarget::Client(Word::From) => StatementKind::CopyIn,
                CopyTarget::Client(_) => StatementKind::CopyOut,
                _ => StatementKind::Plain,
            },
            (Some(Word::Begin), _) | (Some(Word::Start), Some(Word::Transaction)) => {
                StatementKind::Begin
            }
            (Some(Word::Prepare), Some(Word::Transaction)) => StatementKind::End,
            // Prepared transactions and savepoints: the open transaction stays open.
            (_, Some(Word::Prepared)) => StatementKind::Plain,
            (Some(Word::Rollback), _) if has(Word::To) => StatementKind::Plain,
            (Some(Word::Commit | Word::End | Word::Abort | Word::Rollback), _) => {
                // `AND CHAIN` begins another transaction immediately.
                if has(Word::Chain) && !has(Word::No) {
                    StatementKind::Plain
                } else {
                    StatementKind::End
                }
            }
            _ => StatementKind::Plain,
        }
    }
}
