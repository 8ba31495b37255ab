//! What the screens of all commands share: styles, numbers, ages and sizes, rows, and texts cut to a width. The printer removes the
//! styles where they are not wanted.

use anstyle::{AnsiColor, Style};

/// The width of a screen that is no terminal, in columns.
pub const WIDTH: usize = 80;

/// What is fine.
pub const OK: Style = AnsiColor::Green.on_default();
/// What is worth a look.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What failed, or is removed.
pub const FAILURE: Style = AnsiColor::Red.on_default();
/// Details.
pub const DETAIL: Style = Style::new().dimmed();
/// Names and titles.
pub const TITLE: Style = Style::new().bold();

/// The text in a style.
pub fn paint(style: Style, text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("{style}{text}{style:#}"),
    }
}

/// A time span.
pub fn span(seconds: u64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 2 * 86_400 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// A size, rounded up.
pub fn size(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}

/// The text on one line of at most so many columns, without characters that would control the terminal.
pub fn line(text: &str, width: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= width {
        return text;
    }
    let start: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

/// The end of a test's name: `kept psql` accepts it too. It begins at a module if possible.
pub fn name_end(name: &str, width: usize) -> String {
    let fits = |text: &str| text.chars().count() < width;
    if name.chars().count() <= width {
        return name.to_owned();
    }
    let mut ends = name.match_indices("::").map(|(at, _)| &name[at..]);
    let last = name.rsplit("::").next().unwrap_or(name);
    match ends.find(|end| fits(end)) {
        Some(end) => format!("…{end}"),
        None => line(last, width),
    }
}

/// A difference with its added, removed and changed lines in colours.
pub fn difference(text: &str) -> String {
    let style = |line: &str| match line.trim_start().chars().next() {
        Some('+') => OK,
        Some('-') => FAILURE,
        Some('~') => WARNING,
        _ if !line.starts_with(' ') => TITLE,
        _ => Style::new(),
    };
    let lines = text.lines();
    let lines = lines.map(|line| format!("{}\n", paint(style(line), line)));
    lines.collect()
}

/// One row of a screen: a label, a text that is wrapped, and perhaps a size at the right edge.
#[derive(Debug, Clone)]
pub struct Row {
    label: &'static str,
    text: String,
    style: Style,
    size: Option<u64>,
}

impl Row {
    /// A row with a label.
    pub fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self {
            label,
            text: text.into(),
            style: Style::new(),
            size: None,
        }
    }

    /// A row that belongs to the row above it.
    pub fn more(text: impl Into<String>) -> Self {
        Self::new("", text)
    }

    /// In a style.
    pub fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// With a size in bytes, if it is known.
    pub fn sized(mut self, bytes: Option<u64>) -> Self {
        self.size = bytes;
        self
    }
}

/// The rows as a table of this width.
pub fn rows(rows: &[Row], width: usize) -> String {
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let labels = widest(&mut rows.iter().map(|row| row.label.len())) + 2;
    let mut text = String::new();
    let mut above = "";
    for row in rows {
        // Only the first of several rows with the same label has it.
        let shown = if row.label == above { "" } else { row.label };
        above = if row.label.is_empty() {
            above
        } else {
            row.label
        };
        let size = row.size.map(size).unwrap_or_default();
        let room = width.saturating_sub(labels + size.len() + 2 * usize::from(!size.is_empty()));
        for (at, line) in wrap(&row.text, room).iter().enumerate() {
            let (label, size) = if at == 0 {
                (shown, size.as_str())
            } else {
                ("", "")
            };
            let gap = match size {
                "" => String::new(),
                _ => " ".repeat(room.saturating_sub(line.chars().count()) + 2),
            };
            let label_gap = " ".repeat(labels - label.len());
            let (label, line, size) = (
                paint(TITLE, label),
                paint(row.style, line),
                paint(DETAIL, size),
            );
            text.push_str(&format!("{label}{label_gap}{line}{gap}{size}\n"));
        }
    }
    text
}

/// The text in lines of at most so many columns, broken between words; a longer word has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line(text, usize::MAX).split_whitespace() {
        let last = lines.last_mut().expect("there is a line");
        let used = last.chars().count();
        match used {
            0 => last.push_str(word),
            _ if used + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_colours_by_its_signs() {
        let text = "schema\n  + table public.extra\nrows\n    public.users: 1 removed\n      - id='1'\n      ~ id='2': name 'a' → 'b'\n";
        let coloured = difference(text);
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), text);
        insta::assert_snapshot!(coloured.replace('\u{1b}', "ESC"), @r"
        ESC[1mschemaESC[0m
        ESC[32m  + table public.extraESC[0m
        ESC[1mrowsESC[0m
            public.users: 1 removed
        ESC[31m      - id='1'ESC[0m
        ESC[33m      ~ id='2': name 'a' → 'b'ESC[0m
        ");
    }

    #[test]
    fn rows_are_wrapped_beside_their_labels_and_sizes() {
        let table = [
            Row::new("kept", "two databases of failed tests").sized(Some(1 << 30)),
            Row::more("a_word_that_is_wider_than_the_screen"),
            Row::new("kept", "one more"),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&rows(&table, 30)), @r"
        kept  two databases    1024 MB
              of failed tests
              a_word_that_is_wider_than_the_screen
              one more
        ");
    }

    #[test]
    fn a_line_fits_and_controls_no_terminal() {
        assert_eq!(line("a\u{1b}[2Jb\nc", 20), "a [2Jb c");
        assert_eq!(line("äöü äöü", 7), "äöü äöü");
        assert_eq!(line("äöü äöü", 5), "äöü…");
        assert_eq!(line("", 5), "");
    }

    #[test]
    fn a_long_name_loses_modules_first() {
        assert_eq!(name_end("billing::pays", 13), "billing::pays");
        assert_eq!(name_end("billing::cards::pays", 14), "…::cards::pays");
        assert_eq!(name_end("billing::cards::pays", 13), "…::pays");
        assert_eq!(name_end("billing::pays_twice", 10), "pays_twice");
        assert_eq!(name_end("billing::pays_twice", 9), "pays_twi…");
    }
}
