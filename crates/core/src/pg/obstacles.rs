//! What makes the server refuse to drop or rename one of our databases, besides clients: prepared transactions, subscriptions, logical replication slots
//! in use, and background workers.
//!
//! Each step can be repeated, and a crash leaves the rest to the next process that drops the database. A subscription is detached before it is dropped:
//! the server would otherwise connect to the publisher, which may be gone, or be this server, which is busy with the drop. So the slot of a publisher that
//! is not dropped with the run stays there.

use std::time::{Duration, Instant};

use sqlx::Row;

use crate::pg::admin::Admin;
use crate::pg::connect::{RetryLimits, lock_session};
use crate::pg::error::{Context, PgError, backoff};
use crate::pg::session::{STATEMENT_LIMIT, Session};
use crate::pg::sql::{identifier, literal};
use crate::protocol::DbName;
use crate::sqlstate;

/// How long workers and WAL senders may take to end.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement in the database may take: a session may hold a lock on a subscription.
const STATEMENT_TIMEOUT: &str = "10s";
/// The backends that are neither clients nor ended by the server itself. A backend of another role has no visible type and counts as a client.
const WORKERS: &str = "backend_type NOT IN ('client backend', 'autovacuum worker')";
/// Leads to no server, so that `DROP SUBSCRIPTION` does not wait for one. The password satisfies the server's check for roles that need one.
const NO_PUBLISHER: &str = "'host=/nonexistent dbname=none user=none password=none'";

/// Why the obstacles are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The database is dropped: the server drops its unused slots with it.
    Drop,
    /// The database is renamed and kept: its subscriptions are disabled, and its slots dropped, because a slot makes the server retain its WAL.
    Keep,
}

/// Counts the obstacles of the database `d`, in SQL. Each may delay or prevent a drop.
pub(super) fn count() -> String {
    format!(
        "((SELECT count(*) FROM pg_prepared_xacts p WHERE p.database = d.datname) \
         + (SELECT count(*) FROM pg_subscription u WHERE u.subdbid = d.oid) \
         + (SELECT count(*) FROM pg_replication_slots r WHERE r.database = d.datname AND r.active) \
         + (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.{WORKERS}))"
    )
}

impl Admin {
    /// Removes what makes the server refuse to drop or rename a database of ours, and returns whether there was anything. Client sessions stay.
    ///
    /// # Errors
    /// A statement failed: 42501 if the role may not end something.
    pub async fn clear_obstacles(
        &mut self,
        name: &DbName,
        purpose: Purpose,
    ) -> Result<bool, PgError> {
        let sql = format!(
            "SELECT d.datallowconn, {} AS obstacles, \
               EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.database = d.datname) \
               OR EXISTS (SELECT FROM pg_subscription u WHERE u.subdbid = d.oid) AS inside \
             FROM pg_database d WHERE d.datname = {}",
            count(),
            literal(&name.to_string())
        );
        let context = "look for what blocks a database";
        let rows = self.rows(sql, context).await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        let read = |column| {
            row.try_get::<bool, _>(column)
                .context(|| context.to_owned())
        };
        let obstacles: i64 = row.try_get("obstacles").context(|| context.to_owned())?;
        if purpose == Purpose::Keep && obstacles == 0 {
            self.drop_slots(name).await;
        }
        if obstacles == 0 {
            return Ok(false);
        }
        if read("inside")? {
            if purpose == Purpose::Drop && !read("datallowconn")? {
                let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", name.quoted());
                self.change_database(&sql, || format!("unseal `{name}`"))
                    .await?;
            }
            self.clear_inside(name, purpose)
                .await
                .map_err(|error| with_remedy(error, name))?;
        }
        self.end_workers(name).await?;
        if purpose == Purpose::Keep {
            self.drop_slots(name).await;
        }
        Ok(true)
    }

    /// Removes what only a session on the database can remove.
    async fn clear_inside(&mut self, name: &DbName, purpose: Purpose) -> Result<(), PgError> {
        let options = lock_session(self.address().options(&name.to_string()))
            .options([("statement_timeout", STATEMENT_TIMEOUT)])
            .application_name("kapsel-testdb drop");
        let mut session = Session::connect(self.address(), &options, RetryLimits::RUNNING).await?;
        roll_back_prepared(&mut session, name).await?;
        clear_subscriptions(&mut session, name, purpose).await?;
        session
            .close(|| format!("close a session on `{name}`"))
            .await
    }

    /// Ends the background workers and WAL senders on a database, and waits until they have ended; at most 10 s.
    async fn end_workers(&mut self, name: &DbName) -> Result<(), PgError> {
        let condition = format!("datname = {} AND {WORKERS}", literal(&name.to_string()));
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {condition} AND pg_has_role(usesysid, 'USAGE')"
        );
        let rest = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE {condition}");
        let begun = Instant::now();
        for attempt in 0.. {
            self.run(end.clone(), || format!("end the workers on `{name}`"))
                .await?;
            let left: i64 = self.value(rest.clone(), "count workers").await?;
            if left == 0 || begun.elapsed() > WORKERS_TIMEOUT {
                break;
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
        Ok(())
    }

    /// Drops the slots of a database, as far as the role may.
    async fn drop_slots(&mut self, name: &DbName) {
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = {} AND NOT active",
            literal(&name.to_string())
        );
        let dropped = self.run(sql, || format!("drop the replication slots of `{name}`"));
        if let Err(error) = dropped.await {
            tracing::warn!(
                "{error}; they make the server retain its WAL until `{name}` is dropped"
            );
        }
    }
}

async fn roll_back_prepared(session: &mut Session, name: &DbName) -> Result<(), PgError> {
    let context = || format!("roll back the prepared transactions in `{name}`");
    let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    let rows = session.rows(sql, STATEMENT_LIMIT, context).await?;
    for row in rows {
        let gid: String = row.try_get("gid").context(context)?;
        let sql = format!("ROLLBACK PREPARED {}", literal(&gid));
        session.execute(&sql, STATEMENT_LIMIT, context).await?;
    }
    Ok(())
}

async fn clear_subscriptions(
    session: &mut Session,
    name: &DbName,
    purpose: Purpose,
) -> Result<(), PgError> {
    let context = || format!("list the subscriptions of `{name}`");
    let sql = "SELECT subname::text FROM pg_subscription WHERE subdbid = \
               (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rows = session.rows(sql, STATEMENT_LIMIT, context).await?;
    for row in rows {
        let plain: String = row.try_get("subname").context(context)?;
        let subscription = identifier(&plain);
        let alter = |what: &str| format!("ALTER SUBSCRIPTION {subscription} {what}");
        let mut steps = vec![alter("DISABLE")];
        if purpose == Purpose::Drop {
            steps.push(alter("SET (slot_name = NONE)"));
            steps.push(alter(&format!("CONNECTION {NO_PUBLISHER}")));
            steps.push(format!("DROP SUBSCRIPTION {subscription}"));
        }
        for step in steps {
            let context = || format!("end the subscription `{plain}` of `{name}`");
            session.execute(&step, STATEMENT_LIMIT, context).await?;
        }
    }
    Ok(())
}

fn with_remedy(error: PgError, name: &DbName) -> PgError {
    if !error.is(sqlstate::INSUFFICIENT_PRIVILEGE) {
        return error;
    }
    PgError::WithRemedy {
        cause: Box::new(error),
        remedy: format!(
            "connect to `{name}` as its owner or as superuser and end it there (`DROP SUBSCRIPTION`, `ROLLBACK PREPARED`); then run \
             `kapsel-testdb sweep` again"
        ),
    }
}
