//! The results of the checks, as a table and as JSON.

use serde::Serialize;

use kapsel_testdb_core::pg::ServerFacts;
use kapsel_testdb_core::plural::count;
use kapsel_testdb_core::server::verify::{Finding, Severity};

use crate::screen::{FAILURE, OK, TITLE, WARNING, paint, wrap};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No problem.
    Ok,
    /// Information.
    Note,
    /// Tests are slower than necessary.
    Slow,
    /// Something will fail.
    Fails,
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Note => Self::Note,
            Severity::Slow => Self::Slow,
            Severity::Fails => Self::Fails,
        }
    }
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The result.
    pub level: Level,
    /// The checked object.
    pub name: String,
    /// What was found.
    pub message: String,
    /// The fix: a command, an SQL statement or a setting.
    pub fix: Option<String>,
}

impl Check {
    /// A check without problems.
    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, name, message)
    }

    /// A check with this result.
    pub fn new(level: Level, name: &str, message: impl Into<String>) -> Self {
        Self {
            level,
            name: name.to_owned(),
            message: message.into(),
            fix: None,
        }
    }

    /// Adds the fix.
    pub fn with_fix(mut self, line: impl Into<String>) -> Self {
        self.fix = Some(line.into());
        self
    }

    /// A finding about the server.
    pub fn of(finding: &Finding, facts: &ServerFacts) -> Self {
        Self {
            level: finding.severity().into(),
            name: finding.name().to_owned(),
            message: finding.message(),
            fix: finding.fix(facts),
        }
    }
}

impl Level {
    fn label(self) -> String {
        let (style, text) = match self {
            Self::Ok => (OK, "ok"),
            Self::Note => (TITLE, "note"),
            Self::Slow => (WARNING, "slow"),
            Self::Fails => (FAILURE, "FAILS"),
        };
        paint(style, &format!("{text:5}"))
    }
}

/// Each check with its message, and below it the fix, on a screen of this width.
pub fn table(checks: &[Check], width: usize) -> String {
    let names = checks.iter().map(|c| c.name.chars().count()).max();
    let names = names.unwrap_or(0);
    let indent = " ".repeat(LEVEL_WIDTH + names + 4);
    let room = width.saturating_sub(indent.len());
    let mut text = String::new();
    for check in checks {
        let name = paint(TITLE, &check.name);
        let gap = " ".repeat(names - check.name.chars().count() + 2);
        let message = wrap(&check.message, room).join(&format!("\n{indent}"));
        text.push_str(&format!("{}  {name}{gap}{message}\n", check.level.label()));
        if let Some(fix) = &check.fix {
            // On one line, because it is copied.
            text.push_str(&format!("{indent}{} {fix}\n", paint(TITLE, "fix:")));
        }
    }
    text
}

const LEVEL_WIDTH: usize = 5;

/// The number of results of each level, in one line.
pub fn summary(checks: &[Check]) -> String {
    let of = |level| checks.iter().filter(|c| c.level == level).count();
    let (fails, slow, notes) = (of(Level::Fails), of(Level::Slow), of(Level::Note));
    let plural = |n, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    match (fails, slow, notes) {
        (0, 0, 0) => "no problems found".to_owned(),
        (0, 0, n) => format!("no problems found, {}", count(n, "note")),
        (0, s, n) => format!(
            "{}, {}; no test will fail because of the setup",
            plural(s, "problem slows tests down", "problems slow tests down"),
            count(n, "note")
        ),
        (f, s, n) => format!(
            "{}, {s} slow, {}",
            plural(
                f,
                "problem will make tests fail",
                "problems will make tests fail"
            ),
            count(n, "note")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_fix_below_the_problem() {
        let checks = [
            Check::ok(
                "server",
                "adopted PostgreSQL 15.4 at postgres@localhost:5432 (superuser), clone strategy default",
            ),
            Check::new(Level::Slow, "fsync", "on").with_fix("ALTER SYSTEM SET fsync = off;"),
            Check::new(Level::Fails, "base", "missing"),
        ];
        let text = table(&checks, 80);
        insta::assert_snapshot!("doctor", anstream::adapter::strip_str(&text));
        insta::assert_snapshot!("doctor_coloured", text.replace('\u{1b}', "ESC"));
        assert_eq!(
            summary(&checks),
            "1 problem will make tests fail, 1 slow, 0 notes"
        );
        assert_eq!(summary(&checks[..1]), "no problems found");
        let slow = summary(&checks[..2]);
        assert_eq!(
            slow,
            "1 problem slows tests down, 0 notes; no test will fail because of the setup"
        );
    }
}
