//! What the server reports about a database to a session on another one: it proves that no session has visited a clone since the clone was known to
//! equal its template.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::session::{DATABASE_LIMIT, STATEMENT_LIMIT};
use crate::pg::sql::literal;
use crate::protocol::{Baseline, DbName, Kind, Oid, Seen};

/// A database as seen from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDatabase {
    /// Its name.
    pub name: DbName,
    /// Its oid.
    pub oid: Oid,
    /// The counters and its row.
    pub seen: Seen,
    /// Backends of any kind on it.
    pub backends: i64,
    /// Its comment.
    pub comment: Option<String>,
    /// The next transaction id of the server.
    pub xid: u64,
}

/// The query for a database that was created from a template with the name `$2`. `pg_stat_wal` was reset when the server recovered from a crash. A
/// replication slot or a subscription makes the row another one.
const QUERY: &str = "SELECT d.datname::text AS datname, d.oid::int8 AS oid, \
     pg_stat_get_db_sessions(d.oid) AS sessions, pg_stat_get_db_numbackends(d.oid)::int8 AS backends, \
     pg_stat_get_db_tuples_inserted(d.oid) AS inserted, pg_stat_get_db_tuples_updated(d.oid) AS updated, pg_stat_get_db_tuples_deleted(d.oid) AS deleted, \
     concat_ws(' ', extract(epoch FROM pg_stat_get_db_stat_reset_time(d.oid)), (SELECT extract(epoch FROM stats_reset) FROM pg_stat_get_wal())) AS resets, \
     md5(concat_ws(' ', to_jsonb(d) - '{oid,datname,datfrozenxid,datminmxid}'::text[], \
       (SELECT json_agg(s ORDER BY s.setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid), \
       (SELECT json_agg(l ORDER BY l.provider) FROM pg_shseclabel l WHERE l.objoid = d.oid AND l.classoid = 'pg_database'::regclass), \
       (SELECT count(*) FROM pg_get_replication_slots() r WHERE r.datoid = d.oid), \
       (SELECT count(*) FROM pg_subscription u WHERE u.subdbid = d.oid))) AS row, \
     coalesce((SELECT t.oid::int8 FROM pg_database t WHERE t.datname = $2), 0) AS template, \
     shobj_description(d.oid, 'pg_database') AS comment, pg_snapshot_xmax(pg_current_snapshot())::text AS xid \
   FROM pg_database d WHERE ";

/// Planning the query takes longer than running it, so a session prepares it once.
const PREPARED: &str = "kapsel_testdb_seen";

fn call(name: &DbName) -> String {
    let template = literal(&name.template_name().to_string());
    format!(
        "EXECUTE {PREPARED} ({}, {template})",
        literal(&name.to_string())
    )
}

impl SeenDatabase {
    /// The baseline of a clone that was just created; `None` if rows were written to it already.
    pub fn new_baseline(self) -> Option<Baseline> {
        (self.seen.tuples == [0; 3]).then_some(Baseline {
            database: self.oid,
            seen: self.seen,
            xid: self.xid,
            ..Baseline::default()
        })
    }
}

impl Admin {
    /// What the server reports about a database; `None` if it does not exist. Needs PostgreSQL 15.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn seen(&mut self, name: &DbName) -> Result<Option<SeenDatabase>, PgError> {
        self.prepare_seen().await?;
        let context = "read what the server reports about a database";
        Ok(self
            .read_seen(STATEMENT_LIMIT, &call(name), context)
            .await?
            .pop())
    }

    /// Renames a database, replaces its comment, and reports what the server knows about it then, in one transaction. No session can connect during the
    /// transaction, and after it no other process knows the new name.
    ///
    /// # Errors
    /// The statement failed: 3D000 if there is no such database (another process was faster), 55006 if it has sessions.
    pub async fn rename_and_see(
        &mut self,
        from: &DbName,
        to: &DbName,
        comment: Option<&str>,
    ) -> Result<SeenDatabase, PgError> {
        let comment = comment.map_or("NULL".to_owned(), literal);
        let (quoted, new) = (from.quoted(), to.quoted());
        // A crash of the server, which resets the counters, may undo the rename: no clone is used again after one.
        let sql = format!(
            "SET LOCAL synchronous_commit = off; ALTER DATABASE {quoted} RENAME TO {new}; COMMENT ON DATABASE {new} IS {comment}; {}",
            call(to)
        );
        self.prepare_seen().await?;
        let context = format!("rename `{from}` to `{to}`");
        let row = self.read_seen(DATABASE_LIMIT, &sql, &context).await?.pop();
        row.ok_or(Sqlx::RowNotFound).context(|| context)
    }

    /// The spares of a template that our role owns.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn spares(&mut self, template: &DbName) -> Result<Vec<SeenDatabase>, PgError> {
        let (namespace, fingerprint) = (template.namespace(), template.fingerprint());
        let pattern = format!("{namespace}\\_{}\\_{fingerprint}\\_%", Kind::Spare.as_str());
        let query = QUERY.replace("$2", &literal(&template.to_string()));
        let sql = format!(
            "{query} d.datname LIKE {} AND d.datconnlimit <> -2 AND d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)",
            literal(&pattern)
        );
        self.read_seen(STATEMENT_LIMIT, &sql, "list the spares")
            .await
    }

    /// How many backends of any kind are on a database, and whether it has a comment or a replication slot; `None` if it does not exist. Cheaper than
    /// [`Self::seen`].
    ///
    /// # Errors
    /// The statement failed.
    pub async fn use_of(&mut self, name: &DbName) -> Result<Option<(i64, bool)>, PgError> {
        let context = "count the sessions on a database";
        let sql = format!(
            "SELECT pg_stat_get_db_numbackends(d.oid)::int8 AS backends, shobj_description(d.oid, 'pg_database') IS NOT NULL \
               OR EXISTS (SELECT FROM pg_replication_slots s WHERE s.datoid = d.oid) AS marked \
             FROM pg_database d WHERE d.datname = {}",
            literal(&name.to_string())
        );
        let rows = self.rows(sql, context).await?;
        let read = |row: &PgRow| Ok((row.try_get("backends")?, row.try_get("marked")?));
        rows.first()
            .map(read)
            .transpose()
            .context(|| context.to_owned())
    }

    async fn prepare_seen(&mut self) -> Result<(), PgError> {
        if !self.has_prepared_seen {
            let sql = format!(
                "SET plan_cache_mode = force_generic_plan; PREPARE {PREPARED} (name, name) AS {QUERY} d.datname = $1"
            );
            self.run(sql, || "prepare a query about databases".to_owned())
                .await?;
            self.has_prepared_seen = true;
        }
        Ok(())
    }

    async fn read_seen(
        &mut self,
        limit: Duration,
        sql: &str,
        context: &str,
    ) -> Result<Vec<SeenDatabase>, PgError> {
        let rows = self.rows_within(limit, sql, context).await?;
        let rows = rows.iter().filter_map(|row| read(row).transpose());
        rows.collect::<Result<_, _>>()
            .context(|| context.to_owned())
    }
}

/// `None`: the name is not in our grammar.
fn read(row: &PgRow) -> Result<Option<SeenDatabase>, Sqlx> {
    let name: String = row.try_get("datname")?;
    let Ok(name) = name.parse() else {
        return Ok(None);
    };
    let xid: String = row.try_get("xid")?;
    let oid = |column| Ok::<_, Sqlx>(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    Ok(Some(SeenDatabase {
        name,
        oid: oid("oid")?,
        seen: Seen {
            sessions: row.try_get("sessions")?,
            tuples: [
                row.try_get("inserted")?,
                row.try_get("updated")?,
                row.try_get("deleted")?,
            ],
            resets: row.try_get("resets")?,
            row: row.try_get("row")?,
            template: oid("template")?,
        },
        backends: row.try_get("backends")?,
        comment: row.try_get("comment")?,
        xid: xid.parse().map_err(|error| Sqlx::Decode(Box::new(error)))?,
    }))
}
