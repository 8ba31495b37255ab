//! Statements about databases: list, create, seal, rename, drop.

use std::fmt::Display;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::lock::{LockKey, held_elsewhere, is_held_elsewhere, take_shared};
use crate::pg::obstacles::{self, Purpose};
use crate::pg::sql::{COUNTING_SINCE, identifier, is_client, literal};
use crate::protocol::{DbName, Kind, Namespace, Strategy};
use crate::sqlstate;

/// Pauses between checks whether closed sessions have ended, in ms.
const SESSION_END_PAUSES: [u64; 4] = [1, 2, 4, 8];

/// How often a drop clears what blocks it: the subscriber of a slot may connect again at once.
const DROP_ATTEMPTS: u32 = 3;

/// One of our databases in `pg_database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its name.
    pub name: DbName,
    /// Whether our role owns it.
    pub owned: bool,
    /// Its owner.
    pub owner: String,
    /// `datistemplate`.
    pub is_template: bool,
    /// `datallowconn`.
    pub allow_connections: bool,
    /// Whether an interrupted DROP left it invalid (`datconnlimit = -2`).
    pub invalid: bool,
    /// Client sessions on it.
    pub sessions: i64,
    /// What else makes the server refuse to drop it: see [`Admin::clear_obstacles`].
    pub obstacles: i64,
    /// A counter that every new session increases: `pg_stat_database.sessions`, or before PostgreSQL 14 the number of
    /// transactions.
    pub activity: i64,
    /// Its comment.
    pub comment: Option<String>,
    /// When the server began to count, in µs since 1970. A recovery from a crash, which empties unlogged tables, begins anew.
    pub counting_since: i64,
}

/// The size of a database of any project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Its name.
    pub name: DbName,
    /// Whether our role owns it.
    pub owned: bool,
    /// Its size; `None` if our role may not read it, or the database is being dropped.
    pub bytes: Option<u64>,
}

impl DatabaseRow {
    /// A database of our role without sessions and comment, for tests of plans.
    pub fn unused(name: DbName) -> Self {
        Self {
            name,
            owned: true,
            owner: "me".to_owned(),
            is_template: false,
            allow_connections: true,
            invalid: false,
            sessions: 0,
            obstacles: 0,
            activity: 0,
            comment: None,
            counting_since: 0,
        }
    }
}

impl Admin {
    /// Takes the locks shared and finds databases by name, in one round trip. The locks come first, so that a database that is
    /// found cannot be collected afterwards.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn lock_and_find(
        &mut self,
        locks: &[LockKey],
        names: &[DbName],
    ) -> Result<Vec<DatabaseRow>, PgError> {
        let names: Vec<String> = names.iter().map(|n| literal(&n.to_string())).collect();
        let find = database_query(&format!("d.datname IN ({})", names.join(",")), false);
        let sql = if locks.is_empty() {
            find.clone()
        } else {
            let (take, elsewhere) = (take_shared(locks), held_elsewhere(locks, true));
            format!("{take}{elsewhere};{find}")
        };
        let mut rows = self.take_and_read(locks, &sql, "find the template").await?;
        if is_held_elsewhere(&rows) {
            // A collector may have dropped it meanwhile.
            self.wait_for_removal(locks).await?;
            rows = self.rows(find, "find the template").await?;
        }
        rows.iter()
            .filter(|row| row.try_get_raw("datname").is_ok())
            .filter_map(read_database)
            .collect::<Result<_, _>>()
            .context(|| "find the template".to_owned())
    }

    /// All databases of a namespace whose names parse.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn databases(&mut self, namespace: &Namespace) -> Result<Vec<DatabaseRow>, PgError> {
        // The underscore is a wildcard of LIKE; the parser rejects other names.
        let condition = format!("d.datname LIKE {}", literal(&format!("{namespace}_%")));
        let rows = self
            .rows(database_query(&condition, true), "list databases")
            .await?;
        rows.iter()
            .filter_map(read_database)
            .filter(|row| {
                row.as_ref()
                    .map_or(true, |r| r.name.namespace() == namespace)
            })
            .collect::<Result<_, _>>()
            .context(|| "list databases".to_owned())
    }

    /// All databases whose names parse, of all namespaces.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn all_databases(&mut self) -> Result<Vec<DatabaseRow>, PgError> {
        // The parser rejects other names.
        let kinds = Kind::ALL.map(Kind::as_str).join("|");
        let condition = format!("d.datname ~ '^[a-z0-9]+_({kinds})_'");
        let query = database_query(&condition, true);
        let rows = self.rows(query, "list databases").await?;
        let rows = rows.iter().filter_map(read_database);
        let rows: Result<_, _> = rows.collect();
        rows.context(|| "list databases".to_owned())
    }

    /// The databases of all projects whose names parse.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn sizes(&mut self) -> Result<Vec<DatabaseSize>, PgError> {
        let sql = "SELECT d.datname::text AS datname, d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS owned, \
               CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE') \
                 THEN pg_database_size(d.oid) END AS bytes \
             FROM pg_database d WHERE strpos(d.datname, '_') > 0 ORDER BY d.datname";
        let rows = self
            .rows(sql.to_owned(), "read the sizes of databases")
            .await?;
        rows.iter()
            .filter_map(read_size)
            .collect::<Result<_, _>>()
            .context(|| "read the sizes of databases".to_owned())
    }

    /// Creates a database from another one. `name`: one of our databases, or the persistent database.
    ///
    /// # Errors
    /// The statement failed: 42P04 if the name is taken, 55006 if the source has sessions, 3D000 if the source does not exist.
    pub async fn create_database(
        &mut self,
        name: &impl Display,
        source: &str,
        strategy: Strategy,
    ) -> Result<(), PgError> {
        if strategy == Strategy::FileClone {
            let sql = "SET file_copy_method = clone".to_owned();
            self.run(sql, || "set `file_copy_method`".to_owned())
                .await?;
        }
        let option = match strategy {
            Strategy::Default => "",
            Strategy::FileCopy | Strategy::FileClone => " STRATEGY FILE_COPY",
        };
        let sql = format!(
            "CREATE DATABASE {} TEMPLATE {}{option}",
            identifier(&name.to_string()),
            identifier(source)
        );
        self.change_database(&sql, || format!("create `{name}` from `{source}`"))
            .await
    }

    /// Whether a database of that name exists.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn database_exists(&mut self, name: &str) -> Result<bool, PgError> {
        let sql = format!(
            "SELECT 1 FROM pg_database WHERE datname = {}",
            literal(name)
        );
        Ok(!self.rows(sql, "look up a database").await?.is_empty())
    }

    /// Counts client sessions on a database. A session's counters are complete after it has ended.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn count_sessions(&mut self, name: &DbName) -> Result<i64, PgError> {
        let sql = format!(
            "SELECT count(*) AS n FROM pg_stat_activity a WHERE datname = {} AND {}",
            literal(&name.to_string()),
            is_client("a")
        );
        self.value(sql, "count the sessions on a database").await
    }

    /// Drops a database; unseals a template first. A database that no longer exists is no error. `force` ends its sessions: use it
    /// only for a run's own released or abandoned databases, or with the fence held.
    ///
    /// A DROP that finds a session sleeps for 100 ms before it checks again, even if it has ended that session itself. So this
    /// function waits for sessions that are ending, and with `force` ends the others, before the DROP. If the server refuses, it ends what is no client:
    /// see [`Self::clear_obstacles`].
    ///
    /// # Errors
    /// The statement failed: 55006 if the database has sessions.
    pub async fn drop_database(
        &mut self,
        name: &DbName,
        is_template: bool,
        force: bool,
    ) -> Result<(), PgError> {
        if is_template {
            let sql = format!("ALTER DATABASE {} IS_TEMPLATE false", name.quoted());
            self.change_database(&sql, || format!("unseal `{name}`"))
                .await?;
        }
        self.wait_for_sessions(name, force).await?;
        let option = if force { " WITH (FORCE)" } else { "" };
        let sql = format!("DROP DATABASE IF EXISTS {}{option}", name.quoted());
        for _ in 0..DROP_ATTEMPTS {
            let dropped = self.change_database(&sql, || format!("drop `{name}`"));
            match dropped.await {
                Err(error) if error.is(sqlstate::OBJECT_IN_USE) => {
                    if !self.clear_obstacles(name, Purpose::Drop).await? {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
        self.change_database(&sql, || format!("drop `{name}`"))
            .await
    }

    /// Waits up to 15 ms for the sessions on a database, which are probably ending; with `force`, ends those that are still there after the first
    /// check.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn wait_for_sessions(&mut self, name: &DbName, force: bool) -> Result<(), PgError> {
        for (attempt, pause) in SESSION_END_PAUSES.into_iter().enumerate() {
            if self.count_sessions(name).await? == 0 {
                break;
            }
            if force && attempt > 0 {
                self.end_sessions(name).await?;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    /// Renames a database.
    ///
    /// # Errors
    /// The statement failed: 42P04 if the new name is taken, 55006 if the database has sessions.
    pub async fn rename_database(&mut self, from: &DbName, to: &DbName) -> Result<(), PgError> {
        let sql = format!("ALTER DATABASE {} RENAME TO {}", from.quoted(), to.quoted());
        self.change_database(&sql, || format!("rename `{from}` to `{to}`"))
            .await
    }

    /// Renames a database to the name of another one, which gets the name `away`, in one transaction.
    ///
    /// # Errors
    /// See [`Self::rename_database`].
    pub async fn replace_database(
        &mut self,
        from: &DbName,
        to: &DbName,
        away: &DbName,
    ) -> Result<(), PgError> {
        let sql = format!(
            "ALTER DATABASE {0} RENAME TO {1}; ALTER DATABASE {2} RENAME TO {0}",
            to.quoted(),
            away.quoted(),
            from.quoted()
        );
        self.change_database(&sql, || format!("replace `{to}` by `{from}`"))
            .await
    }

    /// Makes our role the owner of a database that a migration gave to another role, which keeps all privileges on it.
    ///
    /// # Errors
    /// The statement failed: 42501 if our role is no member of the owner.
    pub async fn take_ownership(&mut self, name: &DbName, owner: &str) -> Result<(), PgError> {
        let sql = format!(
            "ALTER DATABASE {0} OWNER TO CURRENT_USER; GRANT ALL ON DATABASE {0} TO {1}",
            name.quoted(),
            identifier(owner)
        );
        self.change_database(&sql, || {
            format!("take `{name}` back from the role `{owner}`, to which a migration gave it")
        })
        .await
    }

    /// Renames a database and sets its comment, in one transaction.
    ///
    /// # Errors
    /// See [`Self::rename_database`]; 3D000 if there is no such database.
    pub async fn keep_database(
        &mut self,
        from: &DbName,
        to: &DbName,
        comment: &str,
    ) -> Result<(), PgError> {
        let (quoted, comment) = (from.quoted(), literal(comment));
        // Statements in one message are one transaction.
        let sql = format!(
            "COMMENT ON DATABASE {quoted} IS {comment}; ALTER DATABASE {quoted} RENAME TO {}",
            to.quoted()
        );
        self.change_database(&sql, || format!("rename `{from}` to `{to}`"))
            .await
    }

    /// Seals a database: it no longer accepts connections, and it can be cloned.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn seal_database(&mut self, name: &DbName) -> Result<(), PgError> {
        let sql = format!(
            "ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false",
            name.quoted()
        );
        self.change_database(&sql, || format!("seal `{name}`"))
            .await
    }

    /// Sets a database's comment.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn comment(&mut self, name: &DbName, text: &str) -> Result<(), PgError> {
        let sql = format!("COMMENT ON DATABASE {} IS {}", name.quoted(), literal(text));
        self.change_database(&sql, || format!("comment on `{name}`"))
            .await
    }

    /// Ends the sessions on a database that we may end, also replication connections: those of our role and of roles that it is a member
    /// of (a pooler may log in as another role).
    ///
    /// # Errors
    /// The statement failed.
    pub async fn end_sessions(&mut self, name: &DbName) -> Result<(), PgError> {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = {} AND pg_has_role(usesysid, 'USAGE') AND backend_type IN ('client backend', 'walsender')",
            literal(&name.to_string())
        );
        self.run(sql, || format!("end the sessions on `{name}`"))
            .await
    }

    /// The size of a database in bytes; 0 if it is being dropped.
    ///
    /// # Errors
    /// The statement failed: 3D000 if the database does not exist, 42501 if the role lacks the privilege.
    pub async fn database_size(&mut self, name: &DbName) -> Result<u64, PgError> {
        let sql = format!(
            "SELECT coalesce(pg_database_size({}), 0) AS bytes",
            literal(&name.to_string())
        );
        let bytes: i64 = self.value(sql, "read the size of a database").await?;
        Ok(bytes.unsigned_abs())
    }
}

impl DatabaseRow {
    /// Whether it is a published, sealed template of our role.
    pub fn is_usable_template(&self) -> bool {
        self.name.kind() == Kind::Template
            && self.owned
            && self.is_template
            && !self.allow_connections
            && !self.invalid
    }
}

fn database_query(condition: &str, with_sessions: bool) -> String {
    let (sessions, obstacles, activity) = if with_sessions {
        (
            "(SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend')",
            obstacles::count(),
            "(SELECT coalesce((to_jsonb(s)->>'sessions')::int8, s.xact_commit + s.xact_rollback) \
              FROM pg_stat_database s WHERE s.datid = d.oid)",
        )
    } else {
        ("0::int8", "0::int8".to_owned(), "0::int8")
    };
    format!(
        "SELECT d.datname::text AS datname, pg_get_userbyid(d.datdba)::text AS owner, \
           d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS owned, \
           d.datistemplate, d.datallowconn, d.datconnlimit = -2 AS invalid, \
           {sessions} AS sessions, {obstacles} AS obstacles, coalesce({activity}, 0) AS activity, \
           shobj_description(d.oid, 'pg_database') AS comment, \
           {COUNTING_SINCE} AS counting_since \
         FROM pg_database d WHERE {condition} ORDER BY d.datname"
    )
}

/// `None`: the name is not in our grammar, so the database is not ours.
fn read_database(row: &PgRow) -> Option<Result<DatabaseRow, Sqlx>> {
    let name: String = match row.try_get("datname") {
        Ok(name) => name,
        Err(error) => return Some(Err(error)),
    };
    let name = name.parse::<DbName>().ok()?;
    let read = || {
        Ok(DatabaseRow {
            name,
            owned: row.try_get("owned")?,
            owner: row.try_get("owner")?,
            is_template: row.try_get("datistemplate")?,
            allow_connections: row.try_get("datallowconn")?,
            invalid: row.try_get("invalid")?,
            sessions: row.try_get("sessions")?,
            obstacles: row.try_get("obstacles")?,
            activity: row.try_get("activity")?,
            comment: row.try_get("comment")?,
            counting_since: row.try_get("counting_since")?,
        })
    };
    Some(read())
}

/// `None`: the name is not in our grammar.
fn read_size(row: &PgRow) -> Option<Result<DatabaseSize, Sqlx>> {
    let name: String = match row.try_get("datname") {
        Ok(name) => name,
        Err(error) => return Some(Err(error)),
    };
    let name = name.parse().ok()?;
    let read = || {
        let bytes: Option<i64> = row.try_get("bytes")?;
        Ok(DatabaseSize {
            name,
            owned: row.try_get("owned")?,
            bytes: bytes.map(i64::unsigned_abs),
        })
    };
    Some(read())
}
