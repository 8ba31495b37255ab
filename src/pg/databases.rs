//! What is said about databases: list, create, seal, rename, drop.

use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Connection, Error as Sqlx, Row};

use super::admin::Admin;
use super::connect::{Patience, connect};
use super::error::{Doing, PgError};
use super::lock::LockKey;
use super::sql::{identifier, literal};
use crate::driver::own;
use crate::name::{DbName, Kind, Namespace};

/// Between looks whether sessions that were closed have ended, in ms: it takes them a few.
const LEAVING: [u64; 4] = [1, 2, 4, 8];

/// One of our databases as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its name.
    pub name: DbName,
    /// Whether it belongs to the role we are.
    pub owned: bool,
    /// Its owner.
    pub owner: String,
    /// `datistemplate`.
    pub is_template: bool,
    /// `datallowconn`.
    pub allow_connections: bool,
    /// An interrupted DROP left it unusable (`datconnlimit = -2`).
    pub invalid: bool,
    /// Client sessions on it.
    pub sessions: i64,
    /// Prepared transactions on it.
    pub prepared: i64,
    /// A counter that moves with every session that is opened on it, closed ones included: `pg_stat_database.sessions`, or
    /// before PostgreSQL 14 the transactions.
    pub activity: i64,
    /// Its comment.
    pub comment: Option<String>,
}

#[cfg(test)]
impl DatabaseRow {
    /// One of ours that nobody uses, without a comment.
    pub(crate) fn unused(name: DbName) -> Self {
        Self {
            name,
            owned: true,
            owner: "me".to_owned(),
            is_template: false,
            allow_connections: true,
            invalid: false,
            sessions: 0,
            prepared: 0,
            activity: 0,
            comment: None,
        }
    }
}

/// How `CREATE DATABASE` copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The server's own default.
    Default,
    /// Copies files and forces checkpoints: cheap only with `fsync=off`.
    FileCopy,
    /// The same, leaving it to the file system to share the blocks where it can (PostgreSQL 18 and later).
    FileClone,
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::FileCopy => "file_copy",
            Self::FileClone => "file_clone",
        })
    }
}

impl Admin {
    /// Takes the locks shared and looks for databases by name, in one round trip: locks come first, so that what is found cannot
    /// be collected afterwards.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock_and_find(
        &mut self,
        locks: &[LockKey],
        names: &[DbName],
    ) -> Result<Vec<DatabaseRow>, PgError> {
        let mut sql: String = locks
            .iter()
            .map(|k| format!("SELECT pg_advisory_lock_shared({})::text;", k.as_i64()))
            .collect();
        let names: Vec<String> = names.iter().map(|n| literal(&n.to_string())).collect();
        let condition = format!("d.datname IN ({})", names.join(","));
        sql.push_str(&database_query(&condition, false));
        let rows = self.rows(sql, "look for the template").await?;
        rows.iter()
            .filter(|row| row.try_get_raw("datname").is_ok())
            .filter_map(read_database)
            .collect::<Result<_, _>>()
            .doing(|| "look for the template".to_owned())
    }

    /// All databases of a namespace whose names parse, with what is needed to decide about each.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn databases(&mut self, namespace: &Namespace) -> Result<Vec<DatabaseRow>, PgError> {
        // The underscore is a wildcard of LIKE; what it lets through too much, the parser refuses.
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
            .doing(|| "list databases".to_owned())
    }

    /// Creates a database from another one: one of ours, or the persistent one, which has any name.
    ///
    /// # Errors
    /// A failed statement: 42P04 where the name is taken, 55006 where somebody is connected to the source, 3D000 where there is
    /// no such source.
    pub async fn create_database(
        &mut self,
        name: &impl Display,
        source: &str,
        strategy: Strategy,
    ) -> Result<(), PgError> {
        if strategy == Strategy::FileClone {
            let sql = "SET file_copy_method = clone".to_owned();
            self.run(sql, || "choose how files are copied".to_owned())
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
        self.run(sql, || format!("create `{name}` from `{source}`"))
            .await
    }

    /// Whether a database of that name exists.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn database_exists(&mut self, name: &str) -> Result<bool, PgError> {
        let sql = format!(
            "SELECT 1 FROM pg_database WHERE datname = {}",
            literal(name)
        );
        Ok(!self.rows(sql, "look for a database").await?.is_empty())
    }

    /// Counts client sessions on a database. A session's counters are complete when it is gone.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn sessions_on(&mut self, name: &DbName) -> Result<i64, PgError> {
        let sql = format!(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = {} AND backend_type = 'client backend'",
            literal(&name.to_string())
        );
        self.value(sql, "count the sessions on a database").await
    }

    /// Drops a database; a template is unsealed first. With `force` its sessions are ended: only for a run's own released or
    /// abandoned databases, or behind the fence. A database that is gone already is fine.
    ///
    /// A DROP that finds a session sleeps for 100 ms before it looks again, even where it has ended that session itself. So
    /// sessions that are just ending are waited for, and with `force` the others are ended before it looks.
    ///
    /// # Errors
    /// A failed statement: 55006 where somebody is connected.
    pub async fn drop_database(
        &mut self,
        name: &DbName,
        is_template: bool,
        force: bool,
    ) -> Result<(), PgError> {
        if is_template {
            let sql = format!("ALTER DATABASE {} IS_TEMPLATE false", name.quoted());
            self.run(sql, || format!("unseal `{name}`")).await?;
        }
        for (look, pause) in LEAVING.into_iter().enumerate() {
            if self.sessions_on(name).await? == 0 {
                break;
            }
            if force && look > 0 {
                self.end_sessions(name).await?;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let force = if force { " WITH (FORCE)" } else { "" };
        let sql = format!("DROP DATABASE IF EXISTS {}{force}", name.quoted());
        self.run(sql, || format!("drop `{name}`")).await
    }

    /// Renames a database.
    ///
    /// # Errors
    /// A failed statement: 42P04 where the new name is taken, 55006 where somebody is connected.
    pub async fn rename_database(&mut self, from: &DbName, to: &DbName) -> Result<(), PgError> {
        let sql = format!("ALTER DATABASE {} RENAME TO {}", from.quoted(), to.quoted());
        self.run(sql, || format!("rename `{from}` to `{to}`")).await
    }

    /// Renames a database and comments on it, both or neither: no crash leaves the one without the other.
    ///
    /// # Errors
    /// See [`Self::rename_database`]; 3D000 where there is no such database.
    pub async fn keep_database(
        &mut self,
        from: &DbName,
        to: &DbName,
        comment: &str,
    ) -> Result<(), PgError> {
        let (quoted, comment) = (from.quoted(), literal(comment));
        // Statements that are sent together are one transaction.
        let sql = format!(
            "COMMENT ON DATABASE {quoted} IS {comment}; ALTER DATABASE {quoted} RENAME TO {}",
            to.quoted()
        );
        self.run(sql, || format!("rename `{from}` to `{to}`")).await
    }

    /// Seals a database: nobody connects to it any more, and it can be cloned.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn seal_database(&mut self, name: &DbName) -> Result<(), PgError> {
        let sql = format!(
            "ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false",
            name.quoted()
        );
        self.run(sql, || format!("seal `{name}`")).await
    }

    /// Sets a database's comment.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn comment(&mut self, name: &DbName, text: &str) -> Result<(), PgError> {
        let sql = format!("COMMENT ON DATABASE {} IS {}", name.quoted(), literal(text));
        self.run(sql, || format!("comment on `{name}`")).await
    }

    /// Ends the sessions on a database that we may end: our role's, and those of roles that we are a member of (a pooler may log in
    /// as another one).
    ///
    /// # Errors
    /// A failed statement.
    pub async fn end_sessions(&mut self, name: &DbName) -> Result<(), PgError> {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = {} AND pg_has_role(usesysid, 'USAGE') AND backend_type = 'client backend'",
            literal(&name.to_string())
        );
        self.run(sql, || format!("end the sessions on `{name}`"))
            .await
    }

    /// Rolls back what two-phase commits left in a dead run's database: nobody can drop it before. Only from within it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn roll_back_prepared(&mut self, name: &DbName) -> Result<(), PgError> {
        let doing = || format!("roll back the prepared transactions in `{name}`");
        let options = self.address().options(&name.to_string());
        let mut connection = connect(self.address(), &options, Patience::RUNNING).await?;
        let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        let rows = own::rows(&mut connection, sql).await;
        for row in rows.doing(doing)? {
            let gid: String = row.try_get("gid").doing(doing)?;
            let sql = format!("ROLLBACK PREPARED {}", literal(&gid));
            let ran = own::execute(&mut connection, &sql).await;
            ran.doing(doing)?;
        }
        connection.close().await.doing(doing)
    }

    /// The size of a database in bytes; 0 for one that is being dropped.
    ///
    /// # Errors
    /// A failed statement: 3D000 where it is gone, 42501 where the role may not know.
    pub async fn database_size(&mut self, name: &DbName) -> Result<u64, PgError> {
        let sql = format!(
            "SELECT coalesce(pg_database_size({}), 0) AS bytes",
            literal(&name.to_string())
        );
        let bytes: i64 = self.value(sql, "measure a database").await?;
        Ok(bytes.unsigned_abs())
    }
}

impl DatabaseRow {
    /// Whether it is a template that may be cloned: published, sealed and ours.
    pub fn is_usable_template(&self) -> bool {
        self.name.kind() == Kind::Template
            && self.owned
            && self.is_template
            && !self.allow_connections
            && !self.invalid
    }
}

fn database_query(condition: &str, with_sessions: bool) -> String {
    let (sessions, prepared, activity) = if with_sessions {
        (
            "(SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend')",
            "(SELECT count(*) FROM pg_prepared_xacts p WHERE p.database = d.datname)",
            "(SELECT coalesce((to_jsonb(s)->>'sessions')::int8, s.xact_commit + s.xact_rollback) \
              FROM pg_stat_database s WHERE s.datid = d.oid)",
        )
    } else {
        ("0::int8", "0::int8", "0::int8")
    };
    format!(
        "SELECT d.datname::text AS datname, pg_get_userbyid(d.datdba)::text AS owner, \
           d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user) AS owned, \
           d.datistemplate, d.datallowconn, d.datconnlimit = -2 AS invalid, \
           {sessions} AS sessions, {prepared} AS prepared, coalesce({activity}, 0) AS activity, \
           shobj_description(d.oid, 'pg_database') AS comment \
         FROM pg_database d WHERE {condition} ORDER BY d.datname"
    )
}

/// `None`: the name is not in our grammar, so the row is none of our business.
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
            prepared: row.try_get("prepared")?,
            activity: row.try_get("activity")?,
            comment: row.try_get("comment")?,
        })
    };
    Some(read())
}
