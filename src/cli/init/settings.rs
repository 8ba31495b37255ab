//! Our own configuration file: the commented template, and the one key that `init` may set in an existing file. Pure.

use super::splice::{self, EditError, quote_basic};

const TEMPLATE: &str = include_str!("kapsel-testdb.toml");
const REFUSED: &str = "# allow_remote = false";
const ALLOWED: &str = "allow_remote = true";

/// The file for a workspace that has none.
pub(super) fn create(namespace: &str, allow_remote: bool) -> String {
    let text = TEMPLATE.replace("\"NAMESPACE\"", &quote_basic(namespace));
    if allow_remote {
        text.replacen(REFUSED, ALLOWED, 1)
    } else {
        text
    }
}

/// `text` with `server.allow_remote = true`; `None` if it says so already.
pub(super) fn allow_remote(text: &str) -> Result<Option<String>, EditError> {
    let document = splice::parse(text)?;
    let Some(splice) = splice::set_true(text, document.as_table(), "server", "allow_remote")?
    else {
        return Ok(None);
    };
    if let Some(uncommented) = uncomment(text) {
        return Ok(Some(uncommented));
    }
    Ok(splice::apply(text, vec![splice]))
}

/// Takes the `#` off the line that our template has for the key, if it is still there and in the right table.
fn uncomment(text: &str) -> Option<String> {
    let new = text.replacen(REFUSED, ALLOWED, 1);
    let document = splice::parse(&new).ok()?;
    let allowed = document
        .as_table()
        .get("server")?
        .get("allow_remote")?
        .as_bool()?;
    allowed.then_some(new)
}
