//! Unique keys for tests that share a database.

use std::sync::{Mutex, PoisonError};

use kapsel_testdb_core::protocol::random_word;

/// The maximum number of words that are recorded with a use of the shared clone.
const MAX_WORDS: usize = 100;

/// The words since the last [`take`].
static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Returns a random word for keys in a shared database: `t`, then 12 characters `[a-z0-9]`. Each call returns a different word. It is a
/// valid PostgreSQL identifier.
///
/// ```
/// let tenant = format!("tenant_{}", kapsel_testdb::test_id());
/// assert_ne!(kapsel_testdb::test_id(), kapsel_testdb::test_id());
/// ```
pub fn test_id() -> String {
    let word = format!("t{}{}", random_word(), random_word());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if words.len() < MAX_WORDS {
        words.push(word.clone());
    }
    word
}

/// The words that this process has made since the last call.
pub fn take() -> Vec<String> {
    std::mem::take(&mut *WORDS.lock().unwrap_or_else(PoisonError::into_inner))
}
