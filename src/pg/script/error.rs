//! Why a script failed, and where.

use std::fmt;
use std::io;

use sqlx::error::Error as Sqlx;

use crate::pg::error::Refusal;

/// A script that failed: its name, the place, the message. It displays all of them, in one line that reads by itself.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` failed{place}: {message}")]
pub struct ScriptError {
    /// The script's name, as whoever ran it called it.
    pub name: String,
    /// Where in it.
    pub place: Place,
    /// What the server said, with SQLSTATE, detail, hint and context; or what is wrong with the file, and the remedy.
    pub message: String,
    /// The server's SQLSTATE, where it was the server that refused.
    pub code: Option<String>,
}

/// A place in a script; lines and columns (in characters) begin at one. It displays as what follows "failed".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere in particular: the file cannot be opened.
    Whole,
    /// A line.
    Line(usize),
    /// A statement, of which the server did not say where it is wrong.
    Statement {
        /// Its number, from one.
        number: usize,
        /// The line that it begins in.
        line: usize,
    },
    /// A place in a statement, or in the data that follow it.
    Within {
        /// The statement's number, from one.
        number: usize,
        /// The line.
        line: usize,
        /// The column, unless the place is a line of data.
        column: Option<usize>,
    },
    /// The commit after the last statement: deferred constraints are checked there.
    Commit,
}

impl Place {
    /// The line, as far as it is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line(line) | Self::Statement { line, .. } | Self::Within { line, .. } => {
                Some(*line)
            }
            Self::Whole | Self::Commit => None,
        }
    }

    /// The column, where the server said it.
    pub fn column(&self) -> Option<usize> {
        match self {
            Self::Within { column, .. } => *column,
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Line(line) => write!(f, " at line {line}"),
            Self::Statement { number, line } => {
                write!(f, " in statement {number}, which begins at line {line}")
            }
            Self::Within {
                number,
                line,
                column: Some(column),
            } => {
                write!(f, " at line {line}, column {column} in statement {number}")
            }
            Self::Within { number, line, .. } => {
                write!(f, " at line {line} in statement {number}")
            }
            Self::Commit => f.write_str(" at the commit after its last statement"),
        }
    }
}

/// What a script can be wrong about without any server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("failed to read it: {0}")]
    Read(io::Error),
    #[error(
        "the text is not UTF-8; save the file as UTF-8 (only the data of a COPY may be in another encoding)"
    )]
    NotUtf8,
    #[error("there is a NUL byte in the text, which is no SQL; save the file as UTF-8")]
    Nul,
    #[error(
        "`{0}` is a command of psql, and psql's commands are not SQL; write what it does in SQL, or run the script with psql"
    )]
    Command(String),
    #[error("a comment begins here and does not end; close it with `*/`")]
    OpenComment,
    #[error(
        "the data of a COPY begin in the line after it; move what stands behind its `;` behind the line `\\.`"
    )]
    BeforeData,
    #[error("the data of the COPY at line {of} end with the file; end them with a line `\\.`")]
    OpenData { of: usize },
    #[error("the data of a COPY must be text or CSV here; binary data cannot stand in a script")]
    BinaryData,
    #[error("COPY … TO stdout has nowhere to go here; remove it, or name a file of the server")]
    CopyOut,
}

/// A [`ScriptError`] whose script has no name yet.
#[derive(Debug)]
pub(super) struct Trouble {
    place: Place,
    message: String,
    code: Option<String>,
}

impl Trouble {
    pub fn new(place: Place, problem: Problem) -> Self {
        Self {
            place,
            message: problem.to_string(),
            code: None,
        }
    }

    pub fn at_line(line: usize, problem: Problem) -> Self {
        Self::new(Place::Line(line), problem)
    }

    pub fn refused(place: Place, error: &Sqlx) -> Self {
        let refusal = Refusal::of(error);
        Self {
            place,
            message: refusal.message,
            code: refusal.code,
        }
    }

    pub fn of(self, name: &str) -> ScriptError {
        ScriptError {
            name: name.to_owned(),
            place: self.place,
            message: self.message,
            code: self.code,
        }
    }
}
