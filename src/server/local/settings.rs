//! Settings for data that nobody needs after a crash.

use super::{Local, PORT};

impl Local {
    /// On the command line: nothing that is in the server's own folder can change where it listens.
    pub(super) fn settings(&self) -> Vec<String> {
        let sockets = self.sockets().to_string_lossy().into_owned();
        let fixed = SETTINGS
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut settings: Vec<String> = fixed.collect();
        settings.push(format!("unix_socket_directories={sockets}"));
        settings.push(format!("port={PORT}"));
        if self.major.parse().is_ok_and(|major: u32| major >= 14) {
            // Ends the query of a killed test instead of letting it finish.
            settings.push("client_connection_check_interval=1s".to_owned());
        }
        settings
    }
}

const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "256MB"),
    ("checkpoint_timeout", "30min"),
    ("shared_buffers", "128MB"),
    // So many that no test waits for one. The next line makes room for the locks of a transaction that drops every table of a
    // large schema: so many times `max_connections`.
    ("max_connections", "1000"),
    ("max_locks_per_transaction", "128"),
    ("jit", "off"),
    // Tells which test was at work when something was committed into the shared clone. Costs nothing that can be measured.
    ("track_commit_timestamp", "on"),
    // A client that connects and says nothing holds up the restart after a crash for so long.
    ("authentication_timeout", "10s"),
    ("autovacuum_naptime", "5min"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] %a "),
    // Tests provoke errors on purpose; the log is for the server's own troubles.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "fatal"),
];
