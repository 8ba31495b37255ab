//! Statements about the persistent database, which has a name of the user's choice. It is dropped only if its comment shows that we created it.

use sqlx::{Error as Sqlx, Row};

use crate::pg::admin::Admin;
use crate::pg::error::{Context, PgError};
use crate::pg::sql::{identifier, literal};

/// What is known about an existing persistent database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistentDatabase {
    /// Whether our role owns it.
    pub owned: bool,
    /// Its owner.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
}

impl Admin {
    /// Finds a persistent database.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn persistent_database(
        &mut self,
        name: &str,
    ) -> Result<Option<PersistentDatabase>, PgError> {
        const WHAT: &str = "look up the persistent database";
        let sql = format!(
            "SELECT pg_get_userbyid(d.datdba)::text AS owner, pg_get_userbyid(d.datdba) = current_user AS owned, \
               shobj_description(d.oid, 'pg_database') AS comment \
             FROM pg_database d WHERE d.datname = {}",
            literal(name)
        );
        let rows = self.rows(sql, WHAT).await?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok::<_, Sqlx>(PersistentDatabase {
                owned: row.try_get("owned")?,
                owner: row.try_get("owner")?,
                comment: row.try_get("comment")?,
            })
        };
        let found = rows.first().map(read).transpose();
        found.context(|| WHAT.to_owned())
    }

    /// Sets the comment of a persistent database that was just created.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn mark_persistent_database(
        &mut self,
        name: &str,
        comment: &str,
    ) -> Result<(), PgError> {
        let (name, comment) = (identifier(name), literal(comment));
        let sql = format!("COMMENT ON DATABASE {name} IS {comment}");
        self.change_database(&sql, || format!("comment on {name}"))
            .await
    }

    /// Drops a persistent database that is marked. Sessions on it stay, and then it does, too.
    ///
    /// # Errors
    /// The statement failed: 55006 if the database has sessions.
    pub async fn drop_persistent_database(&mut self, name: &str) -> Result<(), PgError> {
        let name = identifier(name);
        let sql = format!("DROP DATABASE IF EXISTS {name}");
        self.change_database(&sql, || format!("drop {name}")).await
    }
}
