//! Pieces of SQL text.

/// `idle_session_timeout` is known since PostgreSQL 14 only, so it cannot be a startup option.
pub(super) const NO_IDLE_TIMEOUT: &str = "SELECT set_config('idle_session_timeout', '0', false) \
    WHERE current_setting('server_version_num')::int4 >= 140000;";

/// Text as an SQL string. Sessions have `standard_conforming_strings` on, as every server since 9.1 by default; a backslash is
/// escaped all the same by choosing the `E''` form.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Text as an SQL identifier.
pub(crate) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
