//! Findings about a server: severity, message and fix.

use serde::Serialize;

use crate::pg::ServerFacts;
use crate::pg::facts::ExtensionProblem;
use crate::pg::sql::identifier;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information.
    Note,
    /// Tests are slower than necessary.
    Slow,
    /// Tests or administrative work will fail.
    Fails,
}

/// A property of a server that the user may want to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The server is a standby.
    Standby,
    /// `default_transaction_read_only` is on.
    ReadOnly,
    /// The base database does not exist.
    NoBase(String),
    /// An extension that cannot be created.
    Extension(String, ExtensionProblem),
    /// `fsync` is on.
    Fsync,
    /// `synchronous_commit` is on.
    SynchronousCommit,
    /// Too few connections for the pools of all tests at once.
    Connections {
        /// Connections available for tests.
        available: u32,
        /// Connections with which no test waits.
        needed: u32,
        /// Connections of each test's pool.
        share: u32,
        /// Sufficient value of `max_connections`.
        max: u32,
        /// Whether the user cannot change `max_connections`.
        fixed: bool,
    },
    /// `shared_buffers` is small; in bytes.
    SharedBuffers(i64),
    /// `full_page_writes` is on, although `fsync` is off.
    FullPageWrites,
    /// `autovacuum_naptime` is short; in seconds.
    Autovacuum(i64),
    /// `jit` is on.
    Jit,
    /// `client_connection_check_interval` is off.
    CheckInterval,
    /// The sort order depends on the machine.
    Locale(String),
    /// The version is old.
    Version(String),
    /// Our role may not read `data_directory`.
    DataDirectory,
    /// Our role may not end sessions of other roles.
    Signals,
}

impl Finding {
    /// The severity.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Standby | Self::ReadOnly | Self::NoBase(_) | Self::Extension(..) => {
                Severity::Fails
            }
            Self::Fsync | Self::SynchronousCommit | Self::Connections { .. } => Severity::Slow,
            _ => Severity::Note,
        }
    }

    /// A short name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standby | Self::ReadOnly => "read-only",
            Self::NoBase(_) => "base",
            Self::Extension(..) => "extension",
            Self::Fsync => "fsync",
            Self::SynchronousCommit => "synchronous_commit",
            Self::Connections { .. } => "max_connections",
            Self::SharedBuffers(_) => "shared_buffers",
            Self::FullPageWrites => "full_page_writes",
            Self::Autovacuum(_) => "autovacuum",
            Self::Jit => "jit",
            Self::CheckInterval => "killed clients",
            Self::Locale(_) => "locale",
            Self::Version(_) => "version",
            Self::DataDirectory | Self::Signals => "rights",
        }
    }

    /// The state and its effect.
    pub fn message(&self) -> String {
        match self {
            Self::Standby => "a standby: databases cannot be created there".to_owned(),
            Self::ReadOnly => "transactions are read-only by default: templates cannot be built".to_owned(),
            Self::NoBase(base) => format!("the base database `{base}` does not exist: templates cannot be built"),
            Self::Extension(name, ExtensionProblem::NotInstalled) => {
                format!("the server has no extension `{name}`: templates cannot be built")
            }
            Self::Extension(name, ExtensionProblem::NeedsSuperuser) => {
                format!("only a superuser may create the extension `{name}`: templates cannot be built")
            }
            Self::Fsync => "on: CREATE and DROP DATABASE wait for the disk (`--measure` shows how long)".to_owned(),
            Self::SynchronousCommit => "on: each commit of a test waits for the disk".to_owned(),
            Self::Connections {
                available,
                needed,
                share,
                ..
            } => format!(
                "{available} available for tests, {needed} needed: each pool gets {share}, and tests wait for each other if that is still too many"
            ),
            Self::SharedBuffers(bytes) => {
                format!("{} MB: a few clones fill it", bytes >> 20)
            }
            Self::FullPageWrites => "on, although fsync is off: the server writes WAL that it never needs".to_owned(),
            Self::Autovacuum(seconds) => format!(
                "visits every database every {seconds} s: it may be connected to a clone that is about to be dropped"
            ),
            Self::Jit => "on: compiling the short queries of tests takes longer than running them".to_owned(),
            Self::CheckInterval => "the query of a killed test continues until it completes".to_owned(),
            Self::Locale(locale) => format!(
                "templates have {locale}: sort order and comparison depend on the server's machine"
            ),
            Self::Version(version) => format!(
                "{version}: before 15, cloning always copies files and waits for two checkpoints"
            ),
            Self::DataDirectory => {
                "this role may not read `data_directory`: clones are prepared without a check of free disk space".to_owned()
            }
            Self::Signals => {
                "this role may not end sessions of other roles: a clone with such a session is dropped later, or by a sweep".to_owned()
            }
        }
    }

    /// The command or change that fixes it, for our role.
    pub fn fix(&self, facts: &ServerFacts) -> Option<String> {
        let system = |setting: &str| {
            let line = format!("ALTER SYSTEM SET {setting}; SELECT pg_reload_conf();");
            match facts.superuser {
                true => line,
                false => format!("as a superuser: {line}"),
            }
        };
        let restart = |setting: &str| {
            let prefix = if facts.superuser {
                ""
            } else {
                "as a superuser: "
            };
            format!("{prefix}ALTER SYSTEM SET {setting}; then restart the server")
        };
        let role = identifier(&facts.role);
        let line = match self {
            Self::Standby => "point the URL at the primary".to_owned(),
            Self::ReadOnly => format!(
                "BEGIN READ WRITE; ALTER ROLE {role} SET default_transaction_read_only = off; COMMIT;"
            ),
            Self::NoBase(_) => {
                "set `template.base` to an existing database, or remove it for the default, `template0`".to_owned()
            }
            Self::Extension(_, ExtensionProblem::NotInstalled) => {
                "install its package on the server, or remove it from `template.extensions`"
                    .to_owned()
            }
            Self::Extension(name, ExtensionProblem::NeedsSuperuser) => format!(
                "as a superuser: CREATE DATABASE base OWNER {role}; in it, CREATE EXTENSION {}; then set `template.base = \"base\"`",
                identifier(name)
            ),
            // The remark is an SQL comment, so the line can be pasted into psql.
            Self::Fsync => format!(
                "{} -- only if the data on this server are disposable: a crash of the machine may destroy them",
                system("fsync = off")
            ),
            Self::SynchronousCommit => {
                format!("ALTER ROLE {role} SET synchronous_commit = off;")
            }
            Self::Connections {
                share, max, fixed, ..
            } => {
                let reduce = format!("`pool.max_connections = {share}`, or fewer test threads");
                match fixed {
                    true => reduce,
                    false => format!("{}; or {reduce}", restart(&format!("max_connections = {max}"))),
                }
            }
            Self::SharedBuffers(_) => restart("shared_buffers = '128MB'"),
            Self::FullPageWrites => system("full_page_writes = off"),
            Self::Autovacuum(_) => system("autovacuum_naptime = '10min'"),
            Self::Jit => format!("ALTER ROLE {role} SET jit = off;"),
            Self::CheckInterval => system("client_connection_check_interval = '2s'"),
            Self::DataDirectory => {
                format!("as a superuser: GRANT pg_read_all_settings TO {role};")
            }
            Self::Signals => format!("as a superuser: GRANT pg_signal_backend TO {role};"),
            Self::Locale(_) => {
                "use a server initialized with `initdb --encoding=UTF8 --locale=C.UTF-8`: it sorts the same on every machine"
                    .to_owned()
            }
            Self::Version(_) => return None,
        };
        Some(line)
    }
}
