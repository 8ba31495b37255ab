//! `[server.settings]`: names and values of PostgreSQL's settings, checked as far as that is possible without a server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::{Table, Value};

/// Settings that decide where the managed server has its files, where it listens and where it logs.
const OURS: [&str; 11] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "port",
    "unix_socket_directories",
    "unix_socket_permissions",
];

/// An invalid entry.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    pub name: String,
    pub value: Value,
    pub expected: Cow<'static, str>,
}

/// Reads the table. PostgreSQL ignores the case of names, so the result has them in lower case.
pub(super) fn read(table: &Table) -> Result<BTreeMap<String, String>, Problem> {
    let mut settings = BTreeMap::new();
    collect("", table, &mut settings)?;
    Ok(settings)
}

/// `prefix`: names of extensions' settings have a dot, which TOML reads as a table.
fn collect(
    prefix: &str,
    table: &Table,
    settings: &mut BTreeMap<String, String>,
) -> Result<(), Problem> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        if let Value::Table(inner) = value {
            collect(&format!("{name}."), inner, settings)?;
            continue;
        }
        let expected = match (expected_name(&name), text(value)) {
            (None, Some(text)) => {
                settings.insert(name.to_ascii_lowercase(), text);
                continue;
            }
            (Some(expected), _) => expected,
            (None, None) => {
                "a string, a number, true or false, or a list of strings (in a list no item has a comma)".into()
            }
        };
        return Err(Problem {
            name,
            value: value.clone(),
            expected,
        });
    }
    Ok(())
}

/// Why the name is not valid.
fn expected_name(name: &str) -> Option<Cow<'static, str>> {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
    };
    if !name.split('.').all(is_word) {
        return Some("the name of a setting of PostgreSQL, such as `wal_level`".into());
    }
    let name = name.to_ascii_lowercase();
    OURS.contains(&name.as_str()).then(|| {
        format!("another setting, because kapsel-testdb itself decides about `{name}`").into()
    })
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Array(items) => {
            let items = items.iter().map(|item| item.as_str());
            let items: Vec<&str> = items.collect::<Option<_>>()?;
            if items.iter().any(|item| item.contains(',')) {
                return None;
            }
            items.join(", ")
        }
        Value::Datetime(_) | Value::Table(_) => return None,
    };
    // A command line cannot have a NUL.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<BTreeMap<String, String>, Problem> {
        read(&toml::from_str(text).expect("valid TOML"))
    }

    #[test]
    fn values_are_written_as_in_postgresql_conf() {
        let found = settings(
            "TimeZone = 'Europe/Berlin'\nmax_prepared_transactions = 10\nfsync = true\nseq_page_cost = 1.5\n\
             shared_preload_libraries = ['auto_explain', 'pg_stat_statements']\nauto_explain.log_analyze = false\n\
             'pg_stat_statements.track' = 'all'\n",
        );
        let found = found.expect("they are valid");
        let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(
            found,
            [
                ("auto_explain.log_analyze", "false"),
                ("fsync", "true"),
                ("max_prepared_transactions", "10"),
                ("pg_stat_statements.track", "all"),
                ("seq_page_cost", "1.5"),
                (
                    "shared_preload_libraries",
                    "auto_explain, pg_stat_statements"
                ),
                ("timezone", "Europe/Berlin"),
            ]
        );
    }

    #[test]
    fn invalid_entries_are_named() {
        for (text, name, expected) in [
            ("'wal level' = 'x'", "wal level", "such as `wal_level`"),
            ("'a=b' = 'x'", "a=b", "such as `wal_level`"),
            ("'' = 'x'", "", "such as `wal_level`"),
            ("Port = 5433", "Port", "itself decides about `port`"),
            ("hba_file = '/x'", "hba_file", "itself decides"),
            ("x = [1]", "x", "a string"),
            ("x = ['a,b']", "x", "a comma"),
            ("x.y = 2020-01-01", "x.y", "a string"),
            ("x = \"a\\u0000\"", "x", "a string"),
        ] {
            let problem = settings(text).expect_err(text);
            assert_eq!(problem.name, name);
            assert!(problem.expected.contains(expected), "{problem:?}");
        }
    }
}
