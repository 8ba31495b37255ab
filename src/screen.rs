//! What the screens of all commands share: styles, ages and sizes, and texts cut to a width. The printer removes the
//! styles where they are not wanted.

use anstyle::{AnsiColor, Style};

/// The width of a screen that is no terminal, in columns.
pub const WIDTH: usize = 80;

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

#[cfg(test)]
mod tests {
    use super::*;

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
