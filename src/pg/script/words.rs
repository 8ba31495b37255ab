//! What a statement's keywords say: what kind it is, and whether a function's body is open in it.

/// What has to be done about a statement besides sending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It opens a transaction: `BEGIN`.
    Begin,
    /// It ends the transaction: `COMMIT`, `ROLLBACK` and their like.
    End,
    /// Data follow it: `COPY … FROM stdin`.
    CopyIn,
    /// It wants to send data to us: `COPY … TO stdout`.
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

/// So many words tell what a statement is: `ROLLBACK TRANSACTION AND NO CHAIN`.
const HEAD: usize = 5;
/// No keyword that matters is longer; of longer words only the beginning is kept.
const LONGEST: usize = 12;

/// The words of a statement, as they come by.
#[derive(Debug, Default)]
pub(super) struct Words {
    current: [u8; LONGEST],
    length: usize,
    head: [Option<Word>; HEAD],
    last: Option<Word>,
    copy: Copy,
    body: usize,
}

/// How far the direction of a COPY is known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Copy {
    #[default]
    Unknown,
    Direction(Word),
    /// To or from us.
    Ours(Word),
    /// To or from a file or a program.
    Others,
}

impl Words {
    /// Adds a byte to the word that is being read.
    pub fn push(&mut self, byte: u8) {
        if let Some(place) = self.current.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length += 1;
    }

    /// Whether the word so far is this one.
    pub fn is(&self, word: &[u8]) -> bool {
        self.current.get(..self.length) == Some(word)
    }

    /// Ends the word. `top`: outside of parentheses; `named`: a dot before it makes it a name, whatever it is.
    pub fn end(&mut self, top: bool, named: bool) {
        let length = std::mem::take(&mut self.length);
        let text = self.current.get(..length).unwrap_or_default();
        let word = if named { Word::Other } else { Word::of(text) };
        if top {
            self.see(word);
        }
    }

    fn see(&mut self, word: Word) {
        self.see_body(word);
        if self.head[0] == Some(Word::Copy) {
            self.see_copy(word);
        }
        if let Some(place) = self.head.iter_mut().find(|place| place.is_none()) {
            *place = Some(word);
        }
        self.last = Some(word);
    }

    /// Semicolons in `BEGIN ATOMIC … END` do not end the `CREATE FUNCTION` around it. `CASE` ends with `END` too; after `AS` both
    /// are names.
    fn see_body(&mut self, word: Word) {
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

    /// `FROM` and `TO` are reserved: outside of parentheses and quotes the first of them tells the direction.
    fn see_copy(&mut self, word: Word) {
        self.copy = match (self.copy, word) {
            (Copy::Unknown, Word::From | Word::To) => Copy::Direction(word),
            (Copy::Direction(direction), Word::Std) => Copy::Ours(direction),
            (Copy::Direction(_), _) => Copy::Others,
            (copy, _) => copy,
        };
    }

    /// Whether a function's body is open.
    pub fn in_body(&self) -> bool {
        self.body > 0
    }

    /// What the statement is.
    pub fn kind(&self) -> Kind {
        let has = |word| self.head.contains(&Some(word));
        match (self.head[0], self.head[1]) {
            (Some(Word::Copy), _) => match self.copy {
                Copy::Ours(Word::From) => Kind::CopyIn,
                Copy::Ours(_) => Kind::CopyOut,
                _ => Kind::Plain,
            },
            (Some(Word::Begin), _) | (Some(Word::Start), Some(Word::Transaction)) => Kind::Begin,
            (Some(Word::Prepare), Some(Word::Transaction)) => Kind::End,
            // To a savepoint, or of another transaction: the one that is open stays open.
            (_, Some(Word::Prepared)) => Kind::Plain,
            (Some(Word::Rollback), _) if has(Word::To) => Kind::Plain,
            (Some(Word::Commit | Word::End | Word::Abort | Word::Rollback), _) => {
                // A chained one begins at once.
                if has(Word::Chain) && !has(Word::No) {
                    Kind::Plain
                } else {
                    Kind::End
                }
            }
            _ => Kind::Plain,
        }
    }
}
