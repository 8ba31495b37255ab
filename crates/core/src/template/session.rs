//! What migrations leave in their session. `sqlx migrate run` runs all migrations in one session, so a build on top of another template begins with what the
//! migrations of that template left: settings and roles are restored. A template that left anything else (temporary tables, prepared statements) is not
//! built upon.
//!
//! A crash leaves nothing: the state of a session ends with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::{Connection, Error as Sqlx, PgConnection, Row};

use crate::pg::own;
use crate::pg::sql::{identifier, literal};
use crate::sqlx_compat::internal;

/// How the session of a template's migrations differed from a new one at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Settings by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, String>,
    /// `SET SESSION AUTHORIZATION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    /// `SET ROLE`; `none` if it was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
}

impl SessionState {
    /// Gives this state to a new session, in one transaction.
    pub(super) async fn restore(&self, connection: &mut PgConnection) -> Result<(), Sqlx> {
        // The login role may set what the others may not.
        let mut statements: Vec<String> = self.settings.iter().map(set_config).collect();
        let login = self.login.iter();
        statements.extend(login.map(|l| format!("SET SESSION AUTHORIZATION {}", identifier(l))));
        statements.extend(self.role.iter().map(|role| match role.as_str() {
            "none" => "SET ROLE NONE".to_owned(),
            role => format!("SET ROLE {}", identifier(role)),
        }));
        if statements.is_empty() {
            return Ok(());
        }
        internal::execute(connection, &statements.join(";")).await
    }
}

fn set_config((name, value): (&String, &String)) -> String {
    format!(
        "SELECT pg_catalog.set_config({}, {}, false)",
        literal(name),
        literal(value)
    )
}

/// The session of a build, as it was when it was new.
#[derive(Debug)]
pub(super) struct BuildSession {
    names: BTreeSet<String>,
    new: Snapshot,
    /// Whether the migrations may leave something that the server does not show.
    hides_state: bool,
}

impl BuildSession {
    /// Remembers what a new session looks like. `texts`: all migrations, also those that ran in an earlier session, because they define functions.
    pub async fn begin<'a>(
        connection: &mut PgConnection,
        texts: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Self, Sqlx> {
        let hides_state = texts.clone().any(hides_state);
        let names = texts.flat_map(dotted_names).collect();
        Ok(Self {
            new: Snapshot::read(connection, &names).await?,
            names,
            hides_state,
        })
    }

    /// What the migrations have left; `None` if it cannot be restored. The session is as good as new afterwards.
    pub async fn end(self, connection: &mut PgConnection) -> Result<Option<SessionState>, Sqlx> {
        // What a migration set, such as a short `statement_timeout`, is no reason for the build to fail.
        let left = Snapshot::read(connection, &self.names).await.ok();
        let left = left.filter(|left| !left.is_opaque && !self.hides_state);
        discard_all(connection).await?;
        let Some(left) = left else { return Ok(None) };
        let state = left.since(&self.new);
        if state == SessionState::default() {
            return Ok(Some(state));
        }
        let restored = match state.restore(connection).await {
            Ok(()) => Snapshot::read(connection, &self.names).await,
            Err(error) => Err(error),
        };
        discard_all(connection).await?;
        let is_same = restored.is_ok_and(|restored| restored.since(&self.new) == state);
        Ok(is_same.then_some(state))
    }
}

/// Ends everything that a script has left in its session.
///
/// # Errors
/// The statement failed.
pub(super) async fn discard_all(connection: &mut PgConnection) -> Result<(), Sqlx> {
    // The server forgets sqlx's prepared statements, too.
    connection.clear_cached_statements().await?;
    internal::execute(connection, "DISCARD ALL").await?;
    own::notice_dead_clients(connection).await;
    Ok(())
}

/// What the server shows of a session.
#[derive(Debug, Default)]
struct Snapshot {
    settings: BTreeMap<String, String>,
    login: String,
    role: String,
    /// Whether it has something that cannot be restored.
    is_opaque: bool,
}

/// Everything is qualified, because a migration may have set any search path.
const SNAPSHOT: &str = "SELECT 'setting' AS kind, name, coalesce(setting, '') AS value FROM pg_catalog.pg_settings \
     WHERE source = 'session' AND name <> 'client_connection_check_interval' \
   UNION ALL SELECT 'setting', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[{names}]::pg_catalog.text[]) n \
     WHERE pg_catalog.current_setting(n, true) IS NOT NULL AND n NOT IN (SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings) \
   UNION ALL SELECT 'login', '', session_user::pg_catalog.text \
   UNION ALL SELECT 'role', '', pg_catalog.current_setting('role') \
   UNION ALL SELECT 'opaque', '', '' WHERE \
     EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass \
       AND refobjid = pg_catalog.pg_my_temp_schema()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
     OR EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
     OR EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())";

impl Snapshot {
    async fn read(connection: &mut PgConnection, names: &BTreeSet<String>) -> Result<Self, Sqlx> {
        let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
        let sql = SNAPSHOT.replace("{names}", &names.join(","));
        let mut snapshot = Self::default();
        for row in internal::rows(connection, &sql).await? {
            let (kind, value): (String, String) = (row.try_get("kind")?, row.try_get("value")?);
            match kind.as_str() {
                "setting" => drop(snapshot.settings.insert(row.try_get("name")?, value)),
                "login" => snapshot.login = value,
                "role" => snapshot.role = value,
                _ => snapshot.is_opaque = true,
            }
        }
        Ok(snapshot)
    }

    /// What is different from a new session.
    fn since(self, new: &Self) -> SessionState {
        let mut settings = self.settings;
        settings.retain(|name, value| new.settings.get(name) != Some(value));
        // `SET SESSION AUTHORIZATION` resets the role.
        let other_login = self.login != new.login;
        let other_role = self.role != new.role || other_login && self.role != "none";
        SessionState {
            settings,
            login: other_login.then_some(self.login),
            role: other_role.then_some(self.role),
        }
    }
}

/// The names in a migration that may be those of settings that the application has made up, such as `app.tenant`: the server does not list them.
fn dotted_names(sql: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
    let is_name = |word: &&str| {
        word.contains('.')
            && word
                .split('.')
                .all(|part| part.starts_with(is_first_letter))
    };
    let text = sql.to_lowercase().replace('"', "");
    let words = text
        .split(|c: char| !is_part(c))
        .map(|w| w.trim_matches('.'));
    let names: BTreeSet<String> = words.filter(is_name).map(str::to_owned).collect();
    names.into_iter()
}

fn is_first_letter(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// Whether a migration may leave something that the server does not show: a seed of `random()`, a loaded library, or a setting with a name that is not in its
/// text.
fn hides_state(sql: &str) -> bool {
    const HIDING: [&str; 5] = ["setseed", "set seed", "'set %", "'set session %", "'set '"];
    let words: Vec<&str> = sql.split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    let loads =
        |(at, _): (usize, &str)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    HIDING.iter().any(|hiding| text.contains(hiding))
        || text.match_indices("load '").any(loads)
        || text.split("set_config").skip(1).any(has_unknown_name)
}

/// Whether these are the arguments of a call whose first one is not a plain literal.
fn has_unknown_name(arguments: &str) -> bool {
    let Some(first) = arguments.trim_start().strip_prefix('(') else {
        return false;
    };
    let literal = first.trim_start().strip_prefix('\'');
    let end = literal.and_then(|text| text.split_once('\''));
    !end.is_some_and(|(_, rest)| rest.trim_start().starts_with(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_settings_are_found_wherever_they_are() {
        let sql = "SET App.tenant = '1.5'; SELECT set_config('app.user.id', x.y, false), 1.2, t.\"Column\", \"a\".\"b\" FROM t.;";
        let names: Vec<String> = dotted_names(sql).collect();
        assert_eq!(
            names,
            ["a.b", "app.tenant", "app.user.id", "t.column", "x.y"]
        );
    }

    #[test]
    fn what_a_migration_may_hide_is_noticed() {
        for sql in [
            "SELECT setseed(0.5)",
            "SET  SEED TO 0.5",
            "LOAD\n 'age'",
            "SELECT set_config('app.' || name, 'x', false)",
            "PERFORM set_config (name, 'x', false)",
            "EXECUTE format('SET %I = 1', name)",
            "EXECUTE 'SET ' || name",
        ] {
            assert!(hides_state(sql), "{sql}");
        }
        for sql in [
            "SET search_path = app",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT set_config( 'app.tenant' , x, true)",
            "UPDATE t SET a = 'upload '",
            "EXECUTE format('UPDATE %I SET %I = 1', a, b)",
        ] {
            assert!(!hides_state(sql), "{sql}");
        }
    }
}
