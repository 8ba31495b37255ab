//! Small statements that go to the server together, so that a script of many lines does not wait for as many answers.

use super::error::{Place, Trouble};
use super::splitter::{Spot, Statement};
use crate::pg::error::Refusal;

/// Beyond so much text, in bytes, a batch takes no other statement.
pub(super) const LIMIT: usize = 64 * 1024;

/// Statements that have not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: String,
    statements: Vec<Sent>,
}

/// Where a statement is in the script, and in the batch.
#[derive(Debug)]
struct Sent {
    number: usize,
    at: Spot,
    /// In bytes.
    offset: usize,
}

impl Batch {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether the statement would make it too long.
    pub fn is_full_for(&self, statement: &Statement) -> bool {
        self.text.len() + statement.text.len() > LIMIT
    }

    pub fn push(&mut self, number: usize, statement: &Statement) {
        // The last statement of a file may end in a comment.
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.statements.push(Sent {
            number,
            at: statement.at,
            offset: self.text.len(),
        });
        self.text.push_str(&statement.text);
    }

    pub fn clear(&mut self) {
        self.statements.clear();
        self.text.clear();
        self.text.shrink_to(2 * LIMIT);
    }

    /// What failed after so many statements had succeeded. The server's position tells more than their number: it parses a batch as
    /// a whole, so a syntax error comes before the first one runs.
    pub fn trouble(&self, succeeded: usize, error: &sqlx::Error) -> Trouble {
        let position = Refusal::of(error).position;
        let place = match position {
            Some(position) => self.within(position),
            None => self.statements.get(succeeded).map(|sent| Place::Statement {
                number: sent.number,
                line: sent.at.line,
            }),
        };
        Trouble::refused(place.unwrap_or(Place::Whole), error)
    }

    /// The server's position: in characters, from one.
    fn within(&self, position: usize) -> Option<Place> {
        let mut characters = self.text.char_indices().map(|(offset, _)| offset);
        let offset = characters
            .nth(position.saturating_sub(1))
            .unwrap_or(self.text.len());
        let sent = self
            .statements
            .iter()
            .rev()
            .find(|sent| sent.offset <= offset)?;
        let mut spot = sent.at;
        for byte in self.text[sent.offset..offset].bytes() {
            spot.pass(byte);
        }
        Some(Place::Within {
            number: sent.number,
            line: spot.line,
            column: Some(spot.column),
        })
    }
}
