//! Why a database is kept: one line of JSON in its entry, and a field of the kept database's comment.
//!
//! A process that a signal ends writes the line while it dies (`last_words`). One that dies before it writes the line leaves an entry without a cause; the process that notices
//! its death writes one.

use serde::{Deserialize, Serialize};

/// The maximum number of characters of a message.
const MAX_CHARS: usize = 200;

/// Why a test failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// The first line of the panic's message, or of the error that the test returned.
    Failed(String),
    /// The claimant's process ended without releasing the database.
    Died {
        /// For how many seconds it had the database, if it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_secs: Option<u64>,
        /// The signal that ended it, such as `SIGTERM`. None if no handler saw it: SIGKILL, or a crash.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
}

impl FailureCause {
    /// The cause for a message; `None` if the message is empty. Two values that an assertion compared are part of its first line.
    pub fn of_message(message: &str) -> Option<Self> {
        let mut lines = message.lines().map(str::trim);
        let mut text = lines.find(|line| !line.is_empty())?.to_owned();
        let values: Vec<&str> = lines
            .take_while(|line| line.starts_with("left: ") || line.starts_with("right: "))
            .collect();
        if !values.is_empty() {
            text.push_str(&format!(" ({})", values.join(", ")));
        }
        if text.chars().count() > MAX_CHARS {
            text = text.chars().take(MAX_CHARS - 1).collect();
            text.push('…');
        }
        Some(Self::Failed(text))
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::FailureCause;

    fn text(message: &str) -> Option<String> {
        match FailureCause::of_message(message)? {
            FailureCause::Failed(text) => Some(text),
            died => panic!("{died:?}"),
        }
    }

    #[test]
    fn a_message_becomes_one_line_with_the_values_that_an_assertion_compared() {
        assert_eq!(text(" \n"), None);
        let error = "\nconnection refused\n\nCaused by:\n    os error 111";
        assert_eq!(text(error).as_deref(), Some("connection refused"));
        let equal = "assertion `left == right` failed: two payments\n  left: 1\n right: 2";
        let expected = "assertion `left == right` failed: two payments (left: 1, right: 2)";
        assert_eq!(text(equal).as_deref(), Some(expected));
        let long = text(&"é".repeat(300)).expect("a text");
        assert_eq!(long.chars().count(), 200);
        assert!(long.ends_with("é…"));
    }
}
