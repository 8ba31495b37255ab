//! Version, settings and limits of the server, and the privileges of our role, in one round trip on the hot path of every run.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{Error as Sqlx, Row};

use crate::address::Address;
use crate::pg::admin::Admin;
use crate::pg::connect::{RetryLimits, lock_session};
use crate::pg::error::{Context, PgError};
use crate::pg::own::OwnSession;
use crate::pg::session::{STATEMENT_LIMIT, Session};
use crate::pg::sql::{NO_IDLE_TIMEOUT, literal};
use crate::platform::System;

/// Version, settings and limits of a server, and the privileges of our role.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// `server_version_num`: 150004 is 15.4.
    pub version_num: i32,
    /// Our role.
    pub role: String,
    /// Whether the role may create databases.
    pub can_create: bool,
    /// Whether the role is a superuser.
    pub superuser: bool,
    /// `fsync`.
    pub fsync: bool,
    /// Limits on sessions, and the current sessions.
    pub sessions: Sessions,
    /// Encoding, collation, character type and collation version of the database that templates are created from; empty if there
    /// is no such database.
    pub base_locale: String,
    /// The identity of that database, and its contents as far as they can be known; none for `template0`, which is always the same.
    pub base: Option<BaseFacts>,
    /// `ALTER ROLE … SET` for our login role and for all roles: builds start with them.
    pub role_settings: String,
    /// Settings that decide how well the server suits tests.
    pub settings: Settings,
    /// The settings that our sessions start with: [`crate::address::Address::options`].
    pub options: Option<String>,
}

/// A database that templates are created from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseFacts {
    /// Its oid: it has another one if it was dropped and created again.
    pub oid: u32,
    /// Its extensions with their versions; empty if it accepts no connections, because then they cannot be updated.
    pub extensions: String,
}

/// A server's limits on sessions, and its sessions except our administrative ones.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Sessions {
    /// `max_connections` without the connections that are reserved for superusers and members of `pg_use_reserved_connections`.
    pub usable: u32,
    /// `max_connections`.
    pub max_connections: u32,
    /// `CONNECTION LIMIT` of our role, if it has one.
    pub role_limit: Option<u32>,
    /// Sessions per database.
    pub by_database: BTreeMap<String, u32>,
}

/// Settings that make tests slow or fail, and privileges that our role may lack.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `autovacuum`.
    pub autovacuum: bool,
    /// `autovacuum_naptime` in seconds.
    pub autovacuum_naptime: i64,
    /// `jit`.
    pub jit: bool,
    /// `shared_buffers` in bytes.
    pub shared_buffers: i64,
    /// `client_connection_check_interval` in seconds; none before PostgreSQL 14.
    pub check_interval: Option<f64>,
    /// Whether the server runs on Linux.
    pub on_linux: bool,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// `default_transaction_read_only`.
    pub read_only: bool,
    /// Whether we may read every setting, such as `data_directory`.
    pub reads_settings: bool,
    /// Whether we may end other roles' sessions.
    pub signals: bool,
    /// Whether the server received our startup options; a pooler does not pass them on.
    pub options_arrive: bool,
}

impl Default for Settings {
    /// Settings of a server that suits tests.
    fn default() -> Self {
        Self {
            synchronous_commit: "off".to_owned(),
            full_page_writes: false,
            autovacuum: false,
            autovacuum_naptime: 600,
            jit: false,
            shared_buffers: 128 << 20,
            check_interval: Some(1.0),
            on_linux: true,
            in_recovery: false,
            read_only: false,
            reads_settings: true,
            signals: true,
            options_arrive: true,
        }
    }
}

/// [`Settings`] as JSON. `current_setting` is cheap; the view `pg_settings` would compute every setting.
const SETTINGS: &str = "json_build_object( \
    'synchronous_commit', current_setting('synchronous_commit'), \
    'full_page_writes', current_setting('full_page_writes')::bool, \
    'autovacuum', current_setting('autovacuum')::bool, \
    'autovacuum_naptime', extract(epoch FROM current_setting('autovacuum_naptime')::interval)::int8, \
    'jit', current_setting('jit')::bool, \
    'shared_buffers', pg_size_bytes(current_setting('shared_buffers')), \
    'check_interval', extract(epoch FROM current_setting('client_connection_check_interval', true)::interval)::float8, \
    'on_linux', version() ~ ' on [^ ,]*linux', \
    'in_recovery', pg_is_in_recovery(), \
    'read_only', current_setting('default_transaction_read_only')::bool, \
    'reads_settings', pg_has_role(current_user, 'pg_read_all_settings', 'USAGE'), \
    'signals', pg_has_role(current_user, 'pg_signal_backend', 'USAGE'), \
    'options_arrive', current_setting('client_min_messages') = 'error')::text";

/// [`Sessions`] as JSON, without our administrative sessions.
const SESSIONS: &str = "json_build_object( \
    'max_connections', current_setting('max_connections')::int8, \
    'usable', current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
      - coalesce(current_setting('reserved_connections', true)::int8, 0), \
    'role_limit', nullif(r.rolconnlimit, -1), \
    'by_database', (SELECT coalesce(json_object_agg(s.datname, s.n), '{}') FROM \
      (SELECT d.datname, count(*) AS n FROM pg_stat_get_activity(NULL) a JOIN pg_database d ON d.oid = a.datid \
       WHERE coalesce(a.backend_type, 'client backend') = 'client backend' AND a.application_name NOT LIKE 'kapsel-testdb %' GROUP BY 1) s))::text";

impl ServerFacts {
    /// The major version: 15 for 15.4.
    pub fn major(&self) -> i32 {
        self.version_num / 10_000
    }

    /// The operating system of the server.
    pub fn system(&self) -> System {
        System::from_linux(self.settings.on_linux)
    }

    /// Whether clones can be recycled: the server counts in shared memory and can be told to flush.
    pub fn can_recycle(&self) -> bool {
        self.major() >= 15
    }

    /// The version for output: `15.4`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.major(), self.version_num % 10_000)
    }
}

impl Admin {
    /// Reads the facts in one round trip. From now on a signal ends this session.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn facts(&mut self, base: &str) -> Result<ServerFacts, PgError> {
        let sql = format!(
            "{NO_IDLE_TIMEOUT} \
             SELECT current_setting('server_version_num')::int4 AS version_num, current_user::text AS role, \
             (r.rolcreatedb OR r.rolsuper) AS can_create, r.rolsuper AS superuser, \
             current_setting('fsync')::bool AS fsync, pg_backend_pid() AS backend, \
             {SETTINGS} AS settings, {SESSIONS} AS sessions, \
             {base_locale} AS base_locale, \
             (SELECT d.oid::int8 FROM pg_database d WHERE d.datname = {base_name}) AS base_oid, \
             (SELECT d.datallowconn FROM pg_database d WHERE d.datname = {base_name}) AS base_open, \
             (SELECT string_agg(c, '; ' ORDER BY s.setrole, n) FROM pg_db_role_setting s, \
                unnest(s.setconfig) WITH ORDINALITY AS u (c, n) \
              WHERE s.setdatabase = 0 AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))) AS role_settings \
             FROM pg_roles r WHERE r.rolname = current_user",
            base_locale = base_locale(base),
            base_name = literal(base)
        );
        let context = || "read the server's settings".to_owned();
        let rows = self.rows(sql, "read the server's settings").await?;
        let row = rows.last().ok_or(Sqlx::RowNotFound).context(context)?;
        let backend = row.try_get("backend").context(context)?;
        if self.own.is_none() {
            self.own = Some(OwnSession::new(self.address(), backend));
        }
        let base = base_facts(self.address(), base, row).await?;
        let read = || {
            let (settings, sessions): (String, String) =
                (row.try_get("settings")?, row.try_get("sessions")?);
            let invalid = |e: serde_json::Error| Sqlx::Decode(e.into());
            Ok(ServerFacts {
                version_num: row.try_get("version_num")?,
                role: row.try_get("role")?,
                can_create: row.try_get("can_create")?,
                superuser: row.try_get("superuser")?,
                fsync: row.try_get("fsync")?,
                base_locale: row
                    .try_get::<Option<String>, _>("base_locale")?
                    .unwrap_or_default(),
                base,
                role_settings: row
                    .try_get::<Option<String>, _>("role_settings")?
                    .unwrap_or_default(),
                settings: serde_json::from_str(&settings).map_err(invalid)?,
                sessions: serde_json::from_str(&sessions).map_err(invalid)?,
                options: self.address().options.clone(),
            })
        };
        read().context(context)
    }

    /// The versions in which the server would create these extensions now.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn default_versions(
        &mut self,
        extensions: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, String>, PgError> {
        let names: Vec<String> = extensions.map(|name| literal(name)).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let context = "read the versions of extensions";
        let sql = format!(
            "SELECT name::text AS name, default_version FROM pg_available_extensions() WHERE name IN ({})",
            names.join(",")
        );
        let rows = self.rows(sql, context).await?;
        let read = |row: &PgRow| Ok((row.try_get("name")?, row.try_get("default_version")?));
        let versions = rows.iter().map(read).collect::<Result<_, Sqlx>>();
        versions.context(|| context.to_owned())
    }

    /// The extensions of `wanted` that this role cannot create here, with the reasons.
    ///
    /// # Errors
    /// The statement failed.
    pub async fn missing_extensions(
        &mut self,
        wanted: &[String],
        superuser: bool,
    ) -> Result<Vec<(String, ExtensionProblem)>, PgError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let context = "list the extensions";
        let sql = "SELECT name::text AS name, bool_or(trusted OR NOT superuser) AS free FROM pg_available_extension_versions GROUP BY name";
        let rows = self.rows(sql.to_owned(), context).await?;
        let mut found = BTreeMap::new();
        for row in rows {
            let read = || Ok((row.try_get("name")?, row.try_get("free")?));
            let (name, free): (String, bool) = read().context(|| context.to_owned())?;
            found.insert(name, free);
        }
        let problem = |name: &String| match found.get(name) {
            None => Some((name.clone(), ExtensionProblem::NotInstalled)),
            Some(false) if !superuser => Some((name.clone(), ExtensionProblem::NeedsSuperuser)),
            Some(_) => None,
        };
        Ok(wanted.iter().filter_map(problem).collect())
    }
}

/// A query of a database's encoding and locale, with the versions of the libraries that sort. OFFSET 0 keeps the server from computing the row of the
/// database again for each of some 800 collations, which took 17 ms.
fn base_locale(base: &str) -> String {
    format!(
        "(SELECT concat_ws('/', pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, d.provider, coalesce(d.locale, ''), \
           (SELECT string_agg(DISTINCT pg_collation_actual_version(c.oid), ' ') FROM pg_collation c \
            WHERE c.collcollate = d.datcollate OR c.collname IN (CASE d.provider WHEN 'i' THEN 'und-x-icu' END, d.locale || '-x-icu'))) \
          FROM (SELECT d.encoding, d.datcollate, d.datctype, coalesce(j->>'datlocprovider', '') AS provider, \
              coalesce(j->>'datlocale', j->>'daticulocale') AS locale \
            FROM pg_database d, to_jsonb(d) j WHERE d.datname = {} OFFSET 0) d)",
        literal(base)
    )
}

async fn base_facts(
    address: &Address,
    base: &str,
    row: &PgRow,
) -> Result<Option<BaseFacts>, PgError> {
    let context = || format!("read the extensions of `{base}`");
    let read = || Ok((row.try_get("base_oid")?, row.try_get("base_open")?));
    let (oid, open): (Option<i64>, Option<bool>) = read().context(context)?;
    let oid = oid.and_then(|oid| u32::try_from(oid).ok());
    let Some(oid) = oid.filter(|_| base != "template0") else {
        return Ok(None);
    };
    let extensions = match open {
        Some(true) => extensions_of(address, base).await?,
        _ => String::new(),
    };
    Ok(Some(BaseFacts { oid, extensions }))
}

/// The extensions of a database with their versions.
async fn extensions_of(address: &Address, database: &str) -> Result<String, PgError> {
    const EXTENSIONS: &str = "SELECT string_agg(extname || ' ' || extversion, ', ' ORDER BY extname) AS extensions \
         FROM pg_extension WHERE extname <> 'plpgsql'";
    let context = || format!("read the extensions of `{database}`");
    let options = lock_session(address.options(database)).application_name("kapsel-testdb base");
    let mut session = Session::connect(address, &options, RetryLimits::RUNNING).await?;
    let rows = session.rows(EXTENSIONS, STATEMENT_LIMIT, context).await?;
    session.close(context).await?;
    let row = rows.first().ok_or(Sqlx::RowNotFound);
    let found = row.and_then(|row| row.try_get::<Option<String>, _>("extensions"));
    Ok(found.context(context)?.unwrap_or_default())
}

/// Why an extension cannot be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionProblem {
    /// The server has no such extension.
    NotInstalled,
    /// Only a superuser may create it.
    NeedsSuperuser,
}
