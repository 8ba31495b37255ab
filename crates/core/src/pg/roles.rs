//! Roles, which belong to the whole server. They are created if they are missing, and never dropped: other projects may use them too.

use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::sql::{identifier, literal};
use crate::sqlstate;

/// What a role may do that decides whether row-level security applies to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleRights {
    /// Whether it is a superuser.
    pub superuser: bool,
    /// Whether it has `BYPASSRLS`.
    pub bypasses_rls: bool,
    /// Whether it may log in.
    pub login: bool,
}

impl Admin {
    /// The rights of a role; `None` if it does not exist.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn role(&mut self, name: &str) -> Result<Option<RoleRights>, PgError> {
        let context = "read the rights of a role";
        let sql = format!(
            "SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = {}",
            literal(name)
        );
        let rows = self.rows(sql, context).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let read = || -> Result<RoleRights, Sqlx> {
            Ok(RoleRights {
                superuser: row.try_get("rolsuper")?,
                bypasses_rls: row.try_get("rolbypassrls")?,
                login: row.try_get("rolcanlogin")?,
            })
        };
        read().context(|| context.to_owned()).map(Some)
    }

    /// Creates a role without rights, unless it exists. `key`: the key of the configuration that names it.
    ///
    /// # Errors
    /// A statement failed.
    pub async fn ensure_role(&mut self, name: &str, key: &str) -> Result<(), PgError> {
        if self.role(name).await?.is_some() {
            return Ok(());
        }
        let sql = format!("CREATE ROLE {}", identifier(name));
        let context = || format!("create the role `{name}` of `{key}`");
        match self.run(sql.clone(), context).await {
            // Another process created it at this moment.
            Err(error)
                if error.is(sqlstate::DUPLICATE_OBJECT) || error.is(sqlstate::UNIQUE_VIOLATION) =>
            {
                Ok(())
            }
            Err(error) if error.is(sqlstate::INSUFFICIENT_PRIVILEGE) => Err(PgError::WithRemedy {
                remedy: format!(
                    "as a superuser, run `{sql}`, or `ALTER ROLE {} CREATEROLE`",
                    identifier(&self.address().user)
                ),
                cause: Box::new(error),
            }),
            result => result,
        }
    }

    /// Lets a role log in.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn allow_login(&mut self, name: &str) -> Result<(), PgError> {
        let sql = format!("ALTER ROLE {} LOGIN", identifier(name));
        match self
            .run(sql, || format!("let the role `{name}` log in"))
            .await
        {
            // Another process does the same at this moment.
            Err(error) if error.is(sqlstate::INTERNAL_ERROR) => Ok(()),
            result => result,
        }
    }
}
