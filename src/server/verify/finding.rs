//! What may be wrong with a server: how bad it is, what comes of it, and the line that mends it.

use serde::Serialize;

use crate::pg::ServerFacts;
use crate::pg::facts::ExtensionTrouble;
use crate::pg::sql::identifier;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Tests will be slower than they need to be.
    Slow,
    /// Something will fail.
    Fails,
}

/// Something about a server that a person may want to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A standby: nothing can be created there.
    Standby,
    /// `default_transaction_read_only`.
    ReadOnly,
    /// There is no database to build templates from.
    NoBase(String),
    /// An extension that cannot be created.
    Extension(String, ExtensionTrouble),
    /// `fsync` is on.
    Fsync,
    /// A commit waits for the disk.
    SynchronousCommit,
    /// Too few connections for the pools of all tests at once.
    Connections {
        /// What there is for tests.
        there: u32,
        /// What nobody would wait for.
        enough: u32,
        /// What each test's pool gets instead.
        share: u32,
        /// `max_connections` that would do.
        max: u32,
        /// The server's own limit is not for a person to change.
        fixed: bool,
    },
    /// Few pages stay in memory.
    SharedBuffers(i64),
    /// Pages are written whole for a crash that nobody would survive anyway.
    FullPageWrites,
    /// Autovacuum looks at each database often.
    Autovacuum(i64),
    /// Queries are compiled.
    Jit,
    /// A killed test's query goes on.
    CheckInterval,
    /// Encoding and collation depend on the machine.
    Locale(String),
    /// An old version.
    Version(String),
    /// We may not know where the data is.
    DataDirectory,
    /// We may not end other roles' sessions.
    Signals,
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Standby | Self::ReadOnly | Self::NoBase(_) | Self::Extension(..) => {
                Severity::Fails
            }
            Self::Fsync | Self::SynchronousCommit | Self::Connections { .. } => Severity::Slow,
            _ => Severity::Note,
        }
    }

    /// A word for it.
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

    /// What is so, and what comes of it.
    pub fn says(&self) -> String {
        match self {
            Self::Standby => "a standby: no database can be created there".to_owned(),
            Self::ReadOnly => "transactions are read-only by default: no template can be built".to_owned(),
            Self::NoBase(base) => format!("there is no database `{base}` to build templates from"),
            Self::Extension(name, ExtensionTrouble::NotInstalled) => {
                format!("the server has no extension `{name}`: no template can be built")
            }
            Self::Extension(name, ExtensionTrouble::NeedsSuperuser) => {
                format!("only a superuser may create the extension `{name}`: no template can be built")
            }
            Self::Fsync => "on: CREATE and DROP DATABASE wait for the disk (`--measure` says how long)".to_owned(),
            Self::SynchronousCommit => "on: each commit of a test waits for the disk".to_owned(),
            Self::Connections {
                there,
                enough,
                share,
                ..
            } => format!(
                "{there} for tests, {enough} wanted: each pool gets {share}, and tests wait for each other where that is still too many"
            ),
            Self::SharedBuffers(bytes) => {
                format!("{} MB: a few clones fill it", bytes >> 20)
            }
            Self::FullPageWrites => "on, though fsync is off: more is written than anybody could use".to_owned(),
            Self::Autovacuum(seconds) => format!(
                "looks at every database each {seconds} s: it may hold a clone that is about to be dropped"
            ),
            Self::Jit => "on: compiling the short queries of tests takes longer than running them".to_owned(),
            Self::CheckInterval => "a killed test's query goes on until it ends by itself".to_owned(),
            Self::Locale(locale) => format!(
                "templates are {locale}: order and comparison depend on the machine that the server runs on"
            ),
            Self::Version(version) => format!(
                "{version}: before 15 a clone is always a copy of files, which waits for two checkpoints"
            ),
            Self::DataDirectory => {
                "this role may not know where the data is: clones are made ahead without a look at the disk's room".to_owned()
            }
            Self::Signals => {
                "this role may not end other roles' sessions: a clone that a test left open under another role is dropped later, or by a sweep".to_owned()
            }
        }
    }

    /// The line that mends it, for the role that is logged in.
    pub fn mend(&self, facts: &ServerFacts) -> Option<String> {
        let system = |setting: &str| {
            let line = format!("ALTER SYSTEM SET {setting}; SELECT pg_reload_conf();");
            match facts.superuser {
                true => line,
                false => format!("as a superuser: {line}"),
            }
        };
        let restart = |setting: &str| {
            let who = if facts.superuser {
                ""
            } else {
                "as a superuser: "
            };
            format!("{who}ALTER SYSTEM SET {setting}; then restart the server")
        };
        let role = identifier(&facts.role);
        let line = match self {
            Self::Standby => "point the URL at the primary".to_owned(),
            Self::ReadOnly => format!(
                "BEGIN READ WRITE; ALTER ROLE {role} SET default_transaction_read_only = off; COMMIT;"
            ),
            Self::NoBase(_) => {
                "set `template.base`, or leave it out for the default, `template0`".to_owned()
            }
            Self::Extension(_, ExtensionTrouble::NotInstalled) => {
                "install its package on the server, or take it out of `template.extensions`"
                    .to_owned()
            }
            Self::Extension(name, ExtensionTrouble::NeedsSuperuser) => format!(
                "as a superuser: CREATE DATABASE base OWNER {role}; in it CREATE EXTENSION {}; and `template.base = \"base\"`",
                identifier(name)
            ),
            // The remark is a comment, so that the line can be pasted as it is.
            Self::Fsync => format!(
                "{} -- only where nobody needs what is on the server: a crash of the machine may destroy it",
                system("fsync = off")
            ),
            Self::SynchronousCommit => {
                format!("ALTER ROLE {role} SET synchronous_commit = off;")
            }
            Self::Connections {
                share, max, fixed, ..
            } => {
                let less = format!("`pool.max_connections = {share}`, or fewer test threads");
                match fixed {
                    true => less,
                    false => format!("{}; or {less}", restart(&format!("max_connections = {max}"))),
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
                "a server made with `initdb --encoding=UTF8 --locale=C.UTF-8` sorts alike everywhere"
                    .to_owned()
            }
            Self::Version(_) => return None,
        };
        Some(line)
    }
}
