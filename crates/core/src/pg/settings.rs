//! Database-level settings and grants, which `CREATE DATABASE … TEMPLATE` does not copy.

use sqlx::Row;

use crate::pg::admin::Admin;
use crate::pg::connect::{RetryLimits, lock_session};
use crate::pg::error::{Context, PgError};
use crate::pg::session::{DATABASE_LIMIT, STATEMENT_LIMIT, Session};
use crate::pg::sql::literal;
use crate::protocol::DbName;

impl Admin {
    /// The database-level settings and grants as statements with `{}` as the placeholder of the database's name.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn database_settings(&mut self, name: &DbName) -> Result<Vec<String>, PgError> {
        let database = literal(&name.to_string());
        let sql = format!(
            "SELECT CASE WHEN s.setrole = 0 THEN 'ALTER DATABASE {{}}' \
               ELSE format('ALTER ROLE %I IN DATABASE {{}}', pg_get_userbyid(s.setrole)) END \
               || format(' SET %s = %s', split_part(c, '=', 1), \
                 CASE WHEN split_part(c, '=', 1) IN ('search_path', 'DateStyle', 'datestyle', 'temp_tablespaces', \
                   'session_preload_libraries', 'local_preload_libraries') \
                 THEN regexp_replace(substr(c, strpos(c, '=') + 1), '(^|, )\"\"(,|$)', '\\1''''\\2', 'g') ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END) AS statement \
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c \
             WHERE d.datname = {database} \
             UNION ALL \
             SELECT format('ALTER DATABASE {{}} CONNECTION LIMIT %s', d.datconnlimit) FROM pg_database d \
             WHERE d.datname = {database} AND d.datconnlimit >= 0 \
             UNION ALL \
             SELECT format('%s %s ON DATABASE {{}} %s %s%s', CASE WHEN g.present THEN 'GRANT' ELSE 'REVOKE' END, \
               g.privilege_type, CASE WHEN g.present THEN 'TO' ELSE 'FROM' END, \
               CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, \
               CASE WHEN g.present AND g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
             FROM pg_database d, LATERAL ( \
               (SELECT true AS present, grantee, privilege_type, is_grantable FROM aclexplode(d.datacl) \
                EXCEPT SELECT true, grantee, privilege_type, is_grantable FROM aclexplode(acldefault('d', d.datdba))) \
               UNION ALL \
               (SELECT false, grantee, privilege_type, is_grantable FROM aclexplode(acldefault('d', d.datdba)) \
                EXCEPT SELECT false, grantee, privilege_type, is_grantable FROM aclexplode(d.datacl))) g \
             WHERE d.datname = {database} AND d.datacl IS NOT NULL"
        );
        let rows = self.rows(sql, "read database-level settings").await?;
        rows.iter()
            .map(|row| row.try_get("statement"))
            .collect::<Result<_, _>>()
            .context(|| "read database-level settings".to_owned())
    }

    /// Applies settings and grants from [`Self::database_settings`] to a database, in one transaction.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn apply_settings(
        &mut self,
        name: &DbName,
        settings: &[String],
    ) -> Result<(), PgError> {
        if settings.is_empty() {
            return Ok(());
        }
        let sql: Vec<String> = settings
            .iter()
            .map(|s| s.replacen("{}", &name.quoted(), 1))
            .collect();
        let sql = sql.join(";");
        let context = || format!("apply the template's database-level settings to `{name}`");
        if settings.iter().any(|s| is_of_extension(s)) && !self.is_superuser().await? {
            return self.run_with_libraries(name, &sql, context).await;
        }
        self.change_database(&sql, context).await
    }

    async fn is_superuser(&mut self) -> Result<bool, PgError> {
        let sql = "SELECT current_setting('is_superuser')::bool";
        self.value(sql.to_owned(), "read the role's privileges")
            .await
    }

    /// Only a superuser may set what the server does not know, and a session knows the settings of an extension once it has loaded the library. So this
    /// runs on a session of the database, after the validator of C functions has loaded the libraries of all extensions.
    async fn run_with_libraries(
        &mut self,
        name: &DbName,
        sql: &str,
        context: impl Fn() -> String,
    ) -> Result<(), PgError> {
        const LOAD: &str = "SELECT fmgr_c_validator(l.function) FROM \
             (SELECT min(p.oid) AS function FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
              WHERE l.lanname = 'c' AND p.oid >= 16384 AND has_function_privilege(p.oid, 'EXECUTE') GROUP BY p.probin) l";
        let options = lock_session(self.address().options(&name.to_string()));
        let options = options.application_name("kapsel-testdb settings");
        let mut session = Session::connect(self.address(), &options, RetryLimits::RUNNING).await?;
        session.execute(LOAD, STATEMENT_LIMIT, &context).await?;
        session.execute(sql, DATABASE_LIMIT, &context).await?;
        session.close(context).await
    }
}

/// Whether a statement of [`Admin::database_settings`] sets a parameter of an extension, such as `pg_trgm.similarity_threshold`.
fn is_of_extension(statement: &str) -> bool {
    let set = statement.split_once("{} SET ").map(|(_, set)| set);
    let name = set.and_then(|set| set.split_once(" = "));
    name.is_some_and(|(name, _)| name.contains('.'))
}
