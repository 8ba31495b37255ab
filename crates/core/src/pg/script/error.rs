//! Why and where a script failed.

use std::fmt;
use std::io;

use sqlx::error::Error as Sqlx;

use crate::pg::error::ErrorDetails;
use crate::pg::script::excerpt::excerpt;

/// A failed script. The message has the script's name, the cause, and the place: as an excerpt of the script if its text is known, else in words.
#[derive(Debug, thiserror::Error)]
pub struct ScriptError {
    /// The script's name, from the caller.
    pub name: String,
    /// Position of the error.
    pub position: ScriptPosition,
    /// The server's message with SQLSTATE; or the problem with the file, and the remedy.
    pub message: String,
    /// The SQLSTATE, if the server reported the error.
    pub code: Option<String>,
    shown: Box<Shown>,
}

/// What the message also shows. In a box, because an error should be small.
#[derive(Debug, Default)]
struct Shown {
    /// The server's detail, hint and context, with their labels.
    notes: Vec<(&'static str, String)>,
    /// The place in the script.
    excerpt: Option<String>,
}

impl ScriptError {
    /// An error that no script is shown for.
    pub fn new(name: &str, message: String) -> Self {
        Self {
            name: name.to_owned(),
            position: ScriptPosition::Whole,
            message,
            code: None,
            shown: Box::default(),
        }
    }

    /// The server's error at a position of a script.
    pub fn from_server(name: &str, position: ScriptPosition, error: &Sqlx) -> Self {
        LocatedError::from_server(position, error).in_script(name)
    }

    /// Adds a note to the server's.
    pub fn add_note(&mut self, note: String) {
        self.shown.notes.push(("note", note));
    }

    /// Shows the place in the script, whose text this is.
    #[must_use]
    pub fn with_source(mut self, source: impl io::Read) -> Self {
        self.shown.excerpt = match self.position {
            ScriptPosition::Whole => None,
            position => excerpt(&self.name, source, position.line(), position.column()),
        };
        self
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = match (&self.shown.excerpt, self.position) {
            (Some(_), ScriptPosition::Commit) | (None, _) => self.position.to_string(),
            (Some(_), _) => String::new(),
        };
        write!(f, "`{}` failed{position}: {}", self.name, self.message)?;
        let separator = match &self.shown.excerpt {
            Some(excerpt) => {
                f.write_str(excerpt)?;
                "\n  = "
            }
            None => "; ",
        };
        let mut notes = self.shown.notes.iter();
        notes.try_for_each(|(label, text)| write!(f, "{separator}{label}: {text}"))
    }
}

/// A position in a script. Lines and columns (in characters) start at 1. The text completes "failed…".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptPosition {
    /// The whole script, such as a file that cannot be opened.
    Whole,
    /// A line.
    Line(usize),
    /// A statement, without a position in it.
    Statement {
        /// Its number, from 1.
        number: usize,
        /// The line that it starts on.
        line: usize,
    },
    /// A position in a statement or in its COPY data.
    Within {
        /// The statement's number, from 1.
        number: usize,
        /// The line.
        line: usize,
        /// The column; none in COPY data.
        column: Option<usize>,
    },
    /// The commit after the last statement, which checks deferred constraints.
    Commit,
}

impl ScriptPosition {
    /// The line, if known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line(line) | Self::Statement { line, .. } | Self::Within { line, .. } => {
                Some(*line)
            }
            Self::Whole | Self::Commit => None,
        }
    }

    /// The column, if known.
    pub fn column(&self) -> Option<usize> {
        match self {
            Self::Within { column, .. } => *column,
            _ => None,
        }
    }
}

impl fmt::Display for ScriptPosition {
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

/// Errors in a script that we detect ourselves.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScriptProblem {
    #[error("failed to read the file: {0}")]
    Read(io::Error),
    #[error(
        "the text is not UTF-8; save the file as UTF-8 (only the data of a COPY may be in another encoding)"
    )]
    NotUtf8,
    #[error("the text contains a NUL byte, which SQL does not allow; save the file as UTF-8")]
    Nul,
    #[error("`{0}` is a psql command, not SQL; replace it with SQL, or run the script with psql")]
    Command(String),
    #[error(
        "`standard_conforming_strings` is off here, so a backslash in a string may hide its end; set it to on (for the role or the database, or \
         in the script), and write strings with escapes as E'…'"
    )]
    Backslash,
    #[error("a comment begins here and is not closed; close it with `*/`")]
    OpenComment,
    #[error(
        "COPY data begin on the line after the statement; move the text after its `;` below the line `\\.`"
    )]
    BeforeData,
    #[error("the data of the COPY at line {of} have no end; add a line `\\.` after them")]
    OpenData { of: usize },
    #[error("COPY data in a script must be text or CSV, not binary; convert them")]
    BinaryData,
    #[error(
        "COPY … TO stdout is not supported in a script; remove it, or write to a file on the server"
    )]
    CopyOut,
}

/// A [`ScriptError`] without the script's name.
#[derive(Debug)]
pub(super) struct LocatedError {
    position: ScriptPosition,
    message: String,
    notes: Vec<(&'static str, String)>,
    code: Option<String>,
}

impl LocatedError {
    pub fn new(position: ScriptPosition, problem: ScriptProblem) -> Self {
        Self {
            position,
            message: problem.to_string(),
            notes: Vec::new(),
            code: None,
        }
    }

    pub fn at_line(line: usize, problem: ScriptProblem) -> Self {
        Self::new(ScriptPosition::Line(line), problem)
    }

    pub fn from_server(position: ScriptPosition, error: &Sqlx) -> Self {
        let details = ErrorDetails::of(error);
        Self {
            position,
            message: details.message,
            notes: details.notes,
            code: details.code,
        }
    }

    pub fn in_script(self, name: &str) -> ScriptError {
        ScriptError {
            name: name.to_owned(),
            position: self.position,
            message: self.message,
            code: self.code,
            shown: Box::new(Shown {
                notes: self.notes,
                excerpt: None,
            }),
        }
    }
}
