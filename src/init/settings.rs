//! Our own configuration file: the commented template, and the keys that `init` may set in an existing file. Pure.

use kapsel_testdb_core::config;

use crate::init::splice::{self, EditError, quote_basic};

const HEAD: &str = "\
# kapsel-testdb: PostgreSQL for the tests, prepared once per run.
# Every key is shown with its default or an example: remove the `#` to change it. Environment variables (KAPSEL_TESTDB_…) and flags override it.

";

/// The values that `init` sets; all other keys are comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values<'a> {
    /// Set `server.allow_remote`.
    pub(super) allow_remote: bool,
    /// The directory of migrations, if it is not the default.
    pub(super) migrations: Option<&'a str>,
}

/// The text of a new file.
pub(super) fn create(namespace: &str, values: &Values<'_>) -> Result<String, EditError> {
    let text = format!("{HEAD}{}", config::commented_file())
        .replace(&quote_basic("shop"), &quote_basic(namespace));
    Ok(set(&text, values)?.unwrap_or(text))
}

/// `text` with the values; `None` if they are set already. A directory of migrations is set only if the key is missing.
pub(super) fn set(text: &str, values: &Values<'_>) -> Result<Option<String>, EditError> {
    let mut new = None;
    if values.allow_remote {
        new = allow_remote(text)?;
    }
    if let Some(directory) = values.migrations {
        let changed = migrations(new.as_deref().unwrap_or(text), directory)?;
        new = changed.or(new);
    }
    Ok(new)
}

/// Whether the file names the sources of the schema.
pub(super) fn has_migrations(text: &str) -> Result<bool, EditError> {
    let document = splice::parse(text)?;
    let template = document.as_table().get("template");
    Ok(template.is_some_and(|template| template.get("migrations").is_some()))
}

fn allow_remote(text: &str) -> Result<Option<String>, EditError> {
    let document = splice::parse(text)?;
    let Some(splice) = splice::set_true(text, document.as_table(), "server", "allow_remote")?
    else {
        return Ok(None);
    };
    let uncommented = uncomment(text, ("server", "allow_remote"), "false", "true");
    Ok(uncommented.or_else(|| splice::apply(text, vec![splice])))
}

fn migrations(text: &str, directory: &str) -> Result<Option<String>, EditError> {
    if has_migrations(text)? {
        return Ok(None);
    }
    let value = quote_basic(directory);
    let key = ("template", "migrations");
    if let Some(uncommented) = uncomment(text, key, &quote_basic("migrations"), &value) {
        return Ok(Some(uncommented));
    }
    let document = splice::parse(text)?;
    let splice = splice::add(text, document.as_table(), key.0, key.1, &value)?;
    Ok(splice::apply(text, splice.into_iter().collect()))
}

/// Uncomments the line of a key that a new file has, with another value, if it still exists and is in the right table.
fn uncomment(text: &str, (table, key): (&str, &str), default: &str, value: &str) -> Option<String> {
    let line = |mark: &str, value: &str| format!("\n{mark}{key} = {value}\n");
    let new = text.replacen(&line("# ", default), &line("", value), 1);
    let document = splice::parse(&new).ok()?;
    document.as_table().get(table)?.get(key)?;
    (new != text).then_some(new)
}
