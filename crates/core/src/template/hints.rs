//! Hints about mistakes in migrations whose effect PostgreSQL reports elsewhere, or not at all.

use sqlx::Row;

use crate::address::Address;
use crate::pg::connect::{self, RetryLimits};
use crate::pg::script;
use crate::pg::session::{STATEMENT_LIMIT, Session};
use crate::sqlstate;
use crate::template::TemplateError;

/// The database with what administrators install for all new databases.
const USUAL_BASE: &str = "template1";

/// The line of the statement that leaves the search path of the session empty, as the output of pg_dump does.
pub(super) fn line_without_search_path(sql: &str) -> Option<usize> {
    let empties = |statement: &str| {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let text = words.concat().to_lowercase();
        text.contains("set_config('search_path','',false)")
            || text.starts_with("setsearch_path=''")
            || text.starts_with("setsearch_pathto''")
    };
    let mut statements = script::statement_texts(sql);
    statements.find_map(|(line, text)| empties(&text).then_some(line))
}

/// The databases that statements name to change them, with the lines.
pub(super) fn named_databases(sql: &str) -> Vec<(usize, String)> {
    let found = script::statement_texts(sql);
    let found = found.filter_map(|(line, text)| Some((line, named_database(&text)?)));
    found.collect()
}

/// `x` in `ALTER DATABASE x`, and in `ON DATABASE x` of a comment or a grant.
fn named_database(statement: &str) -> Option<String> {
    let mut words = statement.split_whitespace();
    let first = words.next()?.to_ascii_lowercase();
    let before = match first.as_str() {
        "alter" => "",
        "comment" | "grant" | "revoke" => "on",
        _ => return None,
    };
    let is_on = |word: &str| word.eq_ignore_ascii_case(before);
    if !before.is_empty() && !words.any(is_on) {
        return None;
    }
    let keyword = words.next()?;
    if !keyword.eq_ignore_ascii_case("database") {
        return None;
    }
    let name = words.next()?;
    Some(match name.strip_prefix('"') {
        // A name with spaces.
        Some(_) => statement.split('"').nth(1)?.to_owned(),
        None => {
            let is_end = |c: char| !c.is_alphanumeric() && c != '_' && c != '$';
            name.split(is_end).next()?.to_lowercase()
        }
    })
}

/// Adds a note to an error about a type or a function that an extension of `template1` has.
pub(super) async fn explain_missing(
    mut error: TemplateError,
    address: &Address,
    base: &str,
) -> TemplateError {
    const CODES: [&str; 2] = [sqlstate::UNDEFINED_OBJECT, sqlstate::UNDEFINED_FUNCTION];
    if let TemplateError::Failed(failed) = &mut error
        && failed
            .code
            .as_deref()
            .is_some_and(|code| CODES.contains(&code))
        && base != USUAL_BASE
        && let Some(extensions) = usual_extensions(address).await
    {
        let quoted: Vec<String> = extensions.iter().map(|name| format!("`{name}`")).collect();
        let named: Vec<String> = extensions.iter().map(|name| format!("{name:?}")).collect();
        failed.add_note(format!(
            "`{USUAL_BASE}` of this server has {}, but templates are made from `{base}`; set `template.extensions = [{}]`, or \
             `template.base = \"{USUAL_BASE}\"`",
            quoted.join(", "),
            named.join(", ")
        ));
    }
    error
}

/// The extensions of `template1`; none if there are none, or if it cannot be asked.
async fn usual_extensions(address: &Address) -> Option<Vec<String>> {
    const SQL: &str =
        "SELECT extname::text FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    let options =
        connect::quiet(address.options(USUAL_BASE)).application_name("kapsel-testdb build");
    let mut session = Session::connect(address, &options, RetryLimits::ONCE)
        .await
        .ok()?;
    let context = || format!("list the extensions of `{USUAL_BASE}`");
    let rows = session.rows(SQL, STATEMENT_LIMIT, context).await.ok()?;
    let _ = session.close(context).await;
    let names = rows.iter().map(|row| row.try_get(0));
    let names: Vec<String> = names.collect::<Result<_, _>>().ok()?;
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_search_path_is_found_in_any_form() {
        for sql in [
            "-- of pg_dump\nSELECT pg_catalog.set_config('search_path', '', false);",
            "SET\n  lock_timeout = 0;\nSELECT 1; SET search_path TO '';",
        ] {
            assert!(line_without_search_path(sql).is_some(), "{sql}");
        }
        let dump = "-- x\n\nSELECT 1;\nSELECT pg_catalog.set_config('search_path', '', false);\n";
        assert_eq!(line_without_search_path(dump), Some(4));
        for sql in [
            "SET search_path = app;",
            "SET LOCAL search_path = '';",
            "SELECT set_config('search_path', '', true);",
            "-- SET search_path = '';",
        ] {
            assert_eq!(line_without_search_path(sql), None, "{sql}");
        }
    }

    #[test]
    fn databases_are_found_only_as_objects_of_a_change() {
        let sql = "CREATE TABLE a ();\nALTER DATABASE App SET timezone = 'UTC';\ncomment on\n database \"my app\" IS 'x';\n\
                   GRANT CONNECT ON DATABASE app TO reader;";
        let found = named_databases(sql);
        let expected = [(2, "app"), (3, "my app"), (5, "app")];
        assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
        for sql in [
            "SELECT 'ALTER DATABASE app SET x = 1';",
            "-- ALTER DATABASE app SET x = 1;",
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET a = b', current_database()); END $$;",
            "COMMENT ON TABLE database IS 'x';",
            "ALTER TABLE database ADD COLUMN a int;",
        ] {
            assert_eq!(named_databases(sql), [], "{sql}");
        }
    }
}
