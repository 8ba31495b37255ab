//! Rows that tests added under keys of their own, and that are therefore no difference.

/// Recognizes added rows that are no difference. The default recognizes none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnRows {
    /// All added rows are.
    pub all: bool,
    /// Those that were committed at these times, in seconds since 1970 by the server's clock. Empty if the server does not record commit times.
    pub committed: Vec<(f64, f64)>,
    /// Those with one of these words in a value.
    pub words: Vec<String>,
}

impl OwnRows {
    /// The condition that a row is one, in SQL; `text` is the row's text, in SQL.
    pub(super) fn condition(&self, text: &str) -> String {
        if self.all {
            return "true".to_owned();
        }
        let mut conditions = Vec::new();
        if !self.committed.is_empty() {
            let times = self.committed.iter();
            let times: Vec<String> = times
                .map(|(from, to)| format!("('{from}'::float8, '{to}'::float8)"))
                .collect();
            conditions.push(format!(
                "EXISTS (SELECT FROM (VALUES {}) w(since, until) \
                 WHERE extract(epoch FROM pg_xact_commit_timestamp(t.xmin))::float8 BETWEEN w.since AND w.until)",
                times.join(", ")
            ));
        }
        if !self.words.is_empty() {
            let words = self.words.iter().filter(|word| is_word(word));
            let words: Vec<&str> = words.map(String::as_str).collect();
            conditions.push(format!(
                "EXISTS (SELECT FROM unnest('{{{}}}'::text[]) word WHERE strpos({text}, word) > 0)",
                words.join(",")
            ));
        }
        match conditions.is_empty() {
            true => "false".to_owned(),
            false => format!("coalesce({}, false)", conditions.join(" OR ")),
        }
    }
}

/// A word of `test_id()`. Other words in the file of a run could break the SQL.
fn is_word(word: &str) -> bool {
    word.len() > 8 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
