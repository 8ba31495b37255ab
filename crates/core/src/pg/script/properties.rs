//! Property tests of the splitter on random scripts.

use std::io::{self, Read};

use proptest::prelude::*;

use crate::pg::script::splitter::Statement;
use crate::pg::script::tests::split;

/// A reader that returns pieces of these lengths, in rotation.
struct Pieces<'a> {
    text: &'a [u8],
    lengths: Vec<usize>,
    turn: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.lengths[self.turn % self.lengths.len()];
        self.turn += 1;
        let length = length.min(buffer.len()).min(self.text.len());
        let (piece, rest) = self.text.split_at(length);
        buffer[..length].copy_from_slice(piece);
        self.text = rest;
        Ok(length)
    }
}

/// Random sequences of tokens that change the lexer's state.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let tokens = vec![
        "SELECT",
        " ",
        "\n",
        "\r\n",
        ";",
        "'",
        "''",
        "\"",
        "E'",
        "\\'",
        "\\\\",
        "$$",
        "$a$",
        "$",
        "a",
        "--",
        "/*",
        "*/",
        "/",
        "*",
        "(",
        ")",
        "1",
        "ä",
        "CREATE FUNCTION f() ",
        "BEGIN ATOMIC ",
        "CASE",
        " END",
        "COPY t FROM stdin;\n",
        "\n\\.\n",
        "\\.",
        ".",
        "\u{feff}",
        "\n\\restrict x\n",
        "COMMIT",
    ];
    let token = prop::sample::select(tokens);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes())
}

/// A script, and the lengths of the pieces that it is read in.
fn cut() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    (pieces(), prop::collection::vec(1_usize..9, 1..6))
}

proptest! {
    #[test]
    fn the_sizes_of_reads_do_not_matter((text, lengths) in cut()) {
        let whole = split(text.as_slice()).map_err(|error| error.to_string());
        let pieces = Pieces { text: &text, lengths, turn: 0 };
        let cut = split(pieces).map_err(|error| error.to_string());
        prop_assert_eq!(whole, cut);
    }

    /// Statements and data are in the text in order, each at its reported position, with only space and comments between them.
    #[test]
    fn nothing_of_a_script_is_lost(text in pieces()) {
        let Ok(parts) = split(text.as_slice()) else { return Ok(()) };
        let mut rest = text.as_slice();
        for (statement, data) in &parts {
            let passed = text.len() - rest.len();
            let at = offset_of(&text, statement);
            prop_assert!(at >= passed);
            prop_assert!(is_between(&text[passed..at]), "{:?}", String::from_utf8_lossy(&text[passed..at]));
            prop_assert!(text[at..].starts_with(statement.text.as_bytes()));
            rest = &text[at + statement.text.len()..];
            if let Some(data) = data {
                let line = rest.iter().position(|byte| *byte == b'\n').expect("a line's end");
                prop_assert!(rest[line + 1..].starts_with(data));
                rest = &rest[line + 1 + data.len()..];
                prop_assert!(rest.starts_with(b"\\."));
                rest = &rest[2..];
            }
        }
        prop_assert!(is_between(rest), "{:?}", String::from_utf8_lossy(rest));
    }
}

fn offset_of(text: &[u8], statement: &Statement) -> usize {
    let mark = text.starts_with("\u{feff}".as_bytes()) as usize * 3;
    let lines = text[mark..].split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(statement.at.line - 1).map(<[u8]>::len).sum();
    let line = String::from_utf8_lossy(&text[mark + before..]);
    let found = line.char_indices().nth(statement.at.column - 1);
    mark + before + found.expect("a character").0
}

/// Whether a text consists of space, semicolons, comments and pg_dump's commands, implemented independently of the lexer.
fn is_between(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start_matches([' ', '\n', '\r', ';']);
        if rest.is_empty() {
            return true;
        }
        if rest.starts_with("--") {
            rest = rest.split_once(['\n', '\r']).map_or("", |(_, rest)| rest);
        } else if rest.starts_with("\\restrict") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(after) = rest.strip_prefix("/*") {
            match after_comment(after) {
                Some(after) => rest = after,
                None => return false,
            }
        } else {
            return false;
        }
    }
}

fn after_comment(mut rest: &str) -> Option<&str> {
    let mut depth = 1;
    while depth > 0 {
        let at = rest.find(['/', '*'])?;
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
        } else {
            rest = &rest[1..];
        }
    }
    Some(rest)
}
