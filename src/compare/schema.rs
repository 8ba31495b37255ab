//! The schema as text: one definition per object, so that additions, removals and changes are differences between lines.

use std::collections::BTreeMap;

use sqlx::Row;

use kapsel_testdb_core::pg::PgError;

use crate::compare::difference::{ObjectDifference, truncate};
use crate::compare::session::ComparisonSession;

const SCHEMA: &str = include_str!("schema.sql");

/// Maximum length of a listed definition.
const MAX_DEFINITION_CHARS: usize = 10_000;

/// A definition, and the table, view or type that the object is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    parent: Option<String>,
    definition: String,
}

/// The objects of a database by kind and name.
pub(super) type Objects = BTreeMap<String, Object>;

/// Reads the schema.
///
/// # Errors
/// A failed statement.
pub(super) async fn read(session: &mut ComparisonSession) -> Result<Objects, PgError> {
    let read = |row: &sqlx::postgres::PgRow| {
        let object = Object {
            parent: row.try_get("parent")?,
            definition: row.try_get("definition")?,
        };
        Ok((row.try_get("object")?, object))
    };
    let objects = session.rows(SCHEMA, &"the schema", read).await?;
    Ok(objects.into_iter().collect())
}

/// The differences, by name. If only one of the two has a table, its columns, constraints etc. are not listed.
pub(super) fn differences(template: &Objects, database: &Objects) -> Vec<ObjectDifference> {
    let mut names: Vec<&String> = template.keys().chain(database.keys()).collect();
    names.sort();
    names.dedup();
    let in_both = |name: &String| template.contains_key(name) && database.contains_key(name);
    let is_listed = |name: &&&String| {
        let (one, other) = (template.get(**name), database.get(**name));
        let parent = one.or(other).and_then(|object| object.parent.as_ref());
        one.map(|o| &o.definition) != other.map(|o| &o.definition) && parent.is_none_or(in_both)
    };
    let definition = |objects: &Objects, name: &str| {
        let object = objects.get(name);
        object.map(|object| truncate(&object.definition, MAX_DEFINITION_CHARS))
    };
    let names = names.iter().filter(is_listed);
    names
        .map(|name| ObjectDifference {
            object: (*name).clone(),
            template: definition(template, name),
            database: definition(database, name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(lines: &[(&str, Option<&str>, &str)]) -> Objects {
        let object = |(name, parent, definition): &(&str, Option<&str>, &str)| {
            let object = Object {
                parent: parent.map(str::to_owned),
                definition: (*definition).to_owned(),
            };
            ((*name).to_owned(), object)
        };
        lines.iter().map(object).collect()
    }

    #[test]
    fn parts_of_new_or_dropped_tables_are_not_listed() {
        let template = objects(&[
            ("table a", None, ""),
            ("column a.x", Some("table a"), "integer"),
            ("table gone", None, ""),
            ("column gone.x", Some("table gone"), "integer"),
        ]);
        let database = objects(&[
            ("table a", None, ""),
            ("column a.x", Some("table a"), "text"),
            ("column a.y", Some("table a"), "text"),
            ("table new", None, ""),
            ("column new.x", Some("table new"), "integer"),
        ]);
        let found = differences(&template, &database);
        let names: Vec<_> = found.iter().map(|d| d.object.as_str()).collect();
        assert_eq!(
            names,
            ["column a.x", "column a.y", "table gone", "table new"]
        );
        assert!(differences(&template, &template).is_empty());
    }
}
