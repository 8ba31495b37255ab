//! Edits of a TOML text by position. All other text stays byte for byte, which re-rendering a document does not guarantee:
//! toml_edit rewrites line endings, drops a byte order mark and moves scattered dotted keys together. Pure.

use std::ops::Range;
use std::path::PathBuf;

use toml_edit::{Array, Document, InlineTable, Item, Table};

use crate::init::{InitError, Problem};

/// A problem and its byte offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditError {
    pub(super) offset: usize,
    pub(super) problem: Problem,
}

impl EditError {
    /// Converts the offset into line and column; `text` is the content of `path`.
    pub(super) fn locate(self, path: PathBuf, text: &str) -> InitError {
        let before = text.get(..self.offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        InitError::Edit {
            path,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: self.problem,
        }
    }

    /// The error for an `item` of the wrong type at the dotted `key`.
    pub(super) fn unexpected(key: &str, item: &Item, expected: &'static str) -> Self {
        let problem = Problem::Unexpected {
            key: key.to_owned(),
            expected,
            found: item.type_name(),
        };
        Self {
            offset: item.span().map_or(0, |span| span.start),
            problem,
        }
    }
}

/// One replacement; an empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    at: Range<usize>,
    text: String,
    /// Whether a blank line separates it from the text before.
    block: bool,
}

impl Splice {
    pub(super) fn replace(at: Range<usize>, text: impl Into<String>) -> Self {
        Self {
            at,
            text: text.into(),
            block: false,
        }
    }

    fn insert(offset: usize, text: impl Into<String>) -> Self {
        Self::replace(offset..offset, text)
    }
}

/// Parses `text` and keeps all positions.
pub(super) fn parse(text: &str) -> Result<Document<&str>, EditError> {
    Document::parse(text).map_err(|error| EditError {
        offset: error.span().map_or(0, |span| span.start),
        problem: Problem::Syntax(error.message().replace('\n', ", ")),
    })
}

/// `text` with all splices applied, those at the same offset in the given order; `None` if there are none.
pub(super) fn apply(text: &str, mut splices: Vec<Splice>) -> Option<String> {
    if splices.is_empty() {
        return None;
    }
    splices.sort_by_key(|splice| splice.at.start);
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut new = String::new();
    let mut done = 0;
    for Splice {
        at,
        text: insert,
        block,
    } in splices
    {
        new.push_str(&text[done..at.start]);
        if block {
            new.push_str(&gap(&new).replace('\n', newline));
        }
        new.push_str(&insert.replace('\n', newline));
        done = at.end;
    }
    new.push_str(&text[done..]);
    Some(new)
}

/// The line breaks that make a blank line after `before`; none at the start of a text.
fn gap(before: &str) -> &'static str {
    match before.trim_start_matches('\u{feff}') {
        before
            if before.trim().is_empty()
                || before.ends_with("\n\n")
                || before.ends_with("\n\r\n") =>
        {
            ""
        }
        before if before.ends_with('\n') => "\n",
        _ => "\n\n",
    }
}

/// A block of lines at the end.
pub(super) fn append(text: &str, block: &str) -> Splice {
    Splice {
        block: true,
        ..Splice::insert(text.len(), format!("{block}\n"))
    }
}

/// A line of top-level keys, before any table: below the comments at the head of the file, above the comments of its first entry.
pub(super) fn prepend(text: &str, line: &str) -> Splice {
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    let (mut head, mut offset, mut first) = (start, start, "");
    for full in text[start..].split_inclusive('\n') {
        first = full.trim();
        offset += full.len();
        match first {
            "" => head = offset,
            _ if first.starts_with("#:") => head = offset,
            _ if first.starts_with('#') => {}
            _ => break,
        }
    }
    if first.is_empty() || first.starts_with('#') {
        return append(text, line);
    }
    let next = text[head..].trim_start();
    let gap = if next.starts_with(['[', '#']) {
        "\n"
    } else {
        ""
    };
    Splice::insert(head, format!("{line}\n{gap}"))
}

/// `value` as the first element, with the layout of the current first one.
pub(super) fn push_front(text: &str, array: &Array, value: &str) -> Option<Splice> {
    let open = array.span()?.start + 1;
    let Some(first) = array.get(0).and_then(|value| value.span()) else {
        return Some(Splice::insert(open, value));
    };
    let before = &text[open..first.start];
    Some(Splice::insert(
        open,
        match before.rfind('\n') {
            Some(newline) => format!("\n{}{value},", &before[newline + 1..]),
            None if before.is_empty() => format!("{value}, "),
            None => format!("{before}{value},"),
        },
    ))
}

/// `key = value` as the first entry of an inline table.
pub(super) fn insert_inline(text: &str, table: &InlineTable, entry: &str) -> Option<Splice> {
    let open = table.span()?.start + 1;
    let end = match table.is_empty() {
        true if text[open..].starts_with('}') => " ",
        true => "",
        false if text[open..].starts_with(char::is_whitespace) => ",",
        false => ", ",
    };
    Some(Splice::insert(open, format!(" {entry}{end}")))
}

/// Sets `name.key` to true, in any form of the top-level table `name`.
pub(super) fn set_true(
    text: &str,
    root: &Table,
    name: &str,
    key: &str,
) -> Result<Option<Splice>, EditError> {
    match root.get(name).and_then(|item| item.get(key)) {
        None => add(text, root, name, key, "true"),
        Some(value) => match value.as_bool() {
            Some(true) => Ok(None),
            Some(false) => Ok(value.span().map(|span| Splice::replace(span, "true"))),
            None => {
                let full = format!("{name}.{key}");
                Err(EditError::unexpected(&full, value, "a boolean"))
            }
        },
    }
}

/// Adds the missing key `name.key` with a TOML value, in any form of the top-level table `name`.
pub(super) fn add(
    text: &str,
    root: &Table,
    name: &str,
    key: &str,
    value: &str,
) -> Result<Option<Splice>, EditError> {
    let block = format!("[{name}]\n{key} = {value}");
    let Some(item) = root.get(name) else {
        return Ok(Some(append(text, &block)));
    };
    if !item.is_table_like() {
        return Err(EditError::unexpected(name, item, "a table"));
    }
    Ok(match item {
        Item::Table(table) if table.is_dotted() => {
            Some(prepend(text, &format!("{name}.{key} = {value}")))
        }
        Item::Table(table) if table.is_implicit() => Some(append(text, &block)),
        Item::Table(table) => table
            .span()
            .map(|header| after_line(text, header.end, &format!("{key} = {value}"))),
        _ => item
            .as_inline_table()
            .and_then(|table| insert_inline(text, table, &format!("{key} = {value}"))),
    })
}

/// A new line below the line of `offset`.
fn after_line(text: &str, offset: usize, line: &str) -> Splice {
    match text[offset..].find('\n') {
        Some(newline) => Splice::insert(offset + newline + 1, format!("{line}\n")),
        None => Splice::insert(text.len(), format!("\n{line}\n")),
    }
}

/// `value` as a TOML string: literal if possible, as nextest's own documentation writes filters.
pub(super) fn quote_literal(value: &str) -> String {
    match value.contains('\'') || value.chars().any(char::is_control) {
        true => toml_edit::Value::from(value).to_string(),
        false => format!("'{value}'"),
    }
}

/// `value` as a basic TOML string, as nextest's own documentation writes commands.
pub(super) fn quote_basic(value: &str) -> String {
    match value.contains(['"', '\\']) || value.chars().any(char::is_control) {
        true => toml_edit::Value::from(value).to_string(),
        false => format!("\"{value}\""),
    }
}
