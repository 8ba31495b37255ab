//! What the server reports about a database to a session on another one: the proof that nobody visited a clone since it was known to equal its template.

use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::sql::literal;
use crate::protocol::{DbName, Fingerprint, Kind, Namespace, Seen};

/// A database as seen from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDatabase {
    /// Its name.
    pub name: DbName,
    /// The counters and its row.
    pub seen: Seen,
    /// Backends of any kind on it.
    pub backends: i64,
    /// Its comment.
    pub comment: Option<String>,
    /// The next transaction id of the server.
    pub xid: u64,
}

/// The query for a database that was created from the template with this name. `pg_stat_wal` was reset when the server recovered from a crash. A
/// replication slot or a subscription makes the row another one.
fn query(template: &DbName) -> String {
    let template = literal(&template.to_string());
    format!(
        "SELECT d.datname::text AS datname, \
           pg_stat_get_db_sessions(d.oid) AS sessions, pg_stat_get_db_numbackends(d.oid)::int8 AS backends, \
           pg_stat_get_db_tuples_inserted(d.oid) AS inserted, pg_stat_get_db_tuples_updated(d.oid) AS updated, pg_stat_get_db_tuples_deleted(d.oid) AS deleted, \
           concat_ws(' ', extract(epoch FROM pg_stat_get_db_stat_reset_time(d.oid)), (SELECT extract(epoch FROM stats_reset) FROM pg_stat_wal)) AS resets, \
           md5(concat_ws(' ', to_jsonb(d) - '{{oid,datname,datfrozenxid,datminmxid}}'::text[], \
             (SELECT json_agg(s ORDER BY s.setrole) FROM pg_db_role_setting s WHERE s.setdatabase = d.oid), \
             (SELECT json_agg(l ORDER BY l.provider) FROM pg_shseclabel l WHERE l.objoid = d.oid AND l.classoid = 'pg_database'::regclass), \
             (SELECT count(*) FROM pg_replication_slots r WHERE r.database = d.datname), \
             (SELECT count(*) FROM pg_subscription u WHERE u.subdbid = d.oid))) AS row, \
           coalesce((SELECT t.oid::int8 FROM pg_database t WHERE t.datname = {template}), 0) AS template, \
           shobj_description(d.oid, 'pg_database') AS comment, pg_snapshot_xmax(pg_current_snapshot())::text AS xid \
         FROM pg_database d WHERE "
    )
}

fn template_of(name: &DbName) -> DbName {
    DbName::template(name.namespace(), name.fingerprint())
}

impl Admin {
    /// What the server reports about a database; `None` if it does not exist. Needs PostgreSQL 15.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn seen(&mut self, name: &DbName) -> Result<Option<SeenDatabase>, PgError> {
        let sql = format!(
            "{} d.datname = {}",
            query(&template_of(name)),
            literal(&name.to_string())
        );
        let context = "read what the server reports about a database";
        Ok(self.read_seen(sql, context).await?.pop())
    }

    /// Renames a database, replaces its comment, and reports what the server knows about it then: all in one transaction, so nobody can connect in
    /// between; afterwards, nobody knows the new name.
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
        let sql = format!(
            "ALTER DATABASE {quoted} RENAME TO {new}; COMMENT ON DATABASE {new} IS {comment}; {} d.datname = {}",
            query(&template_of(to)),
            literal(&to.to_string())
        );
        let context = format!("rename `{from}` to `{to}`");
        let row = self.read_seen(sql, &context).await?.pop();
        row.ok_or(Sqlx::RowNotFound).context(|| context)
    }

    /// The spares of a template that our role owns.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn spares(
        &mut self,
        namespace: &Namespace,
        fingerprint: &Fingerprint,
    ) -> Result<Vec<SeenDatabase>, PgError> {
        let pattern = format!("{namespace}\\_{}\\_{fingerprint}\\_%", Kind::Spare.as_str());
        let sql = format!(
            "{} d.datname LIKE {} AND d.datconnlimit <> -2 AND d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)",
            query(&DbName::template(namespace, fingerprint)),
            literal(&pattern)
        );
        self.read_seen(sql, "list the spares").await
    }

    async fn read_seen(
        &mut self,
        sql: String,
        context: &str,
    ) -> Result<Vec<SeenDatabase>, PgError> {
        let rows = self.rows(sql, context).await?;
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
    Ok(Some(SeenDatabase {
        name,
        seen: Seen {
            sessions: row.try_get("sessions")?,
            tuples: [
                row.try_get("inserted")?,
                row.try_get("updated")?,
                row.try_get("deleted")?,
            ],
            resets: row.try_get("resets")?,
            row: row.try_get("row")?,
            template: u32::try_from(row.try_get::<i64, _>("template")?).unwrap_or(0),
        },
        backends: row.try_get("backends")?,
        comment: row.try_get("comment")?,
        xid: xid.parse().map_err(|error| Sqlx::Decode(Box::new(error)))?,
    }))
}
