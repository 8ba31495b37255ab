//! What was looked at, as a table and as JSON.

use serde::Serialize;

use crate::pg::ServerFacts;
use crate::server::verify::{Finding, Severity};

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Tests are slower than they need to be.
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

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it stands.
    pub level: Level,
    /// A word for it.
    pub name: String,
    /// What was found.
    pub says: String,
    /// The line that mends it.
    pub mend: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &str, says: impl Into<String>) -> Self {
        Self::new(Level::Ok, name, says)
    }

    /// Something is so.
    pub fn new(level: Level, name: &str, says: impl Into<String>) -> Self {
        Self {
            level,
            name: name.to_owned(),
            says: says.into(),
            mend: None,
        }
    }

    /// Adds the line that mends it.
    pub fn mend(mut self, line: impl Into<String>) -> Self {
        self.mend = Some(line.into());
        self
    }

    /// A finding about the server.
    pub fn of(finding: &Finding, facts: &ServerFacts) -> Self {
        Self {
            level: finding.severity().into(),
            name: finding.name().to_owned(),
            says: finding.says(),
            mend: finding.mend(facts),
        }
    }
}

/// One line for each check, and one below it for what mends it.
pub fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Slow => "slow",
            Level::Fails => "FAILS",
        };
        text.push_str(&format!(
            "{level:5}  {:width$}  {}\n",
            check.name, check.says
        ));
        if let Some(mend) = &check.mend {
            text.push_str(&format!("{:5}  {:width$}  mend: {mend}\n", "", ""));
        }
    }
    text
}

/// How many of each, in one line.
pub fn summary(checks: &[Check]) -> String {
    let count = |level| checks.iter().filter(|c| c.level == level).count();
    let (fails, slow, notes) = (count(Level::Fails), count(Level::Slow), count(Level::Note));
    let plural = |n, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    match (fails, slow, notes) {
        (0, 0, 0) => "nothing to mend".to_owned(),
        (0, 0, n) => format!("nothing to mend, {}", plural(n, "note", "notes")),
        (0, s, n) => format!(
            "{}, {}; nothing will fail",
            plural(s, "thing slows tests down", "things slow tests down"),
            plural(n, "note", "notes")
        ),
        (f, s, n) => format!(
            "{}, {s} slow, {}",
            plural(f, "thing will fail", "things will fail"),
            plural(n, "note", "notes")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_mends_below_what_is_wrong() {
        let checks = [
            Check::ok("server", "adopted PostgreSQL 15.4"),
            Check::new(Level::Slow, "fsync", "on").mend("ALTER SYSTEM SET fsync = off;"),
            Check::new(Level::Fails, "base", "missing"),
        ];
        insta::assert_snapshot!(table(&checks), @r"
        ok     server  adopted PostgreSQL 15.4
        slow   fsync   on
                       mend: ALTER SYSTEM SET fsync = off;
        FAILS  base    missing
        ");
        assert_eq!(summary(&checks), "1 thing will fail, 1 slow, 0 notes");
        assert_eq!(summary(&checks[..1]), "nothing to mend");
        let slow = summary(&checks[..2]);
        assert_eq!(slow, "1 thing slows tests down, 0 notes; nothing will fail");
    }
}
