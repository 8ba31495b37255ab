//! A unique id for tests that share a database.

use crate::name::random_word;

/// A word that no other test has, for keys in a shared database: `t`, then `[a-z0-9]`, 13 bytes in all. Each call gives another.
///
/// ```
/// let tenant = format!("tenant_{}", kapsel_testdb::test_id());
/// assert_ne!(kapsel_testdb::test_id(), kapsel_testdb::test_id());
/// ```
pub fn test_id() -> String {
    format!("t{}{}", random_word(), random_word())
}
