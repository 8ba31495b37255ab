//! The entries that `init` adds to nextest's repository configuration, in any TOML form. Pure.
//!
//! Source: nextest's configuration reference, and nextest 0.9.143 itself: `experimental` is an array or a table of booleans;
//! `[script.*]`, the older home of setup scripts, is still read, but not together with `[scripts.setup.*]`.

use std::ops::Range;

use toml_edit::{InlineTable, Item, Table, TableLike};

use crate::init::splice::{self, EditError, Splice};
use crate::init::{Problem, SCRIPT};

const FEATURE: &str = "setup-scripts";
const COMMAND: &str = "kapsel-testdb prepare";

/// The entries that the configuration must contain.
pub(super) struct ScriptEntry<'a> {
    /// Explicit option: replaces another command.
    pub(super) command: Option<&'a str>,
    /// Explicit option: replaces another filter.
    pub(super) filter: Option<&'a str>,
    /// The filter of a new rule without the explicit option.
    pub(super) default_filter: &'a str,
}

/// The new text, or `None` if `text` is complete already.
pub(super) fn edit(text: &str, entry: &ScriptEntry<'_>) -> Result<Option<String>, EditError> {
    let document = splice::parse(text)?;
    let root = document.as_table();
    let mut splices = Vec::new();
    splices.extend(enable_feature(text, root)?);
    splices.extend(define_script(text, root, entry)?);
    splices.extend(add_rule(text, root, entry)?);
    Ok(splice::apply(text, splices))
}

fn enable_feature(text: &str, root: &Table) -> Result<Option<Splice>, EditError> {
    match root.get("experimental") {
        None => Ok(Some(splice::prepend(
            text,
            &format!("experimental = [\"{FEATURE}\"]"),
        ))),
        Some(Item::Value(toml_edit::Value::Array(features))) => {
            let present = features
                .iter()
                .any(|feature| feature.as_str() == Some(FEATURE));
            Ok((!present)
                .then(|| splice::push_front(text, features, &format!("\"{FEATURE}\"")))
                .flatten())
        }
        Some(item) if item.is_table_like() => splice::set_true(text, root, "experimental", FEATURE),
        Some(item) => Err(EditError::unexpected(
            "experimental",
            item,
            "an array or a table",
        )),
    }
}

fn define_script(
    text: &str,
    root: &Table,
    entry: &ScriptEntry<'_>,
) -> Result<Option<Splice>, EditError> {
    let legacy = root
        .get("script")
        .and_then(Item::as_table_like)
        .is_some_and(|scripts| !scripts.is_empty());
    let parents: &[&str] = if legacy {
        &["script"]
    } else {
        &["scripts", "setup"]
    };
    let command = format!(
        "command = {}",
        splice::quote_basic(entry.command.unwrap_or(COMMAND))
    );
    match find(root, parents, SCRIPT)? {
        Entry::Present(script) => Ok(replace_command(script, entry)),
        Entry::Missing(None) => {
            let block = format!("[{}.{SCRIPT}]\n{command}", parents.join("."));
            Ok(Some(splice::append(text, &block)))
        }
        Entry::Missing(Some((table, missing))) => Ok(splice::insert_inline(
            text,
            table,
            &format!("{missing} = {{ {command} }}"),
        )),
    }
}

/// Replaces an existing command only if the explicit option differs.
fn replace_command(script: &Item, entry: &ScriptEntry<'_>) -> Option<Splice> {
    let requested = entry.command?;
    let present = script.as_table_like()?.get("command")?;
    (present.as_str() != Some(requested)).then(|| {
        Some(Splice::replace(
            value_span(present)?,
            splice::quote_basic(requested),
        ))
    })?
}

fn add_rule(
    text: &str,
    root: &Table,
    entry: &ScriptEntry<'_>,
) -> Result<Option<Splice>, EditError> {
    let rules = our_rules(root);
    if !rules.is_empty() {
        return replace_filter(&rules, entry);
    }
    let filter = splice::quote_literal(entry.filter.unwrap_or(entry.default_filter));
    let (filter, setup) = (format!("filter = {filter}"), format!("setup = '{SCRIPT}'"));
    let inline = format!("{{ {filter}, {setup} }}");
    let block = || {
        splice::append(
            text,
            &format!("[[profile.default.scripts]]\n{filter}\n{setup}"),
        )
    };
    Ok(match find(root, &["profile", "default"], "scripts")? {
        Entry::Present(Item::ArrayOfTables(_)) | Entry::Missing(None) => Some(block()),
        Entry::Present(item) => {
            let wrong = || EditError::unexpected("profile.default.scripts", item, "an array");
            splice::push_front(text, item.as_array().ok_or_else(wrong)?, &inline)
        }
        Entry::Missing(Some((table, missing))) => {
            splice::insert_inline(text, table, &format!("{missing} = [{inline}]"))
        }
    })
}

/// Rules of any profile that run our script: a rule only for `profile.ci` is a decision of the user.
fn our_rules(root: &Table) -> Vec<&dyn TableLike> {
    let profiles = root.get("profile").and_then(Item::as_table_like);
    let scripts = profiles
        .into_iter()
        .flat_map(|profiles| profiles.iter())
        .filter_map(|(_, profile)| profile.as_table_like()?.get("scripts"));
    scripts
        .flat_map(rules_in)
        .filter(|rule| {
            rule.get("setup")
                .is_some_and(|setup| names(setup).contains(&SCRIPT))
        })
        .collect()
}

fn rules_in(scripts: &Item) -> Vec<&dyn TableLike> {
    match scripts {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        _ => scripts
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|value| Some(value.as_inline_table()? as &dyn TableLike))
            .collect(),
    }
}

/// `setup` is one name or an array of names.
fn names(setup: &Item) -> Vec<&str> {
    match setup.as_array() {
        Some(names) => names.iter().filter_map(|name| name.as_str()).collect(),
        None => setup.as_str().into_iter().collect(),
    }
}

/// Replaces an existing filter only if the explicit option differs and no other script shares the rule.
fn replace_filter(
    rules: &[&dyn TableLike],
    entry: &ScriptEntry<'_>,
) -> Result<Option<Splice>, EditError> {
    let Some(requested) = entry.filter else {
        return Ok(None);
    };
    if rules
        .iter()
        .any(|rule| rule.get("filter").and_then(Item::as_str) == Some(requested))
    {
        return Ok(None);
    }
    let setup = rules[0].get("setup");
    let alone = rules.len() == 1 && setup.is_some_and(|setup| names(setup).len() == 1);
    match rules[0].get("filter").and_then(value_span) {
        Some(span) if alone => Ok(Some(Splice::replace(
            span,
            splice::quote_literal(requested),
        ))),
        _ => {
            let offset = setup.and_then(value_span).map_or(0, |span| span.start);
            Err(EditError {
                offset,
                problem: Problem::RuleExists,
            })
        }
    }
}

enum Entry<'a> {
    Present(&'a Item),
    /// If the nearest existing ancestor is an inline table: that table and the dotted key missing in it.
    Missing(Option<(&'a InlineTable, String)>),
}

/// Finds `parents.key`. A new header may extend a table with a header or dotted keys, but not an inline table.
fn find<'a>(root: &'a Table, parents: &[&str], key: &str) -> Result<Entry<'a>, EditError> {
    let path: Vec<&str> = parents.iter().copied().chain([key]).collect();
    let mut table: &dyn TableLike = root;
    let mut inline = None;
    for depth in 0..path.len() {
        let Some(item) = table.get(path[depth]) else {
            let missing = |(depth, table)| (table, path[depth + 1..].join("."));
            return Ok(Entry::Missing(inline.map(missing)));
        };
        if depth + 1 == path.len() {
            return Ok(Entry::Present(item));
        }
        let wrong = || EditError::unexpected(&path[..=depth].join("."), item, "a table");
        table = item.as_table_like().ok_or_else(wrong)?;
        let inline_table = item.as_inline_table().filter(|table| !table.is_dotted());
        inline = inline_table.map(|table| (depth, table)).or(inline);
    }
    Ok(Entry::Missing(None))
}

fn value_span(item: &Item) -> Option<Range<usize>> {
    item.as_value()?.span()
}
