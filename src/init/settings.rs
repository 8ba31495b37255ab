//! Our own configuration file: the commented template, and the one key that `init` may set in an existing file. Pure.

use kapsel_testdb_core::config;

use crate::init::splice::{self, EditError, quote_basic};

const HEAD: &str = "\
# kapsel-testdb: PostgreSQL for the tests, prepared once per run.
# Every key is shown with its default or an example: remove the `#` to change it. Environment variables (KAPSEL_TESTDB_…) and flags override it.

";
const COMMENTED_KEY: &str = "# allow_remote = false";
const SET_KEY: &str = "allow_remote = true";

/// The text of a new file.
pub(super) fn create(namespace: &str, allow_remote: bool) -> String {
    let text = format!("{HEAD}{}", config::commented_file())
        .replace(&quote_basic("shop"), &quote_basic(namespace));
    if allow_remote {
        text.replacen(COMMENTED_KEY, SET_KEY, 1)
    } else {
        text
    }
}

/// `text` with `server.allow_remote = true`; `None` if that is set already.
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

/// Uncomments the line of the key that a new file has, if it still exists and is in the right table.
fn uncomment(text: &str) -> Option<String> {
    let new = text.replacen(COMMENTED_KEY, SET_KEY, 1);
    let document = splice::parse(&new).ok()?;
    let allowed = document
        .as_table()
        .get("server")?
        .get("allow_remote")?
        .as_bool()?;
    allowed.then_some(new)
}
