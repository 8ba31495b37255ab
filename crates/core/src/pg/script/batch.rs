//! Batches of small statements, which go to the server together to save round trips.

use crate::pg::error::ErrorDetails;
use crate::pg::script::error::{LocatedError, ScriptPosition};
use crate::pg::script::splitter::{Position, Statement};

/// Maximal text of a batch with several statements, in bytes.
pub(super) const LIMIT: usize = 64 * 1024;

/// Statements that have not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: String,
    statements: Vec<Sent>,
    /// The line of the first statement whose end `standard_conforming_strings` decides.
    backslash: Option<usize>,
}

/// A statement's position in the script and offset in the batch.
#[derive(Debug)]
struct Sent {
    number: usize,
    at: Position,
    /// In bytes.
    offset: usize,
}

impl Batch {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn backslash(&self) -> Option<usize> {
        self.backslash
    }

    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether the batch has no room for the statement.
    pub fn is_full_for(&self, statement: &Statement) -> bool {
        self.text.len() + statement.text.len() > LIMIT
    }

    pub fn push(&mut self, number: usize, statement: &Statement) {
        // The last statement of a file may end in a comment.
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        if statement.has_backslash {
            self.backslash.get_or_insert(statement.at.line);
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
        self.backslash = None;
        self.text.clear();
        self.text.shrink_to(2 * LIMIT);
    }

    /// Locates an error after `succeeded` statements. The server's position takes precedence over that number: the server parses a
    /// batch as a whole, so it reports a syntax error before it runs the first statement.
    pub fn locate(&self, succeeded: usize, error: &sqlx::Error) -> LocatedError {
        let position = ErrorDetails::of(error).position;
        let place = match position {
            Some(position) => self.within(position),
            None => self
                .statements
                .get(succeeded)
                .map(|sent| ScriptPosition::Statement {
                    number: sent.number,
                    line: sent.at.line,
                }),
        };
        LocatedError::from_server(place.unwrap_or(ScriptPosition::Whole), error)
    }

    /// `position`: the server's, in characters from 1.
    fn within(&self, position: usize) -> Option<ScriptPosition> {
        let mut characters = self.text.char_indices().map(|(offset, _)| offset);
        let offset = characters
            .nth(position.saturating_sub(1))
            .unwrap_or(self.text.len());
        let sent = self
            .statements
            .iter()
            .rev()
            .find(|sent| sent.offset <= offset)?;
        let mut position = sent.at;
        for byte in self.text[sent.offset..offset].bytes() {
            position.advance(byte);
        }
        Some(ScriptPosition::Within {
            number: sent.number,
            line: position.line,
            column: Some(position.column),
        })
    }
}
