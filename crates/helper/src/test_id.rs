//! Unique keys for tests that share a database.

use kapsel_testdb_core::protocol::random_word;

/// Returns a random word for keys in a shared database: `t`, then 12 characters `[a-z0-9]`. Each call returns a different word. It is a
/// valid PostgreSQL identifier.
///
/// ```
/// let tenant = format!("tenant_{}", kapsel_testdb::test_id());
/// assert_ne!(kapsel_testdb::test_id(), kapsel_testdb::test_id());
/// ```
pub fn test_id() -> String {
    format!("t{}{}", random_word(), random_word())
}
