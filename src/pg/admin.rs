//! One administrative session: a direct connection to the maintenance database, and every statement that is sent on it.
//!
//! Everything goes through the simple protocol: one round trip a call, several statements in one where that saves one. A crash
//! ends the session, which frees its locks; a statement that the server had begun it finishes or undoes by itself.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Either, Error as Sqlx, PgConnection, Row};

use super::address::Address;
use super::error::{ConnectFailure, Doing, PgError, backoff, classify, code_of};
use super::lock::LockKey;
use crate::name::{DbName, Kind, Namespace};

/// How long to go on trying to connect.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While nothing answers at all (refused, no socket).
    pub absent: Duration,
    /// While the server answers that it cannot just now (starting up, too many connections).
    pub busy: Duration,
}

impl Patience {
    /// For a server that is known to run.
    pub const RUNNING: Self = Self {
        absent: Duration::from_secs(2),
        busy: Duration::from_secs(30),
    };
    /// One attempt.
    pub const NONE: Self = Self {
        absent: Duration::ZERO,
        busy: Duration::ZERO,
    };
}

/// What a server says of itself and of us.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// `server_version_num`: 150004 is 15.4.
    pub version_num: i32,
    /// The role we are.
    pub role: String,
    /// Whether the role may create databases.
    pub can_create: bool,
    /// Whether the role is a superuser.
    pub superuser: bool,
    /// `fsync` of the server.
    pub fsync: bool,
    /// `max_connections` of the server.
    pub max_connections: i64,
    /// Encoding, collation, character type and collation version of the database that templates are made from.
    pub base_locale: String,
}

impl ServerFacts {
    /// The major version: 15 for 15.4.
    pub fn major(&self) -> i32 {
        self.version_num / 10_000
    }
}

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

/// `idle_session_timeout` is known since PostgreSQL 14 only, so it cannot be a startup option.
const NO_IDLE_TIMEOUT: &str = "SELECT set_config('idle_session_timeout', '0', false) \
    WHERE current_setting('server_version_num')::int4 >= 140000;";

/// How `CREATE DATABASE` copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The server's own default.
    Default,
    /// Copies files and forces checkpoints: cheap only with `fsync=off`.
    FileCopy,
}

/// A session in the maintenance database.
#[derive(Debug)]
pub struct Admin {
    connection: PgConnection,
    address: Address,
}

/// Options of a session that may hold locks: no time-out may end it, and keepalives notice a dead peer within about a minute.
fn lock_session(options: PgConnectOptions) -> PgConnectOptions {
    quiet(options).options([
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
    ])
}

/// Keeps what is normal here out of the log: builds and waits for locks are slow, and VACUUM warns of every catalog that is not
/// ours.
pub fn quiet(options: PgConnectOptions) -> PgConnectOptions {
    options
        .options([("client_min_messages", "error")])
        .disable_statement_logging()
}

/// Connects, waiting out what passes within `patience`. A database that does not exist comes back as a statement error with
/// SQLSTATE 3D000.
///
/// # Errors
/// [`PgError`] with the remedy.
pub async fn connect(
    address: &Address,
    options: &PgConnectOptions,
    patience: Patience,
) -> Result<PgConnection, PgError> {
    let begun = Instant::now();
    for attempt in 0.. {
        let error = match options.connect().await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let waited = begun.elapsed();
        let limit = match (&error, classify(&error)) {
            (Sqlx::Io(io), _) if is_absent(io) => patience.absent,
            (_, ConnectFailure::Passing) => patience.busy,
            _ => Duration::ZERO,
        };
        if waited >= limit {
            return Err(connect_error(address, error, waited));
        }
        if attempt == 3 {
            tracing::info!("waiting for PostgreSQL at `{address}`: {error}");
        }
        tokio::time::sleep(backoff(attempt).min(limit - waited)).await;
    }
    unreachable!("the loop ends by returning")
}

/// Opens a session on a database and ends it.
///
/// # Errors
/// See [`connect`].
pub async fn connect_once(address: &Address, database: &str) -> Result<(), PgError> {
    let options = quiet(address.options(database)).application_name("kapsel-testdb keeper");
    let connection = connect(address, &options, Patience::RUNNING).await?;
    connection
        .close()
        .await
        .doing(|| format!("end a session on `{database}`"))
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(error.kind(), Io::ConnectionRefused | Io::NotFound)
}

fn connect_error(address: &Address, error: Sqlx, waited: Duration) -> PgError {
    let address = address.to_string();
    let message = error.to_string();
    if classify(&error) == ConnectFailure::Passing {
        return PgError::Busy {
            address,
            message,
            waited,
        };
    }
    match error {
        Sqlx::Io(source) => PgError::Unreachable { address, source },
        Sqlx::Tls(_) => PgError::Tls { address, message },
        Sqlx::Database(ref e) if e.code().is_some_and(|c| c.starts_with("28")) => PgError::Login {
            address,
            message: e.message().to_owned(),
        },
        source => PgError::Statement {
            doing: format!("connect to PostgreSQL at `{address}`"),
            source,
        },
    }
}

impl Admin {
    /// Connects to a maintenance database for administrative work.
    ///
    /// # Errors
    /// See [`connect`].
    pub async fn connect(
        address: &Address,
        database: &str,
        purpose: &str,
        patience: Patience,
    ) -> Result<Self, PgError> {
        let options = lock_session(address.options(database))
            .application_name(&format!("kapsel-testdb {purpose}"));
        let connection = connect(address, &options, patience).await?;
        Ok(Self {
            connection,
            address: address.clone(),
        })
    }

    /// Ends the session; the server frees its locks.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }

    async fn run(&mut self, sql: String, doing: impl FnOnce() -> String) -> Result<(), PgError> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.connection)
            .await
            .map(drop)
            .doing(doing)
    }

    async fn rows(&mut self, sql: String, doing: &str) -> Result<Vec<PgRow>, PgError> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await
            .doing(|| doing.to_owned())
    }

    /// Asks the server who it is and who we are, in one round trip.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn facts(&mut self, base: &str) -> Result<ServerFacts, PgError> {
        let sql = format!(
            "{NO_IDLE_TIMEOUT} \
             SELECT current_setting('server_version_num')::int4 AS version_num, current_user::text AS role, \
             (r.rolcreatedb OR r.rolsuper) AS can_create, r.rolsuper AS superuser, \
             current_setting('fsync')::bool AS fsync, current_setting('max_connections')::int8 AS max_connections, \
             (SELECT concat_ws('/', pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, \
               coalesce(to_jsonb(d)->>'datlocprovider', ''), \
               coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''), \
               coalesce(to_jsonb(d)->>'datcollversion', '')) \
              FROM pg_database d WHERE d.datname = {}) AS base_locale \
             FROM pg_roles r WHERE r.rolname = current_user",
            literal(base)
        );
        let rows = self.rows(sql, "read the server's settings").await?;
        let doing = || "read the server's settings".to_owned();
        let row = rows.last().ok_or(Sqlx::RowNotFound).doing(doing)?;
        let read = || {
            Ok(ServerFacts {
                version_num: row.try_get("version_num")?,
                role: row.try_get("role")?,
                can_create: row.try_get("can_create")?,
                superuser: row.try_get("superuser")?,
                fsync: row.try_get("fsync")?,
                max_connections: row.try_get("max_connections")?,
                base_locale: row
                    .try_get::<Option<String>, _>("base_locale")?
                    .unwrap_or_default(),
            })
        };
        read().doing(doing)
    }

    /// Takes locks shared, waiting for each.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock_shared(&mut self, keys: &[LockKey]) -> Result<(), PgError> {
        let locks: String = keys
            .iter()
            .map(|k| format!("SELECT pg_advisory_lock_shared({});", k.as_i64()))
            .collect();
        let sql = format!("{NO_IDLE_TIMEOUT}{locks}");
        self.run(sql, || "take the run lock".to_owned()).await
    }

    /// Tries to take a lock shared. `false`: somebody holds it exclusive.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn try_lock_shared(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.lock_call("pg_try_advisory_lock_shared", key).await
    }

    /// Tries to take a lock exclusive. `false`: somebody holds it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn try_lock(&mut self, key: LockKey) -> Result<bool, PgError> {
        self.lock_call("pg_try_advisory_lock", key).await
    }

    /// Takes a lock exclusive, waiting for it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_lock({})", key.as_i64());
        self.run(sql, || "wait for a lock".to_owned()).await
    }

    /// Frees a lock held exclusive.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn unlock(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock({})", key.as_i64());
        self.run(sql, || "free a lock".to_owned()).await
    }

    /// Frees a lock held shared.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn unlock_shared(&mut self, key: LockKey) -> Result<(), PgError> {
        let sql = format!("SELECT pg_advisory_unlock_shared({})", key.as_i64());
        self.run(sql, || "free a lock".to_owned()).await
    }

    async fn lock_call(&mut self, function: &str, key: LockKey) -> Result<bool, PgError> {
        let sql = format!("SELECT {function}({}) AS got", key.as_i64());
        let rows = self.rows(sql, "try a lock").await?;
        rows.first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get("got"))
            .doing(|| "try a lock".to_owned())
    }

    /// Who holds a lock: application name, process id and client address of each session.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn lock_holders(&mut self, key: LockKey) -> Result<Vec<String>, PgError> {
        let (high, low) = (key.as_i64() >> 32, key.as_i64() & 0xffff_ffff);
        let sql = format!(
            "SELECT concat_ws(' ', '`' || coalesce(a.application_name, '?') || '`', '(backend ' || l.pid || ')', \
               'on ' || a.client_addr::text) AS holder \
             FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
               AND l.classid = {high} AND l.objid = {low} \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        let rows = self.rows(sql, "look who holds a lock").await?;
        rows.iter()
            .map(|row| row.try_get("holder"))
            .collect::<Result<_, _>>()
            .doing(|| "look who holds a lock".to_owned())
    }

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

    /// Creates a database from another one.
    ///
    /// # Errors
    /// A failed statement: 42P04 where the name is taken, 55006 where somebody is connected to the source, 3D000 where there is
    /// no such source.
    pub async fn create_database(
        &mut self,
        name: &DbName,
        source: &str,
        strategy: Strategy,
    ) -> Result<(), PgError> {
        let strategy = match strategy {
            Strategy::Default => "",
            Strategy::FileCopy => " STRATEGY FILE_COPY",
        };
        let sql = format!(
            "CREATE DATABASE {} TEMPLATE {}{strategy}",
            name.quoted(),
            identifier(source)
        );
        self.run(sql, || format!("create `{name}` from `{source}`"))
            .await
    }

    /// Creates a database with any name: the persistent one.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn create_plain_database(&mut self, name: &str) -> Result<(), PgError> {
        let sql = format!("CREATE DATABASE {}", identifier(name));
        self.run(sql, || format!("create the database `{name}`"))
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

    /// Drops a database; a template is unsealed first. With `force` its sessions are ended: only for a run's own released or
    /// abandoned databases, or behind the fence. A database that is gone already is fine.
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

    /// Ends the sessions on a database.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn end_sessions(&mut self, name: &DbName) -> Result<(), PgError> {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}",
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
        let options = self.address.options(&name.to_string());
        let mut connection = connect(&self.address, &options, Patience::RUNNING).await?;
        let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await;
        for row in rows.doing(doing)? {
            let gid: String = row.try_get("gid").doing(doing)?;
            let sql = format!("ROLLBACK PREPARED {}", literal(&gid));
            let ran = sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await;
            ran.doing(doing)?;
        }
        connection.close().await.doing(doing)
    }

    /// The database-level settings and grants, which `CREATE DATABASE … TEMPLATE` does not copy, as statements with `{}` in the
    /// place of the database's name.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn database_settings(&mut self, name: &DbName) -> Result<Vec<String>, PgError> {
        let database = literal(&name.to_string());
        let sql = format!(
            "SELECT CASE WHEN s.setrole = 0 THEN 'ALTER DATABASE {{}}' \
               ELSE format('ALTER ROLE %I IN DATABASE {{}}', pg_get_userbyid(s.setrole)) END \
               || format(' SET %s = %s', split_part(c, '=', 1), \
                 CASE WHEN split_part(c, '=', 1) IN ('search_path', 'DateStyle', 'datestyle', 'temp_tablespaces', \
                   'session_preload_libraries', 'local_preload_libraries') \
                 THEN substr(c, strpos(c, '=') + 1) ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END) AS statement \
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c \
             WHERE d.datname = {database} \
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
            .doing(|| "read database-level settings".to_owned())
    }

    /// Gives a database the settings and grants that [`Self::database_settings`] read.
    ///
    /// # Errors
    /// A failed statement.
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
        self.run(sql.join(";"), || {
            format!("apply the template's database-level settings to `{name}`")
        })
        .await
    }

    /// Asks for nothing: whether the session, and with it every lock, is still there.
    ///
    /// # Errors
    /// The session is gone.
    pub async fn verify(&mut self) -> Result<(), PgError> {
        self.run("SELECT 1".to_owned(), || {
            "reach the server on the run's own connection".to_owned()
        })
        .await
    }

    /// The size of a database in bytes.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn database_size(&mut self, name: &DbName) -> Result<u64, PgError> {
        let doing = || format!("measure `{name}`");
        let sql = format!(
            "SELECT pg_database_size({}) AS bytes",
            literal(&name.to_string())
        );
        let rows = self.rows(sql, "measure a database").await?;
        let bytes: i64 = rows
            .first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get("bytes"))
            .doing(doing)?;
        Ok(bytes.unsigned_abs())
    }

    /// Where the server's data is. Superusers and members of `pg_read_all_settings` may know.
    ///
    /// # Errors
    /// A failed statement: 42501 where we may not know.
    pub async fn data_directory(&mut self) -> Result<String, PgError> {
        let doing = "ask for the data directory";
        let sql = "SELECT current_setting('data_directory') AS path".to_owned();
        let rows = self.rows(sql, doing).await?;
        rows.first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get("path"))
            .doing(|| doing.to_owned())
    }

    /// Counts client sessions on the server.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn count_connections(&mut self) -> Result<i64, PgError> {
        let sql =
            "SELECT count(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let rows = self.rows(sql.to_owned(), "count connections").await?;
        rows.first()
            .ok_or(Sqlx::RowNotFound)
            .and_then(|row| row.try_get("n"))
            .doing(|| "count connections".to_owned())
    }
}

/// Runs a script and tells how many of its statements had succeeded when one failed.
///
/// # Errors
/// The number of statements that succeeded, and what the next one met.
pub async fn run_script(connection: &mut PgConnection, sql: &str) -> Result<(), (usize, Sqlx)> {
    let mut done = 0;
    let mut results = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_many(&mut *connection);
    loop {
        match results.try_next().await {
            Ok(Some(Either::Left(_))) => done += 1,
            Ok(Some(Either::Right(_))) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err((done, error)),
        }
    }
}

/// Whether a connect failed because the database does not exist.
pub fn is_missing_database(error: &Sqlx) -> bool {
    code_of(error).as_deref() == Some(super::error::code::INVALID_CATALOG_NAME)
}

fn database_query(condition: &str, with_sessions: bool) -> String {
    let (sessions, prepared, activity) = if with_sessions {
        (
            "(SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend')",
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

/// Text as an SQL string. Sessions have `standard_conforming_strings` on, as every server since 9.1 by default; a backslash is
/// escaped all the same by choosing the `E''` form.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Text as an SQL identifier.
pub(crate) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
