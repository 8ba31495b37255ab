//! Shows a place in an SQL file as the Rust compiler shows source: the path with line and column, the surrounding lines, and a marker.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};

/// How many lines are shown before and after the marked one.
const CONTEXT: usize = 2;
/// How many characters of a line are shown: with numbers of up to five digits they fit 80 columns.
const MAX_CHARS: usize = 70;
/// How many characters of a long line are shown before the marked place.
const LEAD: usize = 40;
const TAB: &str = "    ";

/// The excerpt of a file around a line, from 1, or around its last line, each with a line feed before it; `None` if the file has no such line.
/// Memory holds one line of the file at a time, and those that are shown.
pub(super) fn excerpt(
    file: &str,
    source: impl Read,
    line: Option<usize>,
    column: Option<usize>,
) -> Option<String> {
    let (lines, marked) = window(source, line)?;
    let (_, text) = lines.iter().find(|(number, _)| *number == marked)?;
    let marker = Marker::of(text, column);
    let gutter = lines.last()?.0.to_string().len();
    let mut shown = format!("\n{:gutter$}--> {file}:{marked}:{}", "", marker.column);
    let _ = write!(shown, "\n{:gutter$} |", "");
    for (number, text) in &lines {
        let start = if *number == marked { marker.start() } else { 0 };
        let line = format!("{number:>gutter$} | {}", clip(text, start));
        let _ = write!(shown, "\n{}", line.trim_end());
        if *number == marked {
            let _ = write!(shown, "\n{:gutter$} | {}", "", marker.under(text));
        }
    }
    Some(shown)
}

/// The lines to show, and the number of the marked one.
fn window(source: impl Read, line: Option<usize>) -> Option<(Vec<(usize, String)>, usize)> {
    let mut shown = VecDeque::new();
    let lines = BufReader::new(source).split(b'\n').map_while(Result::ok);
    for (number, text) in (1..).zip(lines) {
        if line.is_some_and(|line| number > line + CONTEXT) {
            break;
        }
        if line.is_some_and(|line| number + CONTEXT < line) {
            continue;
        }
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_start_matches('\u{feff}').trim_end();
        shown.push_back((number, text.to_owned()));
        while line.is_none() && !text.is_empty() && shown.len() > CONTEXT + 1 {
            shown.pop_front();
        }
    }
    while shown
        .back()
        .is_some_and(|(number, text)| text.is_empty() && line != Some(*number))
    {
        shown.pop_back();
    }
    let marked = line.or_else(|| shown.back().map(|(number, _)| *number))?;
    Some((shown.into(), marked))
}

/// The marked part of a line.
#[derive(Debug, PartialEq, Eq)]
struct Marker {
    /// In characters, from 1.
    column: usize,
    /// In characters.
    length: usize,
}

impl Marker {
    /// The word at a column, else the whole line.
    fn of(text: &str, column: Option<usize>) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let first = chars.iter().take_while(|c| c.is_whitespace()).count();
        match column {
            Some(column) => Self {
                column,
                length: word_length(chars.get(column - 1..).unwrap_or_default()),
            },
            None => Self {
                column: first.min(chars.len().saturating_sub(1)) + 1,
                length: (chars.len() - first).max(1),
            },
        }
    }

    /// How many characters of the line are left out at its start.
    fn start(&self) -> usize {
        if self.column > MAX_CHARS - LEAD / 2 {
            self.column - LEAD
        } else {
            0
        }
    }

    /// The line below the marked one.
    fn under(&self, text: &str) -> String {
        let start = self.start();
        let before: String = text.chars().take(self.column - 1).skip(start).collect();
        let before = plain(&before).chars().count() + usize::from(start > 0);
        let length = self.length.min(MAX_CHARS.saturating_sub(before)).max(1);
        format!("{}{}", " ".repeat(before), "^".repeat(length))
    }
}

/// The length of the identifier, number or quoted text at the start.
fn word_length(text: &[char]) -> usize {
    let end = match text.first() {
        Some(quote @ ('"' | '\'')) => {
            let end = text.iter().skip(1).position(|c| c == quote);
            end.map_or(text.len(), |end| end + 2)
        }
        _ => text
            .iter()
            .take_while(|c| c.is_alphanumeric() || "_$.".contains(**c))
            .count(),
    };
    end.max(1)
}

/// The line from a character on, without characters that a terminal does not show as one.
fn clip(text: &str, start: usize) -> String {
    let rest: String = text.chars().skip(start).collect();
    let rest = plain(&rest);
    let mut shown = if start > 0 {
        "…".to_owned()
    } else {
        String::new()
    };
    match rest.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => {
            shown.push_str(&rest[..end]);
            shown.push('…');
        }
        None => shown.push_str(&rest),
    }
    shown
}

fn plain(text: &str) -> String {
    let text = text.replace('\t', TAB);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: Option<usize>, column: Option<usize>) -> String {
        let shown = excerpt("migrations/0001_x.sql", text.as_bytes(), line, column);
        shown.expect("the line is there")
    }

    #[test]
    fn the_word_at_the_column_is_marked() {
        let text = "CREATE TABLE tags (id int);\n\nINSERT INTO\n\tnowhere.at_all VALUES (1);\n\nSELECT 1;\nSELECT 2;\n";
        assert_eq!(
            shown(text, Some(4), Some(2)),
            "\n --> migrations/0001_x.sql:4:2\n  |\n2 |\n3 | INSERT INTO\n4 |     nowhere.at_all VALUES (1);\n  \
             |     ^^^^^^^^^^^^^^\n5 |\n6 | SELECT 1;"
        );
    }

    #[test]
    fn without_a_column_the_line_is_marked() {
        let text = "SELECT 1;\n  SELECT 1 / 0;";
        assert_eq!(
            shown(text, Some(2), None),
            "\n --> migrations/0001_x.sql:2:3\n  |\n1 | SELECT 1;\n2 |   SELECT 1 / 0;\n  |   ^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn the_last_line_is_the_last_that_is_not_empty() {
        let text = "1\n2\n3\n4\n\n\n";
        assert_eq!(
            shown(text, None, None),
            "\n --> migrations/0001_x.sql:4:1\n  |\n2 | 2\n3 | 3\n4 | 4\n  | ^"
        );
    }

    #[test]
    fn long_lines_are_clipped_around_the_marker() {
        let text = format!("{} \"where ü\" {}", "x, ".repeat(100), ", y".repeat(100));
        let text = shown(&text, Some(1), Some(302));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let lines: Vec<&str> = text.lines().collect();
        let column = |line: usize, what: char| lines[line].chars().position(|c| c == what);
        assert_eq!(column(4, '^'), column(3, '"'), "{text}");
        assert!(
            lines[3].contains("| …") && lines[3].ends_with('…'),
            "{text}"
        );
        assert_eq!(lines[4].matches('^').count(), 9, "{text}");
    }

    #[test]
    fn every_line_of_any_file_can_be_marked() {
        for lines in 1..9 {
            let text = "x\n".repeat(lines);
            for line in 1..=lines {
                let text = shown(&text, Some(line), None);
                let marked = format!("{line} | x\n  | ^");
                assert!(text.contains(&marked), "{text}");
                let first = line.saturating_sub(CONTEXT).max(1);
                let expected = (line + CONTEXT).min(lines) - first + 1;
                assert_eq!(text.matches("| x").count(), expected, "{text}");
            }
        }
        assert_eq!(excerpt("f", "x\n".as_bytes(), Some(2), None), None);
        assert_eq!(excerpt("f", "\n\n".as_bytes(), None, None), None);
    }
}
