//! Quoting, and SQL that several modules use.

/// Only PostgreSQL 14 and later know `idle_session_timeout`, so it cannot be a startup option.
pub(super) const NO_IDLE_TIMEOUT: &str = "SELECT set_config('idle_session_timeout', '0', false) \
    WHERE current_setting('server_version_num')::int4 >= 140000;";

/// The condition that a row of `pg_stat_activity` or `pg_stat_get_activity()` with this alias is a client's session, and not a background worker
/// or a replication connection. The server hides the kind of other roles' sessions; then all count, except those of the role that `initdb` made
/// (10), because background workers log in as that role.
pub fn is_client(alias: &str) -> String {
    format!(
        "({alias}.backend_type = 'client backend' OR {alias}.backend_type IS NULL AND {alias}.usesysid <> 10)"
    )
}

/// When the server began to count, in µs since 1970. A recovery from a crash begins anew; a restart does not.
pub const COUNTING_SINCE: &str =
    "coalesce((extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::int8, 0)";

/// Quotes text as an SQL string. Text with a backslash becomes an `E''` string, so the result does not depend on
/// `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Quotes text as an SQL identifier.
pub fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
